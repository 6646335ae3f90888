"""On Gaussian data the posterior score is known: Bayes' rule on (x₀, z_t, y), written out as one joint Gaussian."""

import pytest
import torch

from psld import exact
from psld.inverse.operators import Blur, Mask, SuperResolution
from psld.inverse.posterior import DPS, MMPS, PiGDM, conjugate_gradients
from psld.model import Clamped, ScoreModel
from psld.networks import UNet
from psld.processes import CLD, PSLD, VPSDE, HigherOrderLangevin
from psld.samplers import Exponential, Projected
from psld.samplers.grids import log_snr

SHAPE = (1, 4, 4)
N = 16
PROCESSES = [VPSDE(), CLD(), PSLD(0.25), HigherOrderLangevin(3)]
KNOWN = torch.zeros(SHAPE, dtype=torch.bool)
KNOWN[:, :2] = True
OPERATORS = [Mask(KNOWN), SuperResolution(2), Blur.uniform(3)]

every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)


def draws(n, shape, seed):
    return torch.randn(n, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def correlated():
    factor = draws(N, (N,), 7) / N**0.5
    return factor @ factor.T + 0.05 * torch.eye(N, dtype=torch.float64)


class CorrelatedGaussian:
    """N(mean, covariance) and its denoiser."""

    def __init__(self, covariance, mean=0.2):
        self.covariance, self.mean = covariance, mean

    def denoiser(self, y, sigma):
        eye = torch.eye(N, dtype=torch.float64)
        gain = torch.stack([self.covariance @ torch.linalg.inv(self.covariance + s**2 * eye) for s in sigma])
        return self.mean + (gain @ (y.flatten(1) - self.mean)[..., None])[..., 0].reshape(y.shape)

    def model(self, process):
        return ScoreModel(self.denoiser, process, predicts="denoiser")

    def posterior_score(self, process, z, t, operator, y, noise):
        """∇_z log p(z_t | y) by the joint law of (z_t, y) over all k·N variables."""
        kernel = process.marginal(t)
        a = operator.forward(torch.eye(N, dtype=torch.float64).unflatten(1, SHAPE)).flatten(1).T
        signal = kernel.mean_map[:, :1]
        at_z = torch.kron(kernel.covariance, torch.eye(N, dtype=torch.float64)) + torch.kron(
            signal @ signal.T, self.covariance
        )
        across = torch.kron(signal, self.covariance @ a.T)
        at_y = a @ self.covariance @ a.T + noise**2 * torch.eye(len(a), dtype=torch.float64)
        mean = torch.full((N,), self.mean, dtype=torch.float64)
        gain = across @ torch.linalg.inv(at_y)
        centre = torch.kron(signal[:, 0], mean) + (y.flatten(1) - a @ mean) @ gain.T
        spread = at_z - gain @ across.T
        return -torch.linalg.solve(spread, (z.flatten(1) - centre).T).T.reshape(z.shape)


@every_process
@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: type(operator).__name__)
@pytest.mark.parametrize("t", [0.1, 0.4])
def test_mmps_is_exact_on_any_gaussian(process, operator, t):
    data, noise = CorrelatedGaussian(correlated()), 0.3
    z = draws(3, (process.k, *SHAPE), 1)
    y = operator.forward(draws(3, SHAPE, 2))
    guided = MMPS(data.model(process), operator, y, noise, iterations=30)
    expected = data.posterior_score(process, z, t, operator, y, noise)
    score = guided(z, t).score
    torch.testing.assert_close(score, expected, rtol=1e-7, atol=1e-9 * float(expected.abs().max()))


@every_process
@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: type(operator).__name__)
def test_pigdm_is_exact_on_isotropic_gaussians_only(process, operator):
    z, t, noise = draws(3, (process.k, *SHAPE), 1), 0.2, 0.3
    y = operator.forward(draws(3, SHAPE, 2))
    data = CorrelatedGaussian(0.49 * torch.eye(N, dtype=torch.float64))
    expected = data.posterior_score(process, z, t, operator, y, noise)
    score = PiGDM(data.model(process), operator, y, noise, data_std=0.7)(z, t).score
    torch.testing.assert_close(score, expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))
    data = CorrelatedGaussian(correlated())
    expected = data.posterior_score(process, z, t, operator, y, noise)
    score = PiGDM(data.model(process), operator, y, noise)(z, t).score
    assert float((score - expected).norm() / expected.norm()) > 1e-3


