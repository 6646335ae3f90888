"""Multistep samplers against diffusers, against quadrature by scipy, and against one another.

diffusers' schedules are replaced by ours in float64, and its updates are called directly where its `step` would round
states to float32. Its last step is not compared: it ends at the last time here, without a jump to zero noise.
"""

from functools import partial

import numpy as np
import pytest
import torch
from scipy.integrate import quad, solve_ivp

import by_hand
from psld import exact
from psld.model import ScoreModel
from psld.noise import SeededNoise
from psld.processes import CLD, EDM, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.samplers import (
    GDDIM,
    OBA,
    ROBA,
    RVV,
    Ancestral,
    Conjugate,
    ConjugateOBA,
    ConjugateVerlet,
    DPMSolverPP,
    Exponential,
    Heun,
    Langevin,
    PredictorCorrector,
    Projected,
    SymplecticEuler,
    VelocityVerlet,
)
from psld.samplers.exponential import Predicted
from psld.samplers.flows import data_weights, noise_flow, noise_weights
from psld.samplers.grids import Grid
from psld.samplers.sampler import Plan, row

pytestmark = pytest.mark.filterwarnings("ignore:__array:DeprecationWarning")  # diffusers and numpy 2

VP = VPSDE()
TIMES = torch.tensor([1.0, 0.83, 0.71, 0.5, 0.42, 0.2, 0.13, 0.05, 0.02], dtype=torch.float64)
GRID = Grid(TIMES, "none")
STEPS = GRID.steps
SEEDS = range(4)
DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4, 0.3], [-0.7, 0.1, 0.0], [0.1, 1.2, -0.9]], dtype=torch.float64),
    std=torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
)
EVERY = [VP, CLD(), PSLD(0.01), PSLD(0.25), HigherOrderLangevin(3), VESDE(), SubVPSDE()]


def close(a, b, atol=1e-10):
    torch.testing.assert_close(a, torch.as_tensor(b), rtol=0, atol=atol)


def scheduler(name, **config):
    """One of diffusers', on our times."""
    made = getattr(pytest.importorskip("diffusers"), name)(prediction_type="sample", lower_order_final=False, **config)
    made.set_timesteps(STEPS)
    made.sigmas, made._step_index = VP.noise_scale(TIMES), 0
    return made


def states(sampler, tables=None):
    """Every state of a run from one seed each."""
    seen = []
    plan = sampler.prepare(VP, GRID)
    plan = plan if tables is None else Plan(GRID, tables(plan.tables))
    sampler.sample(DATA.model(VP), grid=plan, seeds=SEEDS, shape=(3,), watch=lambda t, z: seen.append(z))
    return torch.stack(seen)


def their_states(step):
    """As `states`, with step(i, z, x̂₀, fresh noise)."""
    noise = SeededNoise(SEEDS, (1, 3))
    z, model = noise(), DATA.model(VP)
    seen = [z]
    for i, t in enumerate(TIMES[:-1]):
        z = step(i, z, model(z, t).x0[:, None], noise)
        seen.append(z)
    return torch.stack(seen)


def dpm_solver(made, draws, i, z, x0, noise, outputs):
    outputs.append(x0)
    made._step_index = i
    drawn = noise() if draws else None
    if i == 0:
        return made.dpm_solver_first_order_update(x0, sample=z, noise=drawn)
    return made.multistep_dpm_solver_second_order_update(outputs, sample=z, noise=drawn)


@pytest.mark.parametrize("eta", [0, 1])
@pytest.mark.parametrize("solver_type", ["heun", "midpoint"])
def test_dpm_solver_pp(solver_type, eta):
    """DPM-Solver++(2M) and its SDE form; the exact polynomial is what diffusers calls "heun"."""
    algorithm = "sde-dpmsolver++" if eta else "dpmsolver++"
    made = scheduler("DPMSolverMultistepScheduler", algorithm_type=algorithm, solver_order=2, solver_type=solver_type)
    ours = Exponential(2, eta) if solver_type == "heun" else DPMSolverPP(eta)
    close(states(ours), their_states(partial(dpm_solver, made, eta, outputs=[])))


def without_restart(tables):
    """diffusers does not mend its first step."""
    return tables._replace(restart=torch.zeros_like(tables.restart))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_gddim_is_deis(order):
    """DEIS with polynomials in log ρ. Its order 3 begins with orders 1 and 2, as ours does with `restart` at zero."""
    made = scheduler("DEISMultistepScheduler", solver_order=order)
    theirs = their_states(lambda i, z, x0, noise: made.step(x0, made.timesteps[i], z).prev_sample)
    ours = states(GDDIM(order), without_restart)
    close(ours, theirs, atol=1e-9)
    assert order < 3 or (states(GDDIM(3)) - ours)[3:].abs().amax() > 1e-4  # `restart` does something


