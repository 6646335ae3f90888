"""What every forward process promises: its SDE, its kernels, its target and its prior hold against one another."""

import copy
import pickle

import pytest
import torch

from contracts.every_process import EVERY, LINEAR, WarmingLangevin
from psld import processes, recipe, schedules
from psld.kernels import Kernel
from psld.processes.collocation import time_dependent_kernel

every = pytest.mark.parametrize("process", EVERY, ids=repr)
linear = pytest.mark.parametrize("process", LINEAR, ids=repr)
F64 = torch.float64


def draws(process, n: int, seed: int = 0, shape: tuple[int, ...] = (2,)):
    return torch.randn(n, process.k, *shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


@every
def test_spec_says_all(process):
    """An equal object from repr and from the recorded arguments; copies keep it."""
    names = {name: getattr(module, name) for module in (processes, schedules, recipe) for name in module.__all__}
    names |= {type(process).__name__: type(process)}
    assert eval(repr(process), names) == process
    for other in (copy.deepcopy(process), pickle.loads(pickle.dumps(process))):
        assert other == process and hash(other) == hash(process)
    assert sum(process == other for other in EVERY) == 1


@every
def test_the_sde_moves_the_law_of_z_given_x0(process):
    """d/dt E[h(z)] = E[ f·∇h + ½ GGᵀ:∇²h ] for h = z_i and z_i z_j, both sides by the same many draws.

    The left side is a central difference of exact draws with common noise, the right side the generator of the SDE.
    """
    t, step, n, k = 0.4 * process.T, 1e-4 * process.T, 40_000, process.k
    eps = draws(process, n)
    x0 = torch.full((n, 2), 0.7, dtype=F64)
    ahead, behind = process.perturb(x0, t + step, eps)[..., 0], process.perturb(x0, t - step, eps)[..., 0]
    z = process.perturb(x0, t, eps)
    drift, factor = process.drift(z, t)[..., 0], process.diffusion_factor(z, t).expand(n, k, k, 2)[..., 0]
    z = z[..., 0]
    noise = factor @ factor.mT
    moment = (ahead[:, :, None] * ahead[:, None] - behind[:, :, None] * behind[:, None]) / (2 * step)
    generator = z[:, :, None] * drift[:, None] + drift[:, :, None] * z[:, None] + noise
    for error in ((ahead - behind) / (2 * step) - drift, moment - generator):
        allowed = 6.0 * error.std(0) / n**0.5 + 1e-5 * generator.abs().amax()
        assert (error.mean(0).abs() < allowed).all()


@every
def test_the_target_is_the_score_of_z_given_x0(process):
    """E[score] = 0 and E[score_i z_j] = −δ_ij, which integration by parts says of the score of any smooth density."""
    n, t = 200_000, 0.4 * process.T
    eps, x0 = draws(process, n), torch.full((n, 2), 0.7, dtype=F64)
    z = process.perturb(x0, t, eps)
    score, z = process.conditional_score(z, x0, t)[..., 0], z[..., 0]
    length = score.square().mean(0).sqrt()
    assert (score.mean(0) / length).abs().max() < 5 / n**0.5
    product = score.mT @ z / n
    spread = (length[:, None] * z.square().mean(0).sqrt()).clamp(min=1.0)
    assert ((product + torch.eye(process.k, dtype=F64)) / spread).abs().max() < 10 / n**0.5


@every
def test_the_prior_is_its_density(process):
    """E[exp(log q − log p)] = 1 over draws of p, with q the prior of slightly shrunk states: a change of variables."""
    n, shrink = 200_000, 0.9
    z = process.prior_sample(draws(process, n, shape=(1,)))
    log_ratio = process.prior_log_prob(z / shrink) - process.k * torch.log(torch.tensor(shrink, dtype=F64))
    weights = (log_ratio - process.prior_log_prob(z)).exp()
    assert float(weights.mean()) == pytest.approx(1.0, abs=6 * float(weights.std()) / n**0.5)


@every
def test_times_outside_the_horizon_are_refused(process):
    for t in (-1e-3, 1.01 * process.T):
        with pytest.raises(ValueError, match=r"times must lie in \[0, "):
            process.times(t)


@linear
def test_kernels_solve_the_moment_equations(process):
    """Φ' = AΦ and Σ' = AΣ + ΣAᵀ + 2D, by central differences of the kernels themselves."""
    t, s = torch.tensor([0.05, 0.3, 0.9], dtype=F64) * process.T, 0.02 * process.T
    step = 1e-5 * process.T
    ahead, behind, now = (process.transition(s, u) for u in (t + step, t - step, t))
    a, d = process.drift_rate(t), process.diffusion_rate(t)
    for slope, expected in (
        ((ahead.mean_map - behind.mean_map) / (2 * step), a @ now.mean_map),
        ((ahead.covariance - behind.covariance) / (2 * step), a @ now.covariance + now.covariance @ a.mT + 2 * d),
    ):
        torch.testing.assert_close(slope, expected, rtol=1e-6, atol=1e-6 * float(expected.abs().max()))


@linear
def test_kernels_compose(process):
    """Chapman–Kolmogorov, to 1e-11."""
    r, s, t = (share * process.T for share in (0.1, 0.35, 0.8))
    first, second, whole = process.transition(r, s), process.transition(s, t), process.transition(r, t)
    joined = second.mean_map @ first.covariance @ second.mean_map.mT + second.covariance
    torch.testing.assert_close(second.mean_map @ first.mean_map, whole.mean_map, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(joined, whole.covariance, rtol=1e-11, atol=1e-13)


@linear
def test_increments_are_integrals_of_the_rates(process):
    s, t = 0.1 * process.T, 0.9 * process.T
    u = torch.linspace(s, t, 20_001, dtype=F64)
    for rate, increment in (
        (process.drift_rate, process.drift_increment),
        (process.diffusion_rate, process.diffusion_increment),
    ):
        expected = torch.trapezoid(rate(u), u, dim=0)
        torch.testing.assert_close(increment(s, t), expected, rtol=1e-6, atol=1e-9)


@linear
def test_numerical_kernels_equal_the_closed_ones(process):
    """The kernel that a subclass gets for free against the one that this process has in closed form."""
    s, t = (torch.tensor(times, dtype=F64) * process.T for times in ([1e-4, 0.1, 0.5], [0.02, 0.3, 0.9]))
    found = time_dependent_kernel(process.drift_rate, process.diffusion_rate, s, t)
    known: Kernel = process.transition(s, t)
    torch.testing.assert_close(found.mean_map, known.mean_map, rtol=1e-11, atol=1e-13)
    torch.testing.assert_close(found.covariance, known.covariance, rtol=1e-10, atol=1e-13)


@linear
def test_reports_say_whether_one_law_is_stationary(process):
    """A process reports itself stationary exactly when its rates keep one covariance: A S + S Aᵀ + 2D = 0 at all t."""
    report, s = process.check(), process.prior_covariance
    t = torch.linspace(0.1, 1.0, 7, dtype=F64) * process.T
    a, d = process.drift_rate(t), process.diffusion_rate(t)
    balance = (a @ s + s @ a.mT + 2 * d).abs().amax() / d.abs().amax()
    assert report.stationary == bool(balance < 1e-9)
    assert report.stationary or report.reasons


def test_a_process_whose_noise_warms_up_says_so():
    report = WarmingLangevin().check()
    assert not report.stationary and "H depends on time" in report.reasons[0]
