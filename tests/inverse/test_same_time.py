"""No sampler knows of guidance, and none shows the classifier another state or time than the score network."""

import pytest
import torch

from psld import exact
from psld.guidance.classifier_guidance import ClassifierGuidance
from psld.model import ScoreModel
from psld.processes import PSLD, VPSDE
from psld.samplers.catalogue import CATALOGUE
from psld.samplers.grids import Grid
from psld.samplers.requirements import MOMENTUM

DATA = exact.GaussianMixture(torch.tensor([[0.8, -0.4], [-0.7, 0.1]], dtype=torch.float64), 0.3)
GRID = Grid(torch.tensor([1.0, 0.8, 0.6, 0.45, 0.35], dtype=torch.float64))


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
@pytest.mark.parametrize("process", [VPSDE(), PSLD(0.25)], ids=repr)
def test_network_and_classifier_see_the_same_state_and_time(entry, process):
    network_saw, classifier_saw = [], []
    exact_model = DATA.model(process)

    def network(z, t):
        network_saw.append((z.clone(), t.clone()))
        return exact_model(z, t).score

    def classifier(z, t):
        classifier_saw.append((z.detach().clone(), t.clone()))
        return torch.stack([z.sum((1, 2)), -z.sum((1, 2))], 1)

    guided = ClassifierGuidance(ScoreModel(network, process, "score"), classifier, 1)
    if process.k == 1 and MOMENTUM in entry.needs:
        with pytest.raises(ValueError, match=r"splits position from momentum, and VPSDE\(\) has one variable"):
            entry.sampler.sample(guided, grid=GRID, seeds=range(3), shape=(2,))
        assert not classifier_saw
        return
    entry.sampler.sample(guided, grid=GRID, seeds=range(3), shape=(2,))
    assert len(network_saw) == len(classifier_saw) > 0
    for (z, t), (seen_z, seen_t) in zip(network_saw, classifier_saw, strict=True):
        assert torch.equal(z, seen_z) and torch.equal(t, seen_t)
