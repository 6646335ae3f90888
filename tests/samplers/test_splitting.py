"""Splitting and conjugate steps written out by hand, for PSLD's own numbers Γ, ν, M and a score without structure."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad_vec, solve_ivp
from scipy.linalg import expm

import by_hand
from psld.model import Predicts, ScoreModel
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, Process, SubVPSDE
from psld.samplers import OBA, ROBA, RVV, Conjugate, ConjugateOBA, ConjugateVerlet, SymplecticEuler, VelocityVerlet

PROCESS = PSLD(0.25)
GAMMA, NU, M = 0.25, 4.25, 0.25  # critical: M = 4 / (Γ − ν)² = 1/4
T, S, BETA = 0.6, 0.53, 8.0
DB = BETA * (T - S)

rng = np.random.default_rng(0)
Z, XI = rng.standard_normal((2, 3, 2, 4))
X, P = Z[:, 0], Z[:, 1]


def score(z, t):
    """Any function of state and time."""
    return np.stack([np.sin(z[:, 0] - t) - z[:, 1], z[:, 0] * np.cos(3 * t) - np.tanh(z[:, 1])], 1)


def network(z, t):
    t = t.reshape(-1, 1, 1)
    x, m = z[:, :1], z[:, 1:]
    return torch.cat([torch.sin(x - t) - m, x * torch.cos(3 * t) - torch.tanh(m)], 1)


def step(sampler, predicts: Predicts = "score", process=PROCESS, function=network, z=Z, xi=XI):
    t, s = torch.tensor([T], dtype=torch.float64), torch.tensor([S], dtype=torch.float64)
    tables = sampler.tables(process, t, s)

    def first(table):
        return type(table)(*map(first, table)) if isinstance(table, tuple) else table[0]

    model = ScoreModel(function, process, predicts)
    start, noise = torch.from_numpy(z), torch.from_numpy(xi)
    return sampler.step(start, sampler.init(start), first(tables), model, t[0], lambda: noise)[0].numpy()


def close(a, b, atol=1e-12):
    np.testing.assert_allclose(a, b, rtol=0, atol=atol)


def position(x, m, sx, db=DB):
    """dx = ½β (−Γx + M⁻¹m − Γ s_x) dt, backwards."""
    return x - db * 0.5 * (-GAMMA * x + m / M - GAMMA * sx)


def momentum(x, m, sm, db=DB):
    """dm = ½β (−x − νm − Mν s_m) dt, backwards."""
    return m - db * 0.5 * (-x - NU * m - M * NU * sm)


def both(x, m, t):
    return score(np.stack([x, m], 1), t)


def test_numbers():
    assert (PROCESS.gamma, PROCESS.nu, PROCESS.mass) == (GAMMA, NU, M)


def test_symplectic_euler():
    m = momentum(X, P, both(X, P, T)[:, 1])
    x = position(X, m, both(X, m, T)[:, 0])
    close(step(SymplecticEuler()), np.stack([x, m], 1))


def test_velocity_verlet():
    m = momentum(X, P, both(X, P, T)[:, 1], 0.5 * DB)
    x = position(X, m, both(X, m, T)[:, 0])
    m = momentum(x, m, both(x, m, S)[:, 1], 0.5 * DB)
    close(step(VelocityVerlet()), np.stack([x, m], 1))


def test_reduced_velocity_verlet():
    """The first score also moves the position; without reduction it is asked again."""
    sx, sm = both(X, P, T).transpose(1, 0, 2)
    m = momentum(X, P, sm, 0.5 * DB)
    x = position(X, m, sx)
    m = momentum(x, m, both(x, m, S)[:, 1], 0.5 * DB)
    close(step(RVV()), np.stack([x, m], 1))
    assert np.abs(step(RVV()) - step(VelocityVerlet())).max() > 1e-3


def friction(position_noise):
    """Ornstein–Uhlenbeck: x at rate Γ/2 towards variance 1, m at rate ν/2 towards M."""
    x = math.exp(-0.5 * GAMMA * DB) * X + position_noise * math.sqrt(-math.expm1(-GAMMA * DB)) * XI[:, 0]
    m = math.exp(-0.5 * NU * DB) * P + math.sqrt(-M * math.expm1(-NU * DB)) * XI[:, 1]
    return x, m


def remaining_momentum(x, m, sm):
    """½x + Mν (s_m + m/M)."""
    return m + DB * (0.5 * x + M * NU * (sm + m / M))


def remaining_position(x, m, sx):
    """−m/(2M) + Γ (s_x + x)."""
    return x + DB * (-0.5 * m / M + GAMMA * (sx + x))


@pytest.mark.parametrize("position_noise", [1.0, 0.0, 1.16])
def test_oba(position_noise):
    x, m = friction(position_noise)
    m = remaining_momentum(x, m, both(x, m, T)[:, 1])
    x = remaining_position(x, m, both(x, m, T)[:, 0])
    close(step(OBA(position_noise)), np.stack([x, m], 1))


@pytest.mark.parametrize("position_noise", [1.0, 0.0, 1.16])
def test_reduced_oba(position_noise):
    x, m = friction(position_noise)
    sx, sm = both(x, m, T).transpose(1, 0, 2)
    m = remaining_momentum(x, m, sm)
    close(step(ROBA(position_noise)), np.stack([remaining_position(x, m, sx), m], 1))


@pytest.mark.parametrize("sampler", [OBA, ROBA, lambda noise: ConjugateOBA(0.2, "ones", noise)])
@pytest.mark.parametrize("process", [PROCESS, CLD(), HigherOrderLangevin(3)], ids=repr)
def test_position_noise_scales_the_first_row_of_the_noise(sampler, process):
    t, s = torch.tensor([0.6, 0.5], dtype=torch.float64), torch.tensor([0.5, 0.1], dtype=torch.float64)
    plain, scaled = (sampler(noise).tables(process, t, s) for noise in (1.0, 0.3))
    assert torch.equal(scaled.friction.mean_map, plain.friction.mean_map)
    close(scaled.friction.noise[:, 0], 0.3 * plain.friction.noise[:, 0], atol=1e-15)
    assert torch.equal(scaled.friction.noise[:, 1:], plain.friction.noise[:, 1:])
    for mine, theirs in [(scaled.position, plain.position), (scaled.momentum, plain.momentum)]:
        assert all(torch.equal(a, b) for a, b in zip(mine, theirs, strict=True))


# -- conjugate


def push_rate(process, b, rows=slice(None), factor=1.0):
    """D L⁻ᵀ at the clock b, from scipy's kernels; only some rows of D."""
    d = np.zeros_like(by_hand.matrices(process)[1])
    d[rows] = factor * by_hand.matrices(process)[1][rows]
    return d @ np.linalg.inv(np.linalg.cholesky(by_hand.kernel(process, b)[1])).T


