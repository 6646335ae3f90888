"""Grids against their formulas."""

from typing import Literal

import pytest
import torch

import laws
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.samplers.grids import Grid, log_snr, paper, quadratic, uniform

EVERY = [VPSDE(), CLD(), PSLD(), HigherOrderLangevin(3), VESDE(), SubVPSDE()]


def close(a, b, atol=1e-14):
    torch.testing.assert_close(a, torch.as_tensor(b, dtype=torch.float64), rtol=0, atol=atol)


def test_uniform():
    close(uniform(VPSDE(), 4, end=0.1, final="none").times, [1.0, 0.775, 0.55, 0.325, 0.1])


def test_quadratic():
    close(quadratic(CLD(), 4, end=0.2, final="none").times, [1.0, 0.65, 0.4, 0.25, 0.2])


@pytest.mark.parametrize("process", EVERY, ids=repr)
@pytest.mark.parametrize("end", [1e-3, 0.1])
def test_log_snr_is_equally_spaced(process, end):
    grid = log_snr(process, 20, end=end)
    logs = process.noise_scale(grid.times).log()
    steps = logs.diff()
    close(steps, steps.mean().expand(19), atol=1e-9)
    assert float(grid.times[0]) == 1.0 and float(grid.times[-1]) == end


@pytest.mark.parametrize("make", [uniform, quadratic, log_snr])
@pytest.mark.parametrize("final, steps", [("denoise", 9), ("euler", 9), ("none", 10)])
def test_nfe_counts_the_last_call(make, final, steps):
    grid = make(PSLD(), 10, final=final)
    assert (grid.nfe, grid.steps, len(grid.times), grid.final) == (10, steps, steps + 1, final)
    assert grid.times.dtype == torch.float64


def test_paper_convention():
    """N − 1 steps from T to 1e-3 and one noise-free Euler step; quadratic: t_i = ε + (T − ε)(1 − i/(N − 1))²."""
    powers: dict[Literal["uniform", "quadratic"], int] = {"uniform": 1, "quadratic": 2}
    for spacing, power in powers.items():
        grid = paper(PSLD(), 1000, spacing)
        i = torch.arange(1000, dtype=torch.float64)
        close(grid.times, 1e-3 + 0.999 * (1 - i / 999) ** power)
        assert (grid.nfe, grid.steps, grid.final) == (1000, 999, "euler")


def test_paper_spacing_is_named():
    with pytest.raises(laws.REFUSALS):
        paper(PSLD(), 10, "log")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("make", [uniform, quadratic, log_snr])
@pytest.mark.parametrize("nfe, final, end", [(1, "denoise", 0.1), (0, "none", 0.1), (5, "none", 0.0), (5, "none", 1.0)])
def test_impossible_grids_are_refused(make, nfe, final, end):
    with pytest.raises(ValueError, match="nfe must be at least|must lie in"):
        make(PSLD(), nfe, end=end, final=final)


@pytest.mark.parametrize("times", [[1.0], [0.5, 0.5], [0.5, 0.6], [0.5, 0.0], [[1.0, 0.5]]])
def test_times_must_decrease_and_stay_positive(times):
    with pytest.raises(laws.REFUSALS):
        Grid(torch.tensor(times, dtype=torch.float64))


def test_final_is_named():
    with pytest.raises(laws.REFUSALS):
        Grid(torch.tensor([1.0, 0.5]), "clip")  # pyright: ignore[reportArgumentType]