# -- single steps, from three x̂₀ that no model has to agree with --------------------------------------------------


def drawn():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 4, 1, 3, dtype=torch.float64, generator=generator)


def integrated(i, z, polynomial):
    """z at TIMES[i + 1] from z at TIMES[i], by scipy: σ_s/σ_t z + σ_s ∫ e^λ x̂₀(λ) dλ, x̂₀ = Σ pⱼ (λ − λ_t)ʲ."""
    alpha = torch.exp(-0.5 * (0.1 * TIMES + 0.5 * 19.9 * TIMES**2))
    sigma = (1 - alpha**2).sqrt()
    clock = (alpha / sigma).log()
    start, stop = float(clock[i]), float(clock[i + 1])
    z = sigma[i + 1] / sigma[i] * z
    for power, coefficient in enumerate(polynomial):
        moment = quad(lambda c, p=power: np.exp(c) * (c - start) ** p, start, stop, epsabs=0, epsrel=1e-12)[0]
        z = z + sigma[i + 1] * moment * coefficient
    return z


def through(i, values, at):
    """Coefficients of the polynomial in λ − λ_i through values at the times with indices `at`."""
    clock = -VP.noise_scale(TIMES).log()
    powers = (clock[at] - clock[i])[:, None] ** torch.arange(len(at), dtype=torch.float64)
    return torch.einsum("pj,j...->p...", torch.linalg.inv(powers), torch.stack(values))


def step(sampler, i, z, x0, state):
    plan = sampler.prepare(VP, GRID)
    model = ScoreModel(lambda z, t: x0, VP, "x0")
    return sampler.step(z, state, row(plan.tables, i), model, TIMES[i], lambda: z)[0]


def history(*x0):
    return tuple(x[:, 0] for x in x0)


def test_third_order_dpm_solver_halves_the_second_difference():
    """Ours integrates the parabola through three x̂₀. diffusers' third-order update has its second *divided* difference,
    half the second derivative, where the formula asks for the derivative: it integrates m + D₁u + ½D₂u².
    """
    i, (z, m0, m1, m2) = 4, drawn()
    made = scheduler("DPMSolverMultistepScheduler", algorithm_type="dpmsolver++", solver_order=3)
    made._step_index = i
    theirs = made.multistep_dpm_solver_third_order_update([m2, m1, m0], sample=z)
    parabola = through(i, [m0, m1, m2], [i, i - 1, i - 2])
    ours = step(Exponential(3), i, z, m0, history(m1, m2))
    close(ours, integrated(i, z, parabola))
    halved = parabola * torch.tensor([1.0, 1.0, 0.5], dtype=torch.float64).reshape(3, 1, 1, 1)
    close(theirs, integrated(i, z, halved))
    assert (ours - theirs).abs().max() > 1e-2


@pytest.mark.parametrize("solver_type", ["bh1", "bh2"])
def test_exponential_3_is_unip_3(solver_type):
    """Where it solves the linear system, UniP integrates the same parabola, whatever B(h). Its orders 1 and 2 do not:
    order 2 has the coefficient ½ for the solution of that system (and is then DPM-Solver++ with "midpoint").
    """
    i, (z, m0, m1, m2) = 4, drawn()
    made = scheduler("UniPCMultistepScheduler", solver_order=3, solver_type=solver_type)
    made._step_index, made.model_outputs = i, [m2, m1, m0]
    theirs = made.multistep_uni_p_bh_update(m0, sample=z, order=3)
    close(step(Exponential(3), i, z, m0, history(m1, m2)), theirs)


@pytest.mark.parametrize("solver_type", ["bh1", "bh2"])
def test_corrector_is_unic_2(solver_type):
    """UniC-2 corrects; then DPM-Solver++'s line predicts, since diffusers' UniP-2 has ½ for its coefficient."""
    i, (z, m0, m1, fresh) = 4, drawn()
    made = scheduler("UniPCMultistepScheduler", solver_order=2, solver_type=solver_type)
    made._step_index, made.model_outputs = i, [m1, m0]
    corrected = made.multistep_uni_c_bh_update(fresh, last_sample=z, this_sample=z, order=2)
    line = scheduler("DPMSolverMultistepScheduler", algorithm_type="dpmsolver++", solver_order=2, solver_type="heun")
    line._step_index = i
    theirs = line.multistep_dpm_solver_second_order_update([m0, fresh], sample=corrected)
    close(step(PredictorCorrector(2), i, z, fresh, memory(i, z, m0, m1)), theirs)
    close(corrected, integrated(i - 1, z, through(i - 1, [fresh, m0, m1], [i, i - 1, i - 2])))