@every_process
def test_dps_is_the_gradient_of_its_likelihood(process):
    data, operator, t = exact.GaussianMixture(draws(4, SHAPE, 3), 0.3), OPERATORS[0], 0.2
    model, z = data.model(process), draws(3, (process.k, *SHAPE), 1)
    y = operator.forward(draws(1, SHAPE, 2))
    state = z.clone().requires_grad_()
    distance = (y - operator.forward(model(state, t).x0)).flatten(1).square().sum(1)
    (bayes,) = torch.autograd.grad(-0.5 * distance.sum() / 0.5**2, state, retain_graph=True)
    (practical,) = torch.autograd.grad(-2.0 * distance.sqrt().sum(), state)
    base = model(z, t).score
    guided = DPS(model, operator, y, 0.5)(z, t)
    torch.testing.assert_close(guided.score, base + bayes, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(
        DPS(model, operator, y, 0.0, step=2.0)(z, t).score, base + practical, rtol=1e-7, atol=1e-9
    )


@every_process
def test_a_time_a_sample_and_score_networks(process):
    """Times in a batch give what single times give, and a model known by its score what one known by x̂₀ gives."""
    data, operator = exact.GaussianMixture(draws(4, SHAPE, 3), 0.3), OPERATORS[1]
    model, z, t = data.model(process), draws(2, (process.k, *SHAPE), 1), torch.tensor([0.1, 0.6])
    y = operator.forward(draws(1, SHAPE, 2))
    guided = MMPS(model, operator, y, 0.2)
    both = guided(z, t).x0
    for i in range(2):
        torch.testing.assert_close(both[i : i + 1], guided(z[i : i + 1], float(t[i])).x0, rtol=1e-6, atol=1e-7)
    by_score = ScoreModel(lambda z, t: model(z, t).score, process, "score")
    torch.testing.assert_close(MMPS(by_score, operator, y, 0.2)(z, t).x0, both, rtol=1e-5, atol=1e-6)


def test_samplers_draw_from_the_posterior():
    """Under no_grad, tabulated, clamped and projected alike, x given half of itself has its closed-form mean."""
    data, operator, noise = CorrelatedGaussian(0.3 * correlated()), OPERATORS[0], 0.1
    y = operator.forward(0.3 * draws(1, SHAPE, 2))
    a = operator.forward(torch.eye(N, dtype=torch.float64).unflatten(1, SHAPE)).flatten(1).T
    gain = data.covariance @ a.T @ torch.linalg.inv(a @ data.covariance @ a.T + noise**2 * torch.eye(8))
    mean = (0.2 + (y - 0.2) @ gain.T).reshape(SHAPE)
    spread = (data.covariance - gain @ a @ data.covariance).diagonal().reshape(SHAPE).sqrt()
    process = PSLD()
    guided = MMPS(data.model(process), operator, y, noise, iterations=16)
    for sampler, model in ((Exponential(), Clamped(guided, -9.0, 9.0)), (Projected(Exponential(), "fresh"), guided)):
        x = sampler.sample(model, grid=log_snr(process, 30), seeds=range(300), shape=SHAPE).x
        assert ((x.mean(0) - mean).abs() < 4.5 * spread / 300**0.5 + 0.01).all()
        torch.testing.assert_close(x.std(0), spread, rtol=0.25, atol=0.01)


def test_conjugate_gradients_stop_where_the_matrix_is_not_positive():
    diagonal = torch.tensor([[1.0, 4.0, 9.0], [1.0, -4.0, 9.0]], dtype=torch.float64)
    b = torch.ones(2, 3, dtype=torch.float64)
    u = conjugate_gradients(lambda v: diagonal * v, b, 10)
    torch.testing.assert_close(u[0], 1.0 / diagonal[0], rtol=1e-12, atol=0)
    assert u[1].isfinite().all()
    assert not conjugate_gradients(lambda v: diagonal * v, torch.zeros_like(b), 10).any()


def test_refusals():
    model, y = exact.Gaussian(0.0, 1.0, SHAPE).model(VPSDE()), torch.zeros(1, 8)
    z = draws(2, (1, *SHAPE), 1)
    for build, message in (
        (lambda: MMPS(model, OPERATORS[0], y, -0.1), "noise must be a finite, non-negative number"),
        (lambda: MMPS(model, OPERATORS[0], y, 0.1, iterations=0), "iterations must be at least 1"),
        (lambda: PiGDM(model, OPERATORS[0], y, 0.1, data_std=0.0), "data_std must be a positive"),
        (lambda: DPS(model, OPERATORS[0], y, 0.0), "noise > 0, or a positive step"),
        (lambda: MMPS(model, OPERATORS[0], y[:, :7], 0.1)(z, 0.5), "give one for all samples"),
        (lambda: MMPS(model, OPERATORS[0], y.expand(3, 8), 0.1)(z, 0.5), "give one for all samples"),
    ):
        with pytest.raises(ValueError, match=message):
            build()


@pytest.mark.usefixtures("unchecked")  # the compiler does not see through the checks of shapes
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_a_compiled_network_is_differentiated_as_the_network_is(backend):
    """`psld restore --compile true`: each method on a frozen network; MMPS goes back through one pass several times."""
    torch.manual_seed(0)
    network = UNet(2, 2, 8, width=4, multipliers=(1,), blocks=1, attention_resolutions=()).eval().requires_grad_(False)
    compiled = torch.compile(network, backend=backend)
    z, y = draws(3, (2, 1, 8, 8), 0), draws(1, (1, 4, 4), 1)
    for kind in (DPS, PiGDM, MMPS):
        plain, found = (
            kind(ScoreModel(asked, PSLD()), SuperResolution(2), y, 0.3)(z, 0.4).x0 for asked in (network, compiled)
        )
        unguided = ScoreModel(network, PSLD())(z, 0.4).x0
        assert float((plain - unguided).abs().max()) > 0.01  # there was a derivative to get right
        torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-4)
