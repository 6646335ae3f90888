"""Log densities and bounds against closed forms; the trace against the whole Jacobian and its known variance."""

import math

import pytest
import torch

import laws
from psld import exact
from psld.kernels import mix
from psld.likelihood import ExactTrace, Hutchinson, ProbabilityFlow, bits_per_dimension, bound
from psld.likelihood.bounds import data_start, perturbed_start
from psld.likelihood.dequantisation import Uniform
from psld.likelihood.flow import _flow
from psld.model import ScoreModel
from psld.noise import SeededNoise
from psld.processes import CLD, EDM, PSLD, VESDE, VPSDE, HigherOrderLangevin
from psld.samplers import RK45
from psld.samplers.grids import Grid
from psld.samplers.runge_kutta import flow

MIXTURE = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4], [-0.7, 0.1], [0.1, 1.2]], dtype=torch.float64),
    std=torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
)
PROCESSES = [VPSDE(), CLD(), PSLD(0.01), PSLD(0.25)]
EVERY_PROCESS = [*PROCESSES, HigherOrderLangevin(3), VESDE()]


def states(process, t, n=4, data=MIXTURE):
    x = data.sample(n, torch.Generator().manual_seed(0))
    return process.perturb(x, t, SeededNoise(range(n), (process.k, *data.data_shape))())


def generators(n, first=0):
    return [torch.Generator().manual_seed(first + i) for i in range(n)]


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_log_prob_of_a_mixture(process):
    """Within solver tolerance of the closed form at both ends of the path."""
    z = states(process, 0.01)
    found = ProbabilityFlow(MIXTURE.model(process), rtol=1e-6, atol=1e-6).log_prob(z, 0.01)
    expected = MIXTURE.log_prob(process, z, 0.01)
    prior_error = process.prior_log_prob(found.z) - MIXTURE.log_prob(process, found.z, process.T)
    torch.testing.assert_close(found.log_prob - prior_error, expected, rtol=0, atol=2e-5)
    torch.testing.assert_close(found.log_prob, expected, rtol=0, atol=1e-2)  # the prior is that near to p_T


@pytest.mark.parametrize("process", [HigherOrderLangevin(3), VESDE(), PSLD(0.01)], ids=repr)
def test_log_prob_of_gaussian_images(process):
    """Estimated traces are exact here: the Jacobian of each data dimension is its own."""
    data = exact.Gaussian(0.3, 0.5, (2, 3, 3))
    z = states(process, 0.4, 2, data)
    found = ProbabilityFlow(data.model(process), Hutchinson()).carry(z, 0.4, process.T, generators(2, 5))
    end = data.log_prob(process, found.z, process.T) + found.divergence
    torch.testing.assert_close(end, data.log_prob(process, z, 0.4), rtol=0, atol=5e-4)


def test_error_follows_the_tolerance():
    process = PSLD(0.01)
    z = states(process, 0.2, 3)
    expected = MIXTURE.log_prob(process, z, 0.2)
    errors = []
    for tolerance in (1e-3, 1e-5, 1e-7):
        found = ProbabilityFlow(MIXTURE.model(process), rtol=tolerance, atol=tolerance).carry(z, 0.2, 1.0)
        end = MIXTURE.log_prob(process, found.z, 1.0) + found.divergence
        errors.append(float((end - expected).abs().max()))
    assert errors[0] > 10 * errors[1] > 100 * errors[2]
    assert errors[2] < 5e-6


@pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.01)], ids=repr)
def test_there_and_back(process):
    path = ProbabilityFlow(MIXTURE.model(process), rtol=1e-7, atol=1e-7)
    z = states(process, 0.2, 2)
    there = path.carry(z, 0.2, 0.6)
    back = path.carry(there.z, 0.6, 0.2)
    torch.testing.assert_close(back.z, z, rtol=0, atol=1e-5)
    torch.testing.assert_close(back.divergence, -there.divergence, rtol=0, atol=1e-5)