def test_corrector_of_order_one():
    """The line through both ends of the step; diffusers' UniC-1 has ½ for its coefficient and differs."""
    i, (z, m0, _, fresh) = 4, drawn()
    corrected = integrated(i - 1, z, through(i - 1, [fresh, m0], [i, i - 1]))
    close(step(PredictorCorrector(1), i, z, fresh, memory(i, z, m0)), integrated(i, corrected, [fresh]))
    made = scheduler("UniPCMultistepScheduler", solver_order=2)
    made._step_index, made.model_outputs = i, [m0, m0]
    assert (made.multistep_uni_c_bh_update(fresh, last_sample=z, this_sample=z, order=1) - corrected).abs().max() > 1e-2


def memory(i, z, *x0):
    """What a predictor–corrector remembers of the step before i, from z."""
    return Predicted(integrated(i - 1, z, [x0[0]]), history(*x0))


def test_first_step_of_order_3_is_mended():
    """When the second step begins, the first is as if it had been linear in λ between its two x̂₀."""
    z, m0, m1, _ = drawn()
    first = step(Exponential(3), 0, z, m0, history())
    ours = step(Exponential(3), 1, first, m1, history(m0))
    mended = integrated(0, z, through(0, [m0, m1], [0, 1]))
    close(ours, integrated(1, mended, through(1, [m1, m0], [1, 0])))


# -- one sampler is another -----------------------------------------------------------------------------------------


def whitened(process, t, s, matrix):
    return process.marginal(s).whitener @ matrix @ process.marginal(t).cholesky


@pytest.mark.parametrize("process", EVERY, ids=repr)
def test_ancestral_is_exponential_with_all_the_noise(process):
    """Entry by entry of the tables, in units of the noise at both ends: the posterior and the flow are found apart."""
    t, s = TIMES[:-1], TIMES[1:]
    ours, posterior = Exponential(1, 1.0).tables(process, t, s), Ancestral().tables(process, t, s)
    close(whitened(process, t, s, ours.flow), whitened(process, t, s, posterior.gain))
    to_noise = process.marginal(s).whitener
    close(to_noise @ ours.noise, to_noise @ posterior.noise, atol=1e-9)
    runs = [S.sample(DATA.model(process), None, GRID, SEEDS, shape=(3,)).z for S in (Exponential(1, 1.0), Ancestral())]
    scale = process.marginal(TIMES[-1]).covariance.diagonal().sqrt()[:, None]
    close(runs[0] / scale, runs[1] / scale, atol=1e-8 if process.k < 3 else 1e-6)


@pytest.mark.parametrize("process", EVERY, ids=repr)
def test_order_one_is_order_one(process):
    """x̂₀ constant or ε_R constant is the same."""
    runs = [S.sample(DATA.model(process), None, GRID, SEEDS, shape=(3,)).z for S in (Exponential(1), GDDIM(1))]
    close(runs[0], runs[1])


@pytest.mark.parametrize(
    "sampler",
    [
        *(Exponential(order) for order in (1, 2, 3)),
        Exponential(2, 0.5),
        DPMSolverPP(),
        DPMSolverPP(1.0),
        *(GDDIM(order) for order in (2, 3)),
        PredictorCorrector(1),
        PredictorCorrector(2),
        Heun(),
        Heun(churn=2.0),
        Langevin(Exponential(2)),
        Projected(Exponential(2)),
        Conjugate(0.3),
        SymplecticEuler(),
        VelocityVerlet(),
        RVV(),
        OBA(),
        ROBA(),
        ConjugateVerlet(0.1),
        ConjugateOBA(0.1),
    ],
    ids=repr,
)
def test_no_noise_in_position_is_cld(sampler):
    grid = Grid(torch.tensor([1.0, 0.8, 0.65, 0.5], dtype=torch.float64), "none")
    runs = [sampler.sample(DATA.model(process), None, grid, SEEDS, shape=(3,)) for process in (PSLD(gamma=0.0), CLD())]
    assert torch.equal(runs[0].z, runs[1].z) and runs[0].z.isfinite().all()


# -- weights ----------------------------------------------------------------------------------------------------------