def conjugate(process, g, a, rows=slice(None), t=T, s=S, factor=1.0):
    """move and push of the step with linear part g = λB, by quadrature over b."""
    start, stop = BETA * t, BETA * s
    push, _ = quad_vec(
        lambda b: expm((g - a) * (b - stop)) @ push_rate(process, b, rows, factor), start, stop, epsabs=1e-13
    )
    db = start - stop
    return expm((g - a) * db) @ (np.eye(len(a)) - db * g), push


EPS = rng.standard_normal((3, 2, 4))


def constant_eps(z, t):
    return torch.from_numpy(EPS)


def apply(matrix, z):
    return np.einsum("ij,bjc->bic", matrix, z)


@pytest.mark.parametrize("process", [PROCESS, CLD()], ids=repr)
def test_without_lambda_it_solves_the_flow_of_a_frozen_eps(process):
    """dz/db = A z + D L⁻ᵀ ε, by an adaptive solver: exact, whatever the step."""
    a = by_hand.matrices(process)[0]

    def rate(b, z):
        return (apply(a, z.reshape(Z.shape)) + apply(push_rate(process, b), EPS)).ravel()

    solution = solve_ivp(rate, (BETA * T, BETA * S), Z.ravel(), method="DOP853", rtol=1e-11, atol=1e-12)
    for direction in ("ones", "identity"):
        found = step(Conjugate(0.0, direction), "eps", process, constant_eps)
        close(found, solution.y[:, -1].reshape(Z.shape), atol=1e-9)


