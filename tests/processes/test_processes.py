import math
import re
from pathlib import Path

import mpmath
import numpy as np
import pytest
import torch
from scipy.linalg import expm, solve_continuous_lyapunov

from psld.kernels import mix
from psld.processes import CLD, EDM, PSLD, VESDE, VPSDE, HigherOrderLangevin, Process, SubVPSDE
from psld.recipe import LinearRecipe
from psld.schedules import Constant, Cosine, Linear

RECIPE = LinearRecipe(  # nothing is diagonal
    [[0.6, 0.1, 0.0], [0.1, 0.4, 0.2], [0.0, 0.2, 0.5]],
    [[0.0, -1.0, 0.3], [1.0, 0.0, -0.7], [-0.3, 0.7, 0.0]],
    [[1.0, 0.2, 0.1], [0.2, 0.5, -0.1], [0.1, -0.1, 2.0]],
)
FULL = Process(RECIPE, Linear(0.5, 4.0), auxiliary_covariance=[[0.3, 0.1], [0.1, 0.2]], T=1.5)
WITH_RECIPE = [VPSDE(), VPSDE(beta=Cosine()), CLD(), PSLD(0.25), HigherOrderLangevin(3), HigherOrderLangevin(4), FULL]
ALL = [*WITH_RECIPE, VESDE(), SubVPSDE()]
NAMES = ["VP", "VP-cosine", "CLD", "PSLD", "order-3", "order-4", "full", "VE", "sub-VP"]


def each(processes):
    return pytest.mark.parametrize("process", processes, ids=NAMES[: len(processes)])


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# -- the official implementation -----------------------------------------------------------------------------------


@pytest.fixture(params=["0", "1"])
def official(request):
    """Arrays of the official code, (x, m) in the channels, as k = 2 and C = 2."""
    with np.load(Path(__file__).parents[1] / "reference" / "psld_operators.npz") as table:
        found = {key[2:]: torch.from_numpy(table[key]) for key in table if key.startswith(request.param)}
    return {key: v.unflatten(1, (2, 2)) if v.ndim == 4 and v.shape[1] == 4 else v for key, v in found.items()}