def test_density_of_a_sample_is_known_when_it_is_drawn():
    """From the prior down with RK45: the sample is the flow's, and its density agrees with the way up."""
    process = CLD()
    model, grid = MIXTURE.model(process), Grid(torch.tensor([1.0, 0.3], dtype=torch.float64), "none")
    drawn = RK45(1e-6, 1e-6).sample(model, grid=grid, seeds=range(2), shape=(2,))
    start = process.prior_sample(SeededNoise(range(2), (2, 2))())
    path = ProbabilityFlow(model, rtol=1e-6, atol=1e-6)
    down, up = path.carry(start, 1.0, 0.3), path.log_prob(drawn.z, 0.3)
    torch.testing.assert_close(down.z, drawn.z, rtol=0, atol=1e-4)
    torch.testing.assert_close(process.prior_log_prob(start) - down.divergence, up.log_prob, rtol=0, atol=1e-4)


@pytest.mark.parametrize("process", EVERY_PROCESS, ids=repr)
def test_divergence_is_the_trace_of_the_whole_jacobian(process):
    """Every entry of ∂(dz/dt)/∂z by autograd, one sample at a time: nothing of the noisy directions."""
    model, z, t = MIXTURE.model(process), states(process, 0.1), torch.tensor([0.01, 0.1, 0.4, 0.9], dtype=torch.float64)
    trace = ExactTrace().begin((4, process.noisy_rows, 2))
    slope, divergence = _flow(model, z, t, lambda out, z, g: trace(out, z, g, torch.arange(4)))
    torch.testing.assert_close(slope, flow(model, z, t), rtol=1e-12, atol=1e-12)
    for i in range(4):
        jacobian = torch.autograd.functional.jacobian(lambda row, i=i: flow(model, row, t[i : i + 1]), z[i : i + 1])
        expected = jacobian.reshape(2 * process.k, 2 * process.k).trace()  # pyright: ignore[reportAttributeAccessIssue]
        torch.testing.assert_close(divergence[i], expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("law, shared", [("rademacher", False), ("gaussian", True)])
@pytest.mark.parametrize("probes", [1, 3])
def test_hutchinson_mean_and_variance(law, shared, probes):
    """40,000 seeds on a linear field: unbiased, and of the variance in closed form."""
    n = 40_000
    jacobian = torch.randn(5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    input = torch.zeros(n, 5, 1, dtype=torch.float64, requires_grad=True)
    trace = Hutchinson(probes, law).begin((n, 5, 1), torch.Generator().manual_seed(2))
    values = trace(mix(jacobian, input), input, torch.eye(5), torch.arange(n))
    symmetric = 0.5 * (jacobian + jacobian.T)
    square = symmetric.square().sum()
    variance = 2.0 * (square if shared else square - symmetric.diagonal().square().sum()) / probes
    assert (values.mean() - jacobian.trace()).abs() < 4 * (variance / n).sqrt()
    spread = (values - values.mean()).square()
    assert (spread.mean() - variance).abs() < 4 * spread.std() / math.sqrt(n)


@pytest.mark.parametrize("process", [VPSDE(), PSLD(0.25)], ids=repr)
def test_hutchinson_is_unbiased_along_a_path(process):
    """One state, many seeds; at this tolerance the probes are the only noise."""
    n, z = 1000, states(process, 0.2, 1)
    model = MIXTURE.model(process)
    truth = ProbabilityFlow(model, ExactTrace()).carry(z, 0.2, 0.3).divergence
    many = ProbabilityFlow(model, Hutchinson()).carry(z.expand(n, -1, -1), 0.2, 0.3, generators(n)).divergence
    assert float(many.std()) > 1e-3
    assert abs(float(many.mean() - truth)) < 4 * float(many.std()) / math.sqrt(n)


def test_exact_trace_in_parts():
    """More dimensions than rows at once, on a field whose trace is 3 Σ z²."""
    input = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    trace = ExactTrace().begin((2, 3, 5, 7))(input**3 + input.roll(1, 2), input, torch.eye(3), torch.arange(2))
    torch.testing.assert_close(trace, 3.0 * input.square().flatten(1).sum(1))


def test_a_value_does_not_depend_on_its_neighbours():
    process, x = VPSDE(), MIXTURE.sample(3, torch.Generator().manual_seed(3))
    path = ProbabilityFlow(MIXTURE.model(process), Hutchinson(2), rtol=1e-3, atol=1e-3)
    together = bound(path, x, 0.1, [7, 8, 9], draws=2)
    for i in range(3):
        alone = bound(path, x[i : i + 1], 0.1, [7 + i], draws=2)
        torch.testing.assert_close(alone.log_weights[:, 0], together.log_weights[:, i], rtol=0, atol=1e-9)
        assert int(alone.nfe) == int(together.nfe[i])


@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_bits_per_dimension_of_a_gaussian(process):
    """Against ½ log₂(2π s²) + (x − μ)² / (2 s² ln 2), to 1e-3 on the mean."""
    data = exact.Gaussian(0.3, 0.5, (1, 4, 4))
    x = data.sample(8, torch.Generator().manual_seed(0))
    path = ProbabilityFlow(data.model(process), Hutchinson(), rtol=1e-5, atol=1e-5)
    bits = bits_per_dimension(bound(path, x, 1e-5, range(8)).evidence, 16)
    expected = 0.5 * math.log2(2 * math.pi * 0.25) + ((x - 0.3) / 0.5).square().flatten(1).mean(1) / (2 * math.log(2))
    assert abs(float((bits - expected).mean())) < 1e-3
    torch.testing.assert_close(bits, expected, rtol=0, atol=5e-3)


@pytest.mark.parametrize("process", EVERY_PROCESS, ids=repr)
def test_perturbed_start_leaves_the_density_of_the_statistic(process):
    """log p_t(z) − log c(z) = log of the density of y = x + σξ: the process with one variable has that directly."""
    x, t = MIXTURE.sample(5, torch.Generator().manual_seed(0)), 0.07
    z, log_beside = perturbed_start(process, x, t, SeededNoise(range(5), (process.k, 2))())
    y, sigma = process.statistic(z, t)
    expected = MIXTURE.log_prob(EDM(), y[:, None], sigma)
    torch.testing.assert_close(MIXTURE.log_prob(process, z, t) - log_beside, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(z, process.perturb(x, t, SeededNoise(range(5), (process.k, 2))()))


def test_data_start():
    """m of variance κM, and its log density."""
    process, x = PSLD(0.01), torch.zeros(20_000, 1, dtype=torch.float64)
    z, log_m = data_start(process, x, 0.01, torch.randn(20_000, 2, 1, dtype=torch.float64))
    assert z.dtype == torch.float64
    variance = process.kappa * process.mass
    assert torch.equal(z[:, 0], x)
    assert float(z[:, 1].var()) == pytest.approx(variance, rel=0.05)
    expected = -0.5 * z[:, 1, 0].square() / variance - 0.5 * math.log(2 * math.pi * variance)
    torch.testing.assert_close(log_m, expected)
    assert torch.equal(data_start(VPSDE(), x, 0.01, x[:, None])[1], torch.zeros(20_000, dtype=torch.float64))


def test_bounds_are_bounds_and_draws_tighten_them():
    """σ(t) beside the width of the data, where the bound is loose: closed form for one draw, and log p(x) above all."""
    process, t = PSLD(0.01), 0.1
    data = exact.Gaussian(0.0, 0.3, (1,))
    x = torch.full((200, 1), 0.1, dtype=torch.float64)
    sigma2 = float(process.noise_scale(t)) ** 2
    found = bound(ProbabilityFlow(data.model(process), rtol=1e-3, atol=1e-3), x, t, range(200), draws=4)
    wide = 0.09 + sigma2
    expected = -0.5 * math.log(2 * math.pi * wide) - 0.5 * (0.01 + sigma2) / wide
    truth = -0.5 * math.log(2 * math.pi * 0.09) - 0.5 * 0.01 / 0.09
    one = found.log_weights.flatten()
    assert abs(float(one.mean()) - expected) < 4 * float(one.std()) / math.sqrt(800) + 2e-3
    assert expected < float(found.importance.mean()) < truth
    assert (found.importance >= found.evidence).all()


def test_dequantised_bound_is_a_probability():
    """Log-mean-exp over draws approaches log P of the bin, here a difference of two normal distribution functions."""
    process = VPSDE()
    data, levels = exact.Gaussian(0.1, 0.4, (1,)), Uniform(5)
    x = torch.tensor([[-0.5], [0.0], [1.0]], dtype=torch.float64)
    path = ProbabilityFlow(data.model(process), rtol=1e-4, atol=1e-4)
    rows = x.repeat_interleave(200, 0)
    found = bound(path, rows, 1e-4, range(600), dequantiser=levels).log_weights[0].reshape(3, 200)
    normal = torch.distributions.Normal(0.1, 0.4)
    expected = (normal.cdf(x + 0.25) - normal.cdf(x - 0.25)).log()[:, 0].double()
    weights = found.exp()
    error = weights.mean(1) - expected.exp()
    assert (error.abs() < 4 * weights.std(1) / math.sqrt(200) + 1e-3).all()
    assert (found.mean(1) < expected)[[0, 2]].all()  # across the middle bin the density hardly changes


def test_nothing_of_a_network_is_needed_but_a_backward_pass():
    """A network with weights that want gradients, in float32, on images: finite, and the same weights afterwards."""
    network = torch.nn.Conv2d(2, 2, 3, padding=1)
    process = PSLD(0.01)
    model = ScoreModel(lambda z, t: network(z.flatten(1, 2).float()).unflatten(1, (2, 1)).double(), process, "eps")
    x = torch.rand(2, 1, 6, 6) * 2 - 1
    before = network.weight.detach().clone()
    for trace in (Hutchinson(), Hutchinson(3, "gaussian"), ExactTrace()):
        found = bound(ProbabilityFlow(model, trace, rtol=1e-2, atol=1e-2), x, 0.1, range(2))
        assert found.log_weights.isfinite().all() and not found.log_weights.requires_grad
    assert torch.equal(before, network.weight) and network.weight.grad is None


def test_arguments():
    path = ProbabilityFlow(MIXTURE.model(CLD(kappa=0.0)))
    z = torch.zeros(1, 2, 2, dtype=torch.float64)
    for refused, message in [
        (lambda: path.carry(z, 0.0, 1.0), r"between times in \(0, 1\]"),
        (lambda: path.carry(z[:, :1], 0.1, 1.0), r"are \(B, 2, \*data\): got \(1, 1, 2\)"),
        (lambda: bound(path, z[:, 0], 0.1, [0], draws=0), "draws must be at least 1"),
        (lambda: bound(path, z[:, 0], 0.1, [0], start="here"), "'perturbed' or 'data'"),  # pyright: ignore[reportArgumentType]
        (lambda: bound(path, z[:, 0], 0.1, [0, 1]), "one generator a sample"),
        (lambda: bound(path, z[:, 0], 0.1, [0], start="data"), "singular"),
        (lambda: Hutchinson(0), "probes must be at least 1"),
        (lambda: Hutchinson(1, "cauchy"), "'rademacher' or 'gaussian'"),  # pyright: ignore[reportArgumentType]
        (lambda: ProbabilityFlow(MIXTURE.model(CLD()), rtol=-1.0), "rtol must be a positive, finite number: got -1"),
    ]:
        with pytest.raises(laws.REFUSALS, match=message):
            refused()