@pytest.mark.parametrize("direction, b", [("identity", np.eye(2)), ("ones", np.ones((2, 2)))])
@pytest.mark.parametrize("lam", [0.4, -0.3])
def test_conjugate_step(direction, b, lam):
    """An Euler step in ẑ = exp((λB − A) b) z: the slope of ẑ is λB̂ ẑ at the start, and exact for ε."""
    a = by_hand.matrices(PROCESS)[0]
    g, start, stop = lam * b, BETA * T, BETA * S
    there, back = expm((g - a) * (start - start)), expm((a - g) * (stop - start))  # clock from the start: ẑ = z there
    pushed, _ = quad_vec(lambda c: expm((g - a) * (c - start)) @ push_rate(PROCESS, c), start, stop, epsabs=1e-13)
    turned = apply(there, Z) + (stop - start) * apply(g, Z) + apply(pushed, EPS)
    found = step(Conjugate(lam, direction), "eps", PROCESS, constant_eps)
    close(found, apply(back, turned), atol=1e-10)


def test_identity_direction_in_closed_form():
    """B = I commutes: the linear part is that of λ = 0 times e^{λΔb} (1 − λΔb)."""
    t, s = torch.tensor([T], dtype=torch.float64), torch.tensor([S], dtype=torch.float64)
    plain, moved = (Conjugate(lam, "identity").tables(PROCESS, t, s) for lam in (0.0, 0.4))
    close(moved.state, math.exp(0.4 * DB) * (1 - 0.4 * DB) * plain.state)


def rows_of(matrix, rows):
    kept = np.zeros_like(matrix)
    kept[rows] = matrix[rows]
    return kept


@pytest.mark.parametrize("lam", [0.0, 0.4])
def test_conjugate_verlet(lam):
    """Half of the momentum's conjugate step to the middle of t, all of the position's, the other half; ε at t and s."""
    a = by_hand.matrices(PROCESS)[0]
    m_rows, x_rows, middle, g = slice(1, 2), slice(0, 1), 0.5 * (T + S), lam * np.ones((2, 2))

    def part(rows, t, s):
        return conjugate(PROCESS, rows_of(g, rows), rows_of(a, rows), rows, t, s)

    def eps(z, t):
        return np.sin(z) - t

    def move(part, z, noise):
        return apply(part[0], z) + apply(part[1], noise)

    first = eps(Z, T)
    z = move(part(x_rows, T, S), move(part(m_rows, T, middle), Z, first), first)
    z = move(part(m_rows, middle, S), z, eps(z, S))
    found = step(ConjugateVerlet(lam, "ones"), "eps", PROCESS, lambda z, t: torch.sin(z) - t.reshape(-1, 1, 1))
    close(found, z, atol=1e-10)


@pytest.mark.parametrize("lam", [0.0, 0.4])
def test_conjugate_oba(lam):
    """Friction, then the conjugate steps of −(Q + 2D) S⁻¹ and 2D: momentum first."""
    q, pull = np.array([[0.0, -0.5], [0.5, 0.0]]), np.diag([1.0, 1 / M])
    a = -(q + 2 * by_hand.matrices(PROCESS)[1]) @ pull
    g = lam * np.ones((2, 2))
    z = np.stack(friction(0.8), 1)
    for rows in (slice(1, 2), slice(0, 1)):
        move, push = conjugate(PROCESS, rows_of(g, rows), rows_of(a, rows), rows, factor=2.0)
        z = apply(move, z) + apply(push, EPS)
    close(step(ConjugateOBA(lam, "ones", 0.8), "eps", PROCESS, constant_eps), z, atol=1e-10)


# -- refusals


@pytest.mark.parametrize("process", [VPSDE(), VESDE(), SubVPSDE()], ids=repr)
@pytest.mark.parametrize("sampler", [SymplecticEuler(), VelocityVerlet(), RVV(), ConjugateVerlet()], ids=repr)
def test_one_variable_cannot_be_split(sampler, process):
    t, s = torch.tensor([T], dtype=torch.float64), torch.tensor([S], dtype=torch.float64)
    with pytest.raises(
        ValueError, match=rf"{type(sampler).__name__} splits position from momentum, and \w+\(.*\) has one variable"
    ):
        sampler.tables(process, t, s)


@pytest.mark.parametrize("process", [VPSDE(), VESDE(), SubVPSDE()], ids=repr)
@pytest.mark.parametrize("sampler", [OBA(), ROBA(), ConjugateOBA()], ids=repr)
def test_friction_needs_a_momentum_and_a_stationary_law(sampler, process):
    t, s = torch.tensor([T], dtype=torch.float64), torch.tensor([S], dtype=torch.float64)
    reason = "has one variable" if isinstance(process, Process) else "OBA splits off the stationary law of a recipe"
    with pytest.raises(ValueError, match=reason):
        sampler.tables(process, t, s)
