"""The contract of a model: every kind of network and every wrapper, on processes of one, two and three variables.

x̂₀ of a wrapper is what its `__call__` says, by whatever door one comes in.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor

from contracts.every_process import WarmingLangevin
from psld import exact
from psld.guidance.classifier_free import ClassifierFreeGuidance
from psld.guidance.classifier_guidance import ClassifierGuidance
from psld.inverse.operators import Mask, SuperResolution
from psld.inverse.posterior import DPS, MMPS, PiGDM
from psld.model import Clamped, Model, ModelWrapper, Prediction, Predicts, ScoreModel, vp_coefficients
from psld.processes import EDM, PSLD, VESDE, VPSDE, HigherOrderLangevin, LinearProcess
from psld.samplers.projected import Denoiser

SHAPE = (1, 4, 4)
TIMES = torch.tensor([0.15, 0.4, 0.8], dtype=torch.float64)
SOME = [VPSDE(), PSLD(0.25, kappa=0.1), HigherOrderLangevin(3), VESDE()]
NUMERICAL = WarmingLangevin()  # its kernels are solved for, which takes its time


def draws(n: int, shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


DATA = exact.GaussianMixture(draws(3, SHAPE, 0), torch.tensor([0.2, 0.4, 0.6], dtype=torch.float64))
KNOWN = torch.zeros(SHAPE, dtype=torch.bool)
KNOWN[:, :2] = True
SLOPES = draws(3, SHAPE, 5)
SEEN = draws(1, (1, 2, 2), 6)


class Labelled:
    """The denoiser of the mixture, or of one of its components; says how many labels it knows."""

    classes = 3

    def __call__(self, y: Tensor, sigma: Tensor, label: Tensor | None = None) -> Tensor:
        x0 = DATA.denoiser(y, sigma)
        if label is None:
            return x0
        means = torch.cat([DATA.means, DATA.means.mean(0, keepdim=True)])
        return 0.5 * (x0 + means.to(y)[label])


def network(predicts: Predicts, process: LinearProcess) -> ScoreModel:
    """The exact model of the mixture, told in each form."""
    truth = DATA.model(process)

    def v(z: Tensor, t: Tensor) -> Tensor:
        y, sigma = process.statistic(z, t)
        alpha, s = (c.reshape(-1, 1, 1, 1) for c in vp_coefficients(sigma))
        return ((alpha.square() * y - truth(z, t).x0) / s)[:, None]

    forms: dict[Predicts, Callable[..., Tensor]] = {
        "denoiser": DATA.denoiser,
        "score": lambda z, t: truth(z, t).score,
        "eps": lambda z, t: truth(z, t).eps,
        "x0": lambda z, t: truth(z, t).x0[:, None],
        "v": v,
    }
    return ScoreModel(forms[predicts], process, predicts, data_shape=SHAPE)


def logits(z: Tensor, t: Tensor) -> Tensor:
    return torch.stack([torch.tanh(z[:, 0] * slope.to(z)).flatten(1).sum(1) for slope in SLOPES], 1)


def labelled(process: LinearProcess) -> ScoreModel:
    return ScoreModel(Labelled(), process, "denoiser", data_shape=SHAPE)


def row_by_row(network: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """A network that is shown one sample at a time."""

    def each(z: Tensor, t: Tensor, **condition: Tensor) -> Tensor:
        rows = [slice(i, i + 1) for i in range(len(z))]
        return torch.cat([network(z[i], t[i], **{name: told[i] for name, told in condition.items()}) for i in rows])

    return each


class Halved(ModelWrapper):
    """A wrapper as a user writes one."""

    def __call__(self, z, t, **condition):
        prediction = self.model(z, t, **condition)
        return Prediction(z, prediction.kernel, x0=0.5 * prediction.x0)


FORMS: tuple[Predicts, ...] = ("eps", "score", "x0", "v", "denoiser")
WRAPPERS: dict[str, Callable[[Model], ModelWrapper]] = {
    "clamped": lambda model: Clamped(model, -0.3, 0.3),
    "classifier-free": lambda model: ClassifierFreeGuidance(model, 1, 3, 2.0, interval=(0.2, 0.9)),
    "classifier": lambda model: ClassifierGuidance(model, logits, 2, 1.5, 2.0),
    "DPS": lambda model: DPS(model, Mask(KNOWN), draws(1, (8,), 7), 0.5),
    "PiGDM": lambda model: PiGDM(model, SuperResolution(2), SEEN, 0.3),
    "MMPS": lambda model: MMPS(model, SuperResolution(2), SEEN, 0.3, iterations=3),
    "own": Halved,
    "clamped around own": lambda model: Clamped(Halved(model), -0.1, 0.1),
    "own around clamped": lambda model: Halved(Clamped(model, -0.2, 0.2)),
    "clamped around classifier-free": lambda model: Clamped(ClassifierFreeGuidance(model, 0, 3, 3.0), -0.3, 0.3),
    "clamped around MMPS": lambda model: Clamped(MMPS(model, Mask(KNOWN), draws(1, (8,), 7), 0.2), -0.3, 0.3),
}

every_process = pytest.mark.parametrize("process", SOME, ids=repr)
every_wrapper = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
BUILDERS: dict[str, Callable[[LinearProcess], Model]] = {
    **{form: partial(network, form) for form in FORMS},
    **{name: lambda process, wrap=wrap: wrap(labelled(process)) for name, wrap in WRAPPERS.items()},
}
every_model = pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)


def states(process: LinearProcess) -> Tensor:
    x0 = DATA.sample(len(TIMES), torch.Generator().manual_seed(2))
    return process.perturb(x0, TIMES, draws(len(TIMES), (process.k, *SHAPE), 1))


@every_process
@every_wrapper
def test_a_wrapper_has_the_process_and_the_shape_of_its_model(process, wrap):
    model = labelled(process)
    wrapper = wrap(model)
    assert wrapper.process is process and wrapper.data_shape == SHAPE
    decided = any(isinstance(part, ClassifierFreeGuidance) for part in layers(wrapper))
    assert model.classes == 3 and wrapper.classes == (None if decided else 3)
    assert not any(hasattr(part, "output") for part in layers(wrapper)[:-1])


def layers(model: Model) -> list[Model]:
    return [model, *layers(model.model)] if isinstance(model, ModelWrapper) else [model]


@every_process
@every_model
def test_denoise_is_what_a_call_says(process, build):
    """At the state Φ₀ y: a classifier looks at all of z, so the ancillary part has to be said; it is 0."""
    model = build(process)
    y, sigma = process.statistic(states(process), TIMES)
    z = process.from_statistic(y, TIMES, torch.zeros(len(y), process.k, *SHAPE, dtype=torch.float64))
    torch.testing.assert_close(model.denoise(y, sigma), model(z, TIMES).x0, rtol=1e-7, atol=1e-7)
    one = model.denoise(y[:1], float(sigma[0]))
    torch.testing.assert_close(one, model(z[:1], float(TIMES[0])).x0, rtol=1e-7, atol=1e-7)


@every_process
@pytest.mark.parametrize("form", FORMS)
def test_denoise_of_every_form_is_the_denoiser(process, form):
    y, sigma = process.statistic(states(process), TIMES)
    torch.testing.assert_close(network(form, process).denoise(y, sigma), DATA.denoiser(y, sigma), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("process", [*SOME, NUMERICAL], ids=repr)
def test_a_clamp_holds_by_every_door(process):
    model = Clamped(labelled(process), -0.1, 0.2)
    y, sigma = process.statistic(states(process), TIMES)
    bare = labelled(process).denoise(y, sigma)
    assert float(bare.abs().max()) > 0.3
    torch.testing.assert_close(model.denoise(y, sigma), bare.clamp(-0.1, 0.2), rtol=1e-9, atol=1e-9)
    assert float(Halved(model).denoise(y, sigma).max()) <= 0.1 + 1e-12
    assert not hasattr(model, "output")


@pytest.mark.parametrize("form", FORMS)
def test_tables_of_kernels_that_are_solved_for(form):
    """Here the last bits of a kernel depend on the times beside it."""
    model, z = network(form, NUMERICAL), states(NUMERICAL)
    one, other = (answers(asked, z, TIMES[1]) for asked in (model, model.tabulate(TIMES)))
    torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-7)


@every_process
@every_model
def test_tables_change_nothing(process, build):
    model, z = build(process), states(process)
    tabulated = model.tabulate(TIMES)
    assert tabulated is not model and tabulated.tabulate(TIMES[:2]) is tabulated
    for t in TIMES:
        for one, other in zip(answers(model, z, t), answers(tabulated, z, t), strict=True):
            if process.k < 3:
                assert torch.equal(one, other)
            else:  # the statistic's weights are matrix products, which may round by the number of times
                torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def answers(model: Model, z: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    prediction = model(z, t)
    return prediction.x0, prediction.score, prediction.eps


@every_process
@every_model
def test_a_sample_does_not_depend_on_its_batch(process, build):
    """To the bit, with a network of which that is true: matrix products round by the number of their rows."""
    model, z, t = build(process), states(process), TIMES[1]
    inner = layers(model)[-1]
    assert isinstance(inner, ScoreModel)
    inner.network = row_by_row(inner.network)
    together = answers(model, z, t)
    for i in range(len(z)):
        for whole, alone in zip(together, answers(model, z[i : i + 1], t), strict=True):
            assert torch.equal(whole[i : i + 1], alone)


@every_process
@every_model
def test_a_copy_is_the_same_model(process, build):
    model, z = build(process), states(process)
    for other in (copy.copy(model), copy.deepcopy(model)):
        assert torch.equal(other(z, TIMES).x0, model(z, TIMES).x0)
        assert other.data_shape == SHAPE and other.process == process


@every_process
def test_a_wrapper_is_tabulated_with_its_model_once(process):
    calls = []

    class Counting(ScoreModel):
        def tabulate(self, times):
            calls.append(1)
            return super().tabulate(times)

    inner = Counting(DATA.denoiser, process, "denoiser")
    wrapper = Clamped(Halved(inner))
    tabulated = wrapper.tabulate(TIMES)
    assert len(calls) == 1 and layers(wrapper)[-1] is inner and layers(tabulated)[-1] is not inner
    assert [type(part) for part in layers(tabulated)] == [Clamped, Halved, Counting]


@every_process
def test_the_denoiser_of_projected_samplers_is_a_model_of_its_own_process(process):
    """x̂₀ at y is that of the state made of it, under guidance too; the process is EDM, whose time is σ."""
    y, sigma = process.statistic(states(process), TIMES)
    inner = Clamped(labelled(process), -0.2, 0.2)
    model = Denoiser(inner, EDM(float(process.noise_scale(process.T))), {}, lambda: None)
    assert model.data_shape == SHAPE and model.classes == 3 and model.process.k == 1
    assert not hasattr(model, "output") and model.tabulate(sigma) is model
    torch.testing.assert_close(model(y[:, None], sigma).x0, inner.denoise(y, sigma), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(model.denoise(y, sigma), inner.denoise(y, sigma), rtol=1e-7, atol=1e-7)


def test_a_model_of_ones_own_needs_a_process_and_a_call():
    class Gaussian(Model):
        """N(0, I): E[x₀ | y] = y / (1 + σ²)."""

        def __init__(self, process):
            self.process = process

        def __call__(self, z, t, **condition):
            y, sigma = self.process.statistic(z, t)
            return Prediction(z, self.process.marginal(t), x0=y / (1 + sigma**2).reshape(-1, 1))

    model = Gaussian(PSLD())
    assert model.data_shape is None and model.classes is None and model.tabulate(TIMES) is model
    y = draws(3, (2,), 3)
    torch.testing.assert_close(model.denoise(y, 1.0), y / 2, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(Clamped(model).denoise(10 * y, 1.0), (5 * y).clamp(-1, 1), rtol=1e-9, atol=1e-12)
    with pytest.raises(TypeError, match="abstract"):
        Model()  # pyright: ignore[reportAbstractUsage]


def test_denoise_refuses_noise_above_the_process():
    with pytest.raises(ValueError, match=r"σ must lie in \(0, 1"):
        network("eps", VPSDE()).denoise(draws(1, SHAPE, 0), 1e6)
    above = draws(1, SHAPE, 0)
    sigma = torch.tensor([1e6], dtype=torch.float64)
    assert torch.equal(DATA.model(VPSDE()).denoise(above, sigma), DATA.denoiser(above, sigma))
