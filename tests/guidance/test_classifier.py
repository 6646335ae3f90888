"""Classifier guidance with the exact classifier against the exact conditional score, which is a Gaussian's."""

import pytest
import torch

from psld import exact
from psld.guidance.classifier import ClassifierGuidance
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE

MEANS = torch.tensor([[0.8, -0.4], [-0.7, 0.1], [0.1, 1.2]], dtype=torch.float64)
DATA = exact.GaussianMixture(MEANS, 0.3)
TIMES = torch.tensor([0.1, 0.35, 0.9], dtype=torch.float64)


def classifier(process):
    """Bayes' rule over the components, in the full phase space."""
    parts = [exact.GaussianMixture(mean[None], 0.3) for mean in MEANS]
    return lambda z, t: torch.stack([part.log_prob(process, z, t) for part in parts], 1)


@pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.25), HigherOrderLangevin(3), VESDE(), SubVPSDE()], ids=repr)
@pytest.mark.parametrize("label", [0, 2])
def test_exact_classifier_gives_the_exact_conditional_score(process, label):
    eps = torch.randn(3, process.k, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = process.perturb(DATA.sample(3, torch.Generator().manual_seed(2)), TIMES, eps)
    expected = exact.GaussianMixture(MEANS[label][None], 0.3).model(process)(z, TIMES).score
    guided = ClassifierGuidance(DATA.model(process), classifier(process), label)
    with torch.no_grad():
        torch.testing.assert_close(guided(z, TIMES).score, expected, rtol=1e-7, atol=1e-7)
    unguided = ClassifierGuidance(DATA.model(process), classifier(process), label, scale=0.0)
    assert torch.equal(unguided(z, TIMES).score, DATA.model(process)(z, TIMES).score)


def test_label_out_of_range_is_refused():
    model = DATA.model(CLD())
    with pytest.raises(ValueError, match="label must be in 0 … 2"):
        ClassifierGuidance(model, classifier(CLD()), 3)(torch.zeros(3, 2, 2, dtype=torch.float64), TIMES)
    with pytest.raises(ValueError, match="at least 0"):
        ClassifierGuidance(model, classifier(CLD()), -1)
