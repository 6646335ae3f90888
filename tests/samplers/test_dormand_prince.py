"""The solver forward in time, against scipy's and a closed form; backward it is tested through RK45."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from psld.samplers.dormand_prince import DormandPrince

RATES = torch.tensor([0.5, 2.0, 7.0], dtype=torch.float64)
START = torch.tensor([[1.0, -2.0], [0.3, 0.7], [4.0, 1.0]], dtype=torch.float64)


def pendulum(t, z):
    return np.array([z[1], -np.sin(z[0]) - 0.1 * t * z[1]])


def test_forward_same_path_as_scipy():
    def rate(z, t, rows):
        return torch.stack([z[:, 1], -z[:, 0].sin() - 0.1 * t * z[:, 1]], 1)

    ours = DormandPrince(1e-4, 1e-6).solve(rate, START, 0.2, 5.0)
    for z, result, nfe in zip(START.numpy(), ours.z, ours.nfe, strict=True):
        theirs = solve_ivp(pendulum, (0.2, 5.0), z, method="RK45", rtol=1e-4, atol=1e-6)
        assert int(nfe) == theirs.nfev
        np.testing.assert_allclose(result.numpy(), theirs.y[:, -1], rtol=1e-9)


def test_each_row_has_its_own_rate():
    """The solver says which samples are left: each decays at the rate of its row, whoever arrived before."""
    ours = DormandPrince(1e-9, 1e-9).solve(lambda z, t, rows: -RATES[rows, None] * z, START, 0.0, 2.0)
    torch.testing.assert_close(ours.z, torch.exp(-2.0 * RATES)[:, None] * START, rtol=0, atol=1e-8)
    assert ours.nfe[0] < ours.nfe[1] < ours.nfe[2]


@pytest.mark.parametrize("end", [3.0, -3.0])
def test_arrives_at_the_end(end):
    """dz/dt = 1 on both sides of the start: the state tells the time."""
    ours = DormandPrince(1e-3, 1e-3).solve(lambda z, t, rows: torch.ones_like(z), START, 0.0, end)
    torch.testing.assert_close(ours.z, START + end, rtol=1e-14, atol=1e-14)


def test_error_is_what_the_caller_says_it_is():
    """One component measured alone takes the steps it would take alone."""

    def rate(z, t, rows):
        return torch.stack([-z[:, 0], -50.0 * z[:, 1]], 1)

    def first_alone(error):
        return error[:, 0].abs()

    alone = DormandPrince(1e-6, 1e-6).solve(lambda z, t, rows: -z, START[:, :1], 0.0, 0.1)
    both = DormandPrince(1e-6, 1e-6, size=first_alone).solve(rate, START, 0.0, 0.1)
    assert torch.equal(alone.nfe, both.nfe) and torch.equal(alone.z[:, 0], both.z[:, 0])