def test_official_operators(official):
    gamma, nu, kappa, beta = (float(official[key]) for key in ("gamma", "nu", "kappa", "beta"))
    process = PSLD(gamma, nu, kappa, beta)
    kernel = process.marginal(official["t"], jitter=1e-9)
    start = process.lift(official["x0"])
    torch.testing.assert_close(kernel.mean(start), official["mu_t"], rtol=0, atol=1e-14)
    torch.testing.assert_close(kernel.sample(start, official["eps"]), official["z_t"], rtol=0, atol=2e-14)
    drift = mix(process.drift_rate(official["t"]), official["z_t"])
    torch.testing.assert_close(drift, official["drift"], rtol=1e-14, atol=1e-14)
    amplitude = (2.0 * process.diffusion_rate(official["t"])).diagonal(dim1=-2, dim2=-1).sqrt()
    torch.testing.assert_close(amplitude[..., None, None, None].expand(3, 2, 2, 4, 4), official["diffusion"])
    # the official code keeps L⁻ᵀ in float32: rounded there, ours gives its score to float64; exactly, to 1e-6
    rounded = -mix(kernel.whitener.mT.float().double(), official["eps"])
    torch.testing.assert_close(rounded, official["score"], rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(kernel.score(official["eps"]), official["score"], rtol=1e-6, atol=2e-6)


# -- kernels against scipy -----------------------------------------------------------------------------------------


def scipy_moments(process: Process, t: float, matching: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Φ and Σ from scipy's expm and Lyapunov solver, forming S − ΦSΦᵀ."""
    rate = process.schedule
    b = float(rate.increment(torch.zeros(1, dtype=torch.float64), torch.tensor([t], dtype=torch.float64)))
    a, d = process.drift_matrix.numpy(), process.recipe.diffusion.numpy()
    phi, s = expm(a * b), solve_continuous_lyapunov(a, -2.0 * d)
    covariance = s - phi @ s @ phi.T
    if matching == "hsm":
        covariance = covariance + phi @ process.initial_covariance.numpy() @ phi.T
    return torch.from_numpy(phi), torch.from_numpy(covariance)


@each(WITH_RECIPE)
@pytest.mark.parametrize("matching", ["hsm", "dsm"])
@pytest.mark.parametrize("t", [0.05, 0.3, 1.0])
def test_perturb_has_the_mean_and_covariance_of_the_kernel(process, matching, t):
    """perturb is affine: unit x₀, unit auxiliary and unit ε read out its matrices, no sampling."""
    k = process.k
    phi, covariance = scipy_moments(process, t, matching)
    x0, aux, eps = (
        torch.zeros(2 * k, 1).double(),
        torch.zeros(2 * k, k - 1, 1).double(),
        torch.zeros(2 * k, k, 1).double(),
    )
    x0[0], aux[range(1, k), range(k - 1)], eps[range(k, 2 * k), range(k)] = 1.0, 1.0, 1.0
    auxiliary = aux if matching == "dsm" else None
    z = process.perturb(x0, t, eps, matching, auxiliary)[..., 0]
    columns = k if matching == "dsm" else 1
    torch.testing.assert_close(z[:columns].T, phi[:, :columns], rtol=1e-11, atol=1e-13)
    spread = z[k:].T
    torch.testing.assert_close(spread @ spread.T, covariance, rtol=1e-10, atol=1e-12)
    if matching == "hsm" and k > 1:  # z₀'s auxiliary noise through Φ, on top of dsm
        start = process.initial_auxiliary(torch.eye(k - 1).double()[..., None])[..., 0].T
        torch.testing.assert_close(start @ start.T, process.initial_covariance[1:, 1:])


@each(ALL)
def test_jitter_is_added_to_the_diagonal(process):
    plain, jittered = process.marginal(0.2), process.marginal(0.2, jitter=1e-3)
    torch.testing.assert_close(jittered.covariance - plain.covariance, 1e-3 * torch.eye(process.k).double())
    assert torch.equal(jittered.mean_map, plain.mean_map)


@each(ALL)
def test_transitions_compose_to_the_marginal(process):
    """From the marginal at s, one more transition s → t gives the marginal at t."""
    at_s, at_t, move = process.marginal(0.2), process.marginal(0.7), process.transition(0.2, 0.7)
    torch.testing.assert_close(move.mean_map @ at_s.mean_map, at_t.mean_map, rtol=1e-11, atol=1e-13)
    combined = move.mean_map @ at_s.covariance @ move.mean_map.mT + move.covariance
    torch.testing.assert_close(combined, at_t.covariance, rtol=1e-11, atol=1e-13)


@each(ALL)
def test_kernel_solves_the_moment_equations(process):
    """dΦ/dt = βA Φ and dΣ/dt = βA Σ + Σ βAᵀ + 2βD, by a fourth-order central difference."""
    t, h = 0.4, 1e-3
    kernels = [process.marginal(t + i * h) for i in (-2, -1, 1, 2)]

    def slope(entries):
        return (entries[0] - 8 * entries[1] + 8 * entries[2] - entries[3]) / (12 * h)

    here, a, d = process.marginal(t), process.drift_rate(t), process.diffusion_rate(t)
    torch.testing.assert_close(slope([q.mean_map for q in kernels]), a @ here.mean_map, rtol=1e-7, atol=1e-8)
    growth = a @ here.covariance + here.covariance @ a.mT + 2 * d
    torch.testing.assert_close(slope([q.covariance for q in kernels]), growth, rtol=1e-7, atol=1e-7)


# -- closed forms --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [1e-5, 0.01, 0.5, 1.0])
def test_vp_ve_and_subvp_in_closed_form(t):
    b = 0.1 * t + 0.5 * 19.9 * t**2
    ratio = math.log(50.0 / 0.01)
    closed = [
        (VPSDE(), math.exp(-b / 2), -math.expm1(-b)),
        (VESDE(), 1.0, 0.01**2 * math.expm1(2 * t * ratio)),
        (SubVPSDE(), math.exp(-b / 2), math.expm1(-b) ** 2),
    ]
    for process, signal, variance in closed:
        kernel = process.marginal(t)
        assert kernel.mean_map.item() == pytest.approx(signal, rel=1e-13)
        assert kernel.covariance.item() == pytest.approx(variance, rel=1e-13)
        assert process.signal(t).item() == pytest.approx(signal, rel=1e-13)
        assert float(process.noise_scale(t)) == pytest.approx(math.sqrt(variance) / signal, rel=1e-13)


def test_ve_ends_at_sigma_max():
    assert VESDE(0.01, 50.0).prior_covariance.item() == pytest.approx(50.0**2 - 0.01**2, rel=1e-13)


def test_psld_is_its_equation():
    """Pandey & Mandt, eq. 11: dx = ½β(M⁻¹m − Γx) dt + √(βΓ) dw, dm = ½β(−x − νm) dt + √(Mνβ) dw."""
    process = PSLD(gamma=0.3, nu=2.0, mass=0.7, beta=5.0)
    want = 2.5 * torch.tensor([[-0.3, 1 / 0.7], [-1.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(process.drift_rate(0.4), want)
    torch.testing.assert_close((2 * process.diffusion_rate(0.4)).diagonal(), torch.tensor([1.5, 7.0]).double())
    assert PSLD(0.01).nu == 4.01 and PSLD(0.01).mass == 0.25 and PSLD(0.5, nu=2.5).mass == 1.0


def test_psld_without_position_noise_is_cld():
    one, two = PSLD(gamma=0.0, nu=3.0, kappa=0.1), CLD(nu=3.0, kappa=0.1)
    for t in (1e-4, 0.3, 1.0):
        assert torch.equal(one.marginal(t).mean_map, two.marginal(t).mean_map)
        assert torch.equal(one.marginal(t).covariance, two.marginal(t).covariance)
    assert CLD().noisy_rows == 1 and PSLD().noisy_rows == 2 and HigherOrderLangevin(4).noisy_rows == 1


def test_order_three_has_the_published_couplings():
    recipe = HigherOrderLangevin(3).recipe
    assert recipe is not None
    root = math.sqrt(2.0)
    curl = torch.tensor([[0, -1, 0], [1, 0, -2 * root], [0, 2 * root, 0]], dtype=torch.float64)
    torch.testing.assert_close(recipe.curl, curl, rtol=1e-15, atol=0)
    torch.testing.assert_close(recipe.diffusion, torch.diag(torch.tensor([0, 0, 3 * math.sqrt(3)]).double()))


@pytest.mark.parametrize("order", [2, 3, 4, 5])
def test_all_rates_of_order_n_coincide(order):
    """A + √(2n − 3) is nilpotent: its n-th power is zero and the one before is not (no eigenvalues computed)."""
    shifted = HigherOrderLangevin(order).drift_matrix + math.sqrt(2 * order - 3) * torch.eye(order).double()
    size = float(shifted.abs().max()) ** order
    assert float(torch.linalg.matrix_power(shifted, order).abs().max()) < 1e-13 * size
    assert float(torch.linalg.matrix_power(shifted, order - 1).abs().max()) > 1e-3


def test_order_two_is_cld_with_the_momentum_in_units_of_its_deviation():
    units = torch.tensor([1.0, 0.5], dtype=torch.float64)  # √S of CLD, M = ¼
    for t in (1e-3, 0.2, 1.0):
        cld, second = CLD(beta=2.0).marginal(t), HigherOrderLangevin(2, beta=2.0).marginal(t)
        torch.testing.assert_close(cld.mean_map / units[:, None] * units, second.mean_map, rtol=1e-13, atol=0)
        covariance = cld.covariance / (units[:, None] * units)
        torch.testing.assert_close(covariance, second.covariance, rtol=1e-13, atol=0)


# -- data, prior, statistic ----------------------------------------------------------------------------------------


@each(ALL)
def test_prior_is_a_gaussian_of_torch_distributions(process):
    z = 2.0 * randn(3, process.k, 2, 2)
    law = torch.distributions.MultivariateNormal(torch.zeros(process.k).double(), process.prior_covariance)
    want = law.log_prob(z.movedim(1, -1)).flatten(1).sum(1)
    torch.testing.assert_close(process.prior_log_prob(z), want, rtol=1e-12, atol=1e-12)
    root = process.prior_sample(torch.eye(process.k).double()[..., None])[..., 0].T
    torch.testing.assert_close(root @ root.T, process.prior_covariance, rtol=1e-14, atol=1e-14)


@each(WITH_RECIPE)
def test_prior_is_where_the_process_goes(process):
    long = Process(process.recipe, 1.0, T=200.0)
    torch.testing.assert_close(long.marginal(200.0).covariance, process.prior_covariance, rtol=1e-12, atol=1e-12)


def test_lift_and_project():
    x0, aux = randn(2, 3, 4), randn(2, 2, 3, 4, seed=1)
    process = HigherOrderLangevin(3)
    assert torch.equal(process.project(process.lift(x0)), x0) and not process.lift(x0)[:, 1:].any()
    assert torch.equal(process.lift(x0, aux)[:, 1:], aux)


@each(ALL)
@pytest.mark.parametrize("t", [0.01, 0.4, 1.0])
def test_statistic_is_unbiased_and_its_noise_is_sigma(process, t):
    """From unit inputs: weights · Φ₀ = 1 and weights Σ weightsᵀ = σ², with σ² = 1 / (Φ₀ᵀ Σ⁻¹ Φ₀) by numpy."""
    k = process.k
    kernel = process.marginal(t)
    phi, covariance = kernel.mean_map[:, 0].numpy(), kernel.covariance.numpy()
    signal, sigma = process.statistic(kernel.mean(process.lift(torch.ones(1, 1).double())), t)
    assert signal.item() == pytest.approx(1.0, rel=1e-10)
    weights = process.statistic(torch.eye(k).double()[..., None], t)[0][:, 0].numpy()
    assert weights @ covariance @ weights == pytest.approx(float(sigma) ** 2, rel=1e-9)
    assert float(sigma) ** 2 == pytest.approx(1.0 / (phi @ np.linalg.solve(covariance, phi)), rel=1e-8)
    assert float(process.noise_scale(t)) == float(sigma)


@each(ALL)
@pytest.mark.parametrize("t", [0.01, 0.4, 1.0])
def test_what_the_statistic_leaves_out_is_independent_of_x0(process, t):
    """from_statistic(y, ε): its statistic is y; its ancillary noise has zero mean, and adds up with y's to Σ."""
    k = process.k
    y, eps = randn(2, 3), randn(2, k, 3, seed=1)
    z = process.from_statistic(y, t, eps)
    torch.testing.assert_close(process.statistic(z, t)[0], y, rtol=1e-9, atol=1e-9)
    zero = torch.zeros(k, 1).double()
    ancillary = process.from_statistic(zero, t, torch.eye(k).double()[..., None])[..., 0].T
    signal = process.signal(t)
    total = ancillary @ ancillary.T + float(process.noise_scale(t)) ** 2 * torch.outer(signal, signal)
    torch.testing.assert_close(total, process.marginal(t).covariance, rtol=1e-9, atol=1e-9)


@each(ALL)
def test_the_score_depends_on_the_posterior_of_y(process):
    """For x₀ ~ N(0.3, 0.7²), E[x₀ | z] by conditioning on all of z is E[x₀ | y] by the scalar formula."""
    t, variance, mean = 0.3, 0.7**2, 0.3
    kernel, z = process.marginal(t), randn(5, process.k, 1)
    signal = kernel.mean_map[:, 0]
    full = kernel.covariance + variance * torch.outer(signal, signal)
    by_z = mean + variance * torch.linalg.solve(full, (z[..., 0] - signal * mean).T).T @ signal
    y, sigma = process.statistic(z, t)
    by_y = mean + variance / (variance + sigma**2) * (y[:, 0] - mean)
    torch.testing.assert_close(by_z, by_y, rtol=1e-9, atol=1e-9)


@each(ALL)
def test_noise_scale_grows(process):
    start = -3 if process.k == 4 else -5  # below, four variables are one to float64; see the test of its precision
    sigma = process.noise_scale(torch.logspace(start, 0, 60, dtype=torch.float64))
    assert (sigma.diff() > 0).all()


@pytest.mark.parametrize(
    ("order", "t", "rel"), [(2, 1e-5, 1e-12), (3, 1e-5, 1e-4), (3, 1e-3, 1e-11), (4, 1e-3, 1e-7), (4, 1e-2, 1e-11)]
)
def test_precision_of_the_noise_scale_near_the_data(order, t, rel):
    """Σ keeps every digit, Σ⁻¹ cannot: its condition number grows like t^(2 − 2n). Against 60 digits (Van Loan)."""
    process = HigherOrderLangevin(order)
    with mpmath.workdps(60):
        a, d = mpmath.matrix(process.drift_matrix.tolist()), mpmath.matrix(process.recipe.diffusion.tolist())
        block = mpmath.zeros(2 * order)
        for i in range(order):
            for j in range(order):
                block[i, j], block[i, order + j], block[order + i, order + j] = -a[i, j], 2 * d[i, j], a[j, i]
        power = mpmath.expm(block * 8 * mpmath.mpf(t))
        phi = power[order:, order:].T
        start = mpmath.matrix(process.initial_covariance.tolist())
        covariance = phi * power[:order, order:] + phi * start * phi.T
        want = float(1 / mpmath.sqrt((phi[:, 0].T * covariance**-1 * phi[:, 0])[0]))
    assert float(process.noise_scale(t)) == pytest.approx(want, rel=rel)


@each(ALL)
def test_a_batch_of_times_is_the_times_one_by_one(process):
    t = torch.tensor([1e-4, 0.1, 0.9], dtype=torch.float64)
    x0, eps = randn(3, 2, 2), randn(3, process.k, 2, 2, seed=1)
    together = process.perturb(x0, t, eps)
    alone = torch.cat([process.perturb(x0[i : i + 1], float(t[i]), eps[i : i + 1]) for i in range(3)])
    assert torch.equal(together, alone)
    assert process.perturb(x0.float(), t, eps.float()).dtype == torch.float32


# -- refusals ------------------------------------------------------------------------------------------------------


@each(ALL)
@pytest.mark.parametrize("t", [-1e-9, 1.6, math.nan])
def test_times_outside_the_horizon_are_refused(process, t):
    message = re.escape(f"times must lie in [0, {process.T:g}]: got ")
    for call in (process.marginal, process.drift_rate, process.noise_scale, lambda u: process.transition(u, u)):
        with pytest.raises(ValueError, match=message):
            call(torch.tensor([0.5, t]))


def test_time_runs_forward():
    with pytest.raises(ValueError, match=r"every s must be ≤ t"):
        PSLD().transition(torch.tensor([0.1, 0.6]), 0.5)
    assert torch.equal(PSLD().transition(0.5, 0.5).mean_map, torch.eye(2).double())


@pytest.mark.usefixtures("unchecked")
def test_conditioning_is_hsm_or_dsm():
    with pytest.raises(ValueError, match="matching must be 'hsm' or 'dsm': got 'HSM'"):
        PSLD().marginal(0.5, "HSM")  # pyright: ignore[reportArgumentType]


def test_auxiliary_variables_are_given_for_dsm_and_only_there():
    x0, eps, aux = randn(2, 3), randn(2, 2, 3), randn(2, 1, 3)
    with pytest.raises(ValueError, match="'dsm' conditions on the auxiliary variables too: give auxiliary"):
        CLD().perturb(x0, 0.5, eps, "dsm")
    with pytest.raises(ValueError, match="'hsm' integrates the auxiliary variables out: leave auxiliary out"):
        CLD().perturb(x0, 0.5, eps, "hsm", aux)
    assert VPSDE().perturb(x0, 0.5, eps[:, :1], "dsm").shape == (2, 1, 3)  # nothing to give


@pytest.mark.parametrize("t", [0.0, torch.tensor([0.5, 0.0])])
def test_no_statistic_without_noise(t):
    with pytest.raises(ValueError, match="no score: use a larger t"):
        PSLD().noise_scale(t)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: PSLD(gamma=-0.1), r"gamma must be a finite, non-negative number: got -0\.1"),
        (lambda: PSLD(nu=0.0), r"nu must be a positive, finite number: got 0\.0"),
        (lambda: PSLD(kappa=-1.0), r"kappa must be a finite, non-negative number: got -1\.0"),
        (lambda: PSLD(gamma=2.0, nu=2.0), r"no mass is critical when gamma = nu = 2\.0"),
        (lambda: PSLD(mass=0.0), r"mass must be a positive, finite number: got 0\.0"),
        (lambda: PSLD(gamma=math.nan), r"gamma must be a number: got nan"),
        (lambda: PSLD(beta=-8.0), r"beta must be a positive, finite number: got -8\.0"),
        (lambda: HigherOrderLangevin(1), r"order must be at least 2: got 1\."),
        (lambda: HigherOrderLangevin(3, kappa=-0.1), r"kappa must be a finite, non-negative number: got -0\.1"),
        (lambda: Process(RECIPE, 1.0, T=0.0), r"T must be a positive, finite number: got 0\.0"),
        (lambda: Process(RECIPE, 1.0, T=math.inf), r"T must be a positive, finite number: got inf"),
        (lambda: Process(RECIPE, 1.0, [[1.0]]), r"auxiliary_covariance must be 2×2 .* got shape \(1, 1\)"),
        (lambda: Process(RECIPE, 1.0, -0.5), r"symmetric positive semi-definite: got \[\[-0\.5"),
        (lambda: Process(RECIPE, 1.0, [[1.0, 0.1], [0.0, 1.0]]), r"symmetric positive semi-definite"),
        (lambda: Process(RECIPE, 1.0, [[1.0, 0.0], [0.0, math.nan]]), r"symmetric positive semi-definite: .*nan"),
    ],
)
def test_construction_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_number_is_a_constant_schedule_and_a_multiple_of_the_identity():
    process = Process(RECIPE, 3, 0.5)
    assert isinstance(process.schedule, Constant) and process.schedule.beta == 3.0
    assert torch.equal(process.initial_covariance, torch.diag(torch.tensor([0.0, 0.5, 0.5])).double())


@pytest.mark.parametrize(
    ("process", "text"),
    [
        (PSLD(), "PSLD(gamma=0.01)"),
        (PSLD(0.01, nu=4.01, beta=Constant(8.0)), "PSLD(gamma=0.01, nu=4.01, beta=Constant(beta=8))"),
        (PSLD(0.25, nu=5.0, kappa=0.1, beta=4.0, mass=0.5), "PSLD(gamma=0.25, nu=5, kappa=0.1, beta=4, mass=0.5)"),
        (PSLD(0.123456789, beta=Linear()), "PSLD(gamma=0.123456789, beta=Linear(beta_min=0.1, beta_max=20))"),
        (CLD(), "CLD()"),
        (CLD(nu=5.0, kappa=0.2), "CLD(nu=5, kappa=0.2)"),
        (VPSDE(), "VPSDE()"),
        (VPSDE(beta_max=10.0), "VPSDE(beta_max=10)"),
        (VPSDE(beta=2.0), "VPSDE(beta=2)"),
        (VPSDE(beta=Cosine()), "VPSDE(beta=Cosine(total=10, offset=0.008))"),
        (SubVPSDE(beta_min=0.2), "SubVPSDE(beta_min=0.2)"),
        (VESDE(), "VESDE()"),
        (VESDE(sigma_max=20.0), "VESDE(sigma_max=20)"),
        (HigherOrderLangevin(), "HigherOrderLangevin(order=3)"),
        (HigherOrderLangevin(4, beta=2.0, kappa=0.1), "HigherOrderLangevin(order=4, beta=2, kappa=0.1)"),
    ],
)
def test_repr_is_the_call_with_every_argument_that_is_not_the_default(process, text):
    assert repr(process) == text


def test_marginals_are_the_same_where_the_laws_are():
    second = HigherOrderLangevin(2, beta=2.0)
    assert PSLD(gamma=0.0).same_marginals(CLD()) and VPSDE().same_marginals(VPSDE(beta=Linear()))
    assert second.recipe is not None and second.same_marginals(Process(second.recipe, 2.0, 0.04))
    others = [PSLD(), CLD(nu=4.1), CLD(kappa=0.05), CLD(beta=7.9), CLD(mass=0.26), HigherOrderLangevin(), VPSDE()]
    assert not any(CLD().same_marginals(other) for other in others)
    assert not VPSDE().same_marginals(VPSDE(beta=Cosine())) and not EDM(80.0).same_marginals(EDM(79.0))
