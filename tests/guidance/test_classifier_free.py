"""Classifier-free guidance on the exact scores of a mixture, and of its components as classes."""

import pytest
import torch

from psld import exact
from psld.guidance.classifier_free import ClassifierFreeGuidance
from psld.model import ScoreModel
from psld.processes import CLD, PSLD, VPSDE

MEANS = torch.tensor([[0.8, -0.4], [-0.7, 0.1], [0.1, 1.2]], dtype=torch.float64)
DATA = exact.GaussianMixture(MEANS, 0.3)
PARTS = [exact.GaussianMixture(mean[None], 0.3) for mean in MEANS]
TIMES = torch.tensor([0.1, 0.35, 0.9], dtype=torch.float64)

every_process = pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.25)], ids=repr)


def conditional(process):
    return ScoreModel(lambda y, sigma, label: [*PARTS, DATA][int(label[0])].denoiser(y, sigma), process, "denoiser")


def states(process):
    eps = torch.randn(3, process.k, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return process.perturb(DATA.sample(3, torch.Generator().manual_seed(2)), TIMES, eps)


@every_process
def test_scale_0_is_the_unconditional_and_1_the_conditional_model(process):
    z = states(process)
    for scale, law in [(0.0, DATA), (1.0, PARTS[2])]:
        score = ClassifierFreeGuidance(conditional(process), 2, 3, scale)(z, TIMES).score
        assert torch.equal(score, law.model(process)(z, TIMES).score)


@every_process
def test_scale_follows_its_schedule_inside_the_interval(process):
    """Each sample with its own w: outside of the interval the conditional score."""
    z = states(process)
    base, part = DATA.model(process)(z, TIMES).score, PARTS[1].model(process)(z, TIMES).score
    guided = ClassifierFreeGuidance(conditional(process), 1, 3, lambda t: 2.0 + t, interval=(0.2, 0.5))
    w = torch.tensor([1.0, 2.35, 1.0], dtype=torch.float64)[:, None, None]
    torch.testing.assert_close(guided(z, TIMES).score, (1 - w) * base + w * part, rtol=1e-10, atol=1e-10)


def test_bad_arguments_are_refused():
    for label in (-1, 3):
        with pytest.raises(ValueError, match=f"label must be in 0 … 2: got {label}"):
            ClassifierFreeGuidance(conditional(CLD()), label, 3)
    with pytest.raises(ValueError, match="low below high"):
        ClassifierFreeGuidance(conditional(CLD()), 0, 3, interval=(0.5, 0.2))