WIDE = (torch.tensor([0.5], dtype=torch.float64), torch.tensor([0.2], dtype=torch.float64))
EARLIER = torch.tensor([0.5, 0.6, 0.65], dtype=torch.float64)


def second_way(process):
    """A, D Σ⁻¹, Φ₀ and λ at a time, by scipy; β = 8."""
    a, d = by_hand.matrices(process)

    def at(t):
        phi, covariance = by_hand.kernel(process, 8.0 * t)
        precision = np.linalg.inv(covariance)
        return a, d @ precision, phi[:, 0], 0.5 * np.log(phi[:, 0] @ precision @ phi[:, 0])

    return at


def basis(nodes, x):
    """Lagrange's polynomials, by the textbook."""
    return np.array(
        [np.prod([(x - m) / (n - m) for m in np.delete(nodes, j)]) for j, n in enumerate(nodes)]
    )  # the first node is that of the step's start


def solved(rate, shape):
    (t,), (s,) = WIDE
    start = np.zeros(shape)
    found = solve_ivp(
        lambda t, y: rate(t, y.reshape(shape)).ravel(), (t, s), start.ravel(), method="DOP853", rtol=1e-11, atol=1e-13
    )
    return found.y[:, -1].reshape(shape)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("process", [PSLD(0.25), CLD()], ids=repr)
def test_data_weights_solve_the_equation(process, eta):
    """With z = 0 at the start and x̂₀ = ℓⱼ(λ), dz/db = A z + (1 + η²) D Σ⁻¹ (z − Φ₀ ℓⱼ) ends at wⱼ."""
    at = second_way(process)
    nodes = np.array([at(float(t))[3] for t in EARLIER])

    def rate(t, z):
        a, pull, signal, clock = at(t)
        return 8.0 * (a @ z + (1 + eta**2) * pull @ (z - np.outer(signal, basis(nodes, clock))))

    expected = solved(rate, (2, 3)).T
    found = data_weights(process, *WIDE, torch.from_numpy(nodes)[None], eta)[0]
    close(found, expected, atol=1e-8)


@pytest.mark.parametrize("process", [PSLD(0.25), CLD()], ids=repr)
def test_noise_weights_solve_the_equation(process):
    """Noise moves along dΨ/db = (A + D Σ⁻¹) Ψ from Ψ = I; dU/db = A U + D Σ⁻¹ Ψ ℓⱼ from U = 0 ends at Uⱼ."""
    at = second_way(process)
    nodes = np.array([at(float(t))[3] for t in EARLIER])

    def rate(t, excess):  # Ψ − I first, then the three U
        a, pull, _, clock = at(t)
        psi = np.eye(2) + excess[0]
        pushed = [a @ u + pull @ psi * size for u, size in zip(excess[1:], basis(nodes, clock), strict=True)]
        return 8.0 * np.stack([(a + pull) @ psi, *pushed])

    expected = solved(rate, (4, 2, 2))[1:]
    close(noise_weights(process, *WIDE, torch.from_numpy(nodes)[None])[0], expected, atol=1e-8)


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("process", [VP, PSLD(0.25), HigherOrderLangevin(3), SubVPSDE(), EDM(1.0)], ids=repr)
def test_weights_sum_to_the_step_of_a_constant(process, count):
    """Σ wⱼ = Φ₀(s) − Ψ Φ₀(t), and Σ Uⱼ = Ψ − Φ(s, t), in units of the noise at s."""
    t, s = torch.tensor([0.9, 0.3, 0.05], dtype=torch.float64), torch.tensor([0.4, 0.28, 0.02], dtype=torch.float64)
    clocks = -process.noise_scale(t).log()[:, None] - torch.arange(count, dtype=torch.float64) * 0.3
    to_noise, atol = process.marginal(s).whitener, 1e-9 if process.k < 3 else 1e-7
    for eta in (0.0, 0.7):
        held = process.signal(s) - (noise_flow(process, t, s, eta) @ process.signal(t)[..., None])[..., 0]
        weights = data_weights(process, t, s, clocks, eta).sum(1)
        scale = (to_noise @ process.signal(s)[..., None]).norm(dim=1)
        close((to_noise @ (weights - held)[..., None])[..., 0] / scale, torch.zeros(3, process.k).double(), atol)
    moved = noise_flow(process, t, s) - torch.linalg.inv(process.transition(s, t).mean_map)
    total = noise_weights(process, t, s, clocks).sum(1)
    size = whitened(process, t, s, moved).abs().amax((-1, -2), keepdim=True)
    close(whitened(process, t, s, total - moved) / size, torch.zeros_like(total), atol)
