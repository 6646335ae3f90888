"""Classifier guidance with the exact classifier against the exact conditional score, which is a Gaussian's."""

import pytest
import torch

from psld import exact
from psld.evaluation import energy_distance
from psld.guidance.classifier_guidance import ClassifierGuidance
from psld.networks import NoiseClassifier
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.samplers import Ancestral, Exponential
from psld.samplers.grids import log_snr

MEANS = torch.tensor([[0.8, -0.4], [-0.7, 0.1], [0.1, 1.2]], dtype=torch.float64)
DATA = exact.GaussianMixture(MEANS, 0.3)
TIMES = torch.tensor([0.1, 0.35, 0.9], dtype=torch.float64)


def classifier(process):
    """Bayes' rule over the components, in the full phase space."""
    parts = [exact.GaussianMixture(mean[None], 0.3) for mean in MEANS]
    return lambda z, t: torch.stack([part.log_prob(process, z, t) for part in parts], 1)


def small_classifier():
    """A network of 4×4 images of two variables, with three classes."""
    sizes = dict(image_size=4, width=8, multipliers=(1,), blocks=1, attention_resolutions=())
    return NoiseClassifier(in_channels=2, classes=3, **sizes)  # pyright: ignore[reportArgumentType]


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


def test_a_network_is_asked_for_its_classes_before_any_call():
    network = small_classifier()
    for label in (-1, 3):
        with pytest.raises(ValueError, match=f"label must be in 0 … 2, as the classifier has them: got {label}"):
            ClassifierGuidance(DATA.model(CLD()), network, label)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": float("inf")}, "scale must be a finite number: got inf"),
        ({"scale": float("nan")}, "scale must be a number: got nan"),
        ({"temperature": 0.0}, "temperature must be a positive, finite number: got 0.0"),
        ({"temperature": float("inf")}, "temperature must be a positive, finite number: got inf"),
        ({"process": CLD(kappa=0.1)}, r"trained on states of CLD\(kappa=0.1\), and the model is of CLD\(\)"),
        ({"process": VPSDE()}, r"trained on states of VPSDE\(\), and the model is of CLD\(\)"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ClassifierGuidance(DATA.model(CLD()), classifier(CLD()), 0, **options)


@pytest.mark.parametrize("temperature", [0.5, 4.0])
def test_temperature_is_of_the_posterior_and_scale_of_its_gradient(temperature):
    """∇ log softmax(l / T)ᵧ = (∇lᵧ − Σⱼ qⱼ ∇lⱼ) / T with q = softmax(l / T): the gradients one by one."""
    process = PSLD(0.25)
    eps = torch.randn(3, 2, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    z = process.perturb(DATA.sample(3, torch.Generator().manual_seed(2)), TIMES, eps)
    own = [exact.GaussianMixture(mean[None], 0.3).model(process)(z, TIMES).score for mean in MEANS]
    q = (classifier(process)(z, TIMES) / temperature).softmax(1)
    mean = sum(q[:, j, None, None] * own[j] for j in range(3))
    guided = ClassifierGuidance(DATA.model(process), classifier(process), 1, 3.0, temperature, process)
    expected = DATA.model(process)(z, TIMES).score + 3.0 / temperature * (own[1] - mean)
    torch.testing.assert_close(guided(z, TIMES).score, expected, rtol=1e-7, atol=1e-7)


def test_a_network_in_float32_guides_states_in_float64():
    torch.manual_seed(0)
    network = small_classifier().eval()
    z, t = torch.randn(3, 2, 1, 4, 4, dtype=torch.float64), TIMES
    model = exact.Gaussian(shape=(1, 4, 4)).model(CLD())
    found = ClassifierGuidance(model, network, 2)(z, t).score - model(z, t).score
    doubled = network.double()
    state = z.clone().requires_grad_()
    (expected,) = torch.autograd.grad(doubled(state, t).log_softmax(1)[:, 2].sum(), state)
    assert float(expected.abs().max()) > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


# -- the law of whole runs ---------------------------------------------------------------------------------------------

PART = exact.GaussianMixture(MEANS[1][None], 0.3)


@pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.25)], ids=repr)
@pytest.mark.parametrize("sampler", [Exponential(), Ancestral()], ids=repr)
def test_guided_samples_are_draws_of_the_conditional_law(process, sampler):
    """Energy distance to true draws, against that between two sets of them; and to the other laws, far away."""
    count = 600
    target, again, everything = (
        law.sample(count, torch.Generator().manual_seed(seed)) for law, seed in ((PART, 1), (PART, 2), (DATA, 3))
    )
    guided = ClassifierGuidance(DATA.model(process), classifier(process), 1, process=process)
    grid = log_snr(process, 80 if sampler.stochastic else 30, end=1e-3, final="none")
    x = sampler.sample(guided, grid=grid, seeds=range(count), shape=(2,)).x
    floor = energy_distance(again, target)
    assert energy_distance(x, target) < 2.0 * floor
    assert energy_distance(everything, target) > 50.0 * floor
