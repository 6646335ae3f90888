"""Time grids: when a sampler looks at the score. A grid is data; make one here or write down your own.

NFE counts every network call: a grid of N times takes N − 1 steps, and a final denoising adds one call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from psld.files import UnreadableFileError, parse_json, read_json, write_json
from psld.files.reading import said
from psld.processes import VPSDE, LinearProcess
from psld.specs import SpecifiedValue, build
from psld.specs.arguments import checked, positive, shown, whole

__all__ = [
    "NAMES",
    "Final",
    "Grid",
    "edm_rho",
    "ends",
    "log_snr",
    "named",
    "noise_scales",
    "optimised",
    "optimised_projected",
    "paper",
    "power",
    "quadratic",
    "safe",
    "uniform",
]

Final = Literal["denoise", "euler", "none"]


MOST_STEPS, LEAST_RHO, MOST_RHO = 10**6, 0.01, 1000.0


class Grid(SpecifiedValue):
    """Decreasing times, from where sampling starts to where it stops, and what becomes of the last state.

    Args:
        times: strictly decreasing, positive; kept as float64.
        final: "denoise" returns x̂₀ at the last time; "euler" takes a noise-free Euler step of the reverse SDE to t = 0
            (the paper's convention); "none" returns the position as it is. The first two cost one evaluation.

    Raises:
        ValueError: fewer than two times, or times that are not positive and strictly decreasing.
    """

    def __init__(self, times: Float[Tensor, " n"] | Sequence[float], final: Final = "denoise"):
        self.times: Float[Tensor, " n"] = torch.as_tensor(times, dtype=torch.float64)
        self.final: Final = final
        if self.times.ndim != 1 or len(self.times) < 2:
            raise ValueError(f"times must be at least two, a row: got shape {tuple(self.times.shape)}.")
        if not ((self.times.diff() < 0).all() and self.times[-1] > 0 and self.times[0] < math.inf):
            raise ValueError(
                f"times must be positive and strictly decreasing, from noise to data: got {shown(self.times.tolist())}."
            )

    def save(self, path: str | Path) -> None:
        """Write the grid as JSON, in one piece; `load` reads it."""
        write_json({"times": self.times.tolist(), "final": self.final}, path)

    @staticmethod
    def load(path: str | Path) -> Grid:
        """A grid from JSON: {"times": [1.0, …], "final": "denoise"}.

        Raises:
            FileNotFoundError: there is no such file.
            UnreadableFileError: the file holds something else.
        """
        known = read_json(path)
        try:
            return Grid(torch.tensor(known["times"], dtype=torch.float64), known.get("final", "denoise"))
        except (KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
            wrong = "lacks times" if isinstance(error, KeyError) else said(error)
            raise UnreadableFileError(
                f'{path} is not a grid: it must hold {{"times": [1.0, …], "final": "denoise"}} ({wrong}).'
            ) from error

    @property
    def steps(self) -> int:
        """Steps from the first time to the last."""
        return len(self.times) - 1

    @property
    def nfe(self) -> int:
        """Network calls of a one-call-a-step sampler, final one included."""
        return self.steps + (self.final != "none")


@checked
def uniform(process: LinearProcess, nfe: int, end: float = 1e-3, final: Final = "denoise") -> Grid:
    """Equal steps from T to `end`.

    Raises:
        ValueError: nfe too small for one step, or `end` outside (0, T).
    """
    return Grid(process.T - (process.T - end) * _fractions(process, nfe, end, final), final)


@checked
def quadratic(process: LinearProcess, nfe: int, end: float = 1e-3, final: Final = "denoise") -> Grid:
    """t = end + (T − end)(1 − i/N)²: steps shorten towards the data."""
    return Grid(end + (process.T - end) * (1.0 - _fractions(process, nfe, end, final)) ** 2, final)


@checked
def log_snr(process: LinearProcess, nfe: int, end: float = 1e-3, final: Final = "denoise") -> Grid:
    """Equal steps in log σ(t), the log-SNR of the sufficient statistic."""
    fractions = _fractions(process, nfe, end, final)
    top, bottom = process.noise_scale(process.T).log(), process.noise_scale(end).log()
    target = top + (bottom - top) * fractions
    return _at_noise_scales(process, target.exp(), end, final)


@checked
def edm_rho(
    process: LinearProcess,
    nfe: int,
    rho: float = 7.0,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
    final: Final = "denoise",
) -> Grid:
    """Karras et al. (2022), eq. 5, in the process's own noise scale: equal steps of σ^(1/ρ).

    A process that is noisier at T than `sigma_max` keeps T as its first time, since it is there that its prior holds;
    one that is less noisy starts at its own σ(T).

    Raises:
        ValueError: nfe too small for one step, or not 0 < sigma_min < σ of the start, or rho is not positive.
    """
    start = min(positive("sigma_max", sigma_max), float(process.noise_scale(process.T)))
    if not 0 < sigma_min < start:
        raise ValueError(f"sigma_min must be positive and below sigma_max and σ(T), {start:g}: got {sigma_min}.")
    if not LEAST_RHO <= rho <= MOST_RHO:
        raise ValueError(f"rho must be in [{LEAST_RHO}, {MOST_RHO}]: got {shown(rho)}.")
    end = float(process.time_of(torch.tensor(sigma_min, dtype=torch.float64)))
    steps = len(_fractions(process, nfe, end, final))
    return _at_noise_scales(process, power(start, sigma_min, steps, rho), end, final)


def power(first: float, last: float, count: int, rho: float) -> Float[Tensor, " n"]:
    """`count` ≥ 2 noise scales from `first` to `last` in equal steps of σ^(1/ρ), float64."""
    high, low = first ** (1 / rho), last ** (1 / rho)
    return (high + torch.linspace(0.0, 1.0, count, dtype=torch.float64) * (low - high)) ** rho


@checked
def noise_scales(process: LinearProcess, sigmas: Float[Tensor, " n"], final: Final = "denoise") -> Grid:
    """A grid through the times at which the process has these noise scales; it starts at T instead of at the first.

    Raises:
        ValueError: the scales do not decrease, or one is larger than σ(T).
    """
    sigmas = torch.as_tensor(sigmas, dtype=torch.float64)
    return _at_noise_scales(process, sigmas, float(process.time_of(sigmas[-1])), final)


@checked
def optimised(process: LinearProcess, nfe: int, final: Final = "denoise") -> Grid:
    """The grid on which the exponential sampler of order 2 came nearest to the exact flow of the digits mixture.

    Found by `psld.samplers.tuning.optimise_grid` and stored as data; for other images, search your own.

    Args:
        process: VPSDE(), CLD(), PSLD(0.01) or PSLD(0.25), with their published settings.
        nfe: network calls, the final one included, of those that were searched.
        final: what becomes of the last state.

    Raises:
        ValueError: there is none for this process or this number of calls; the message lists those there are.
    """
    found = _searched(process)
    if not found:
        known = ", ".join(map(repr, dict.fromkeys(row.process for row in _optimised())))
        raise ValueError(
            f"no optimised grid for {process!r}; there are some for {known}. "
            "Use log_snr or edm_rho, or search one with psld.samplers.tuning.optimise_grid."
        )
    return _stored(process, found, nfe, final)


@checked
def optimised_projected(process: LinearProcess, nfe: int, final: Final = "denoise") -> Grid:
    """The same for `Projected` samplers, of any process: they walk in the statistic y, where all processes are one.

    Args:
        process: any.
        nfe: as for `optimised`.
        final: what becomes of the last state.

    Raises:
        ValueError: there is none for this number of calls; the message lists those there are.
    """
    return _stored(process, _searched(VPSDE()), nfe, final)


@checked
def safe(process: LinearProcess, nfe: int, final: Final = "denoise") -> Grid:
    """σ of a VP process at equal steps of its time, for data of which nothing is known but that images are in [−1, 1].

    That is how DDPM's and DPM-Solver++'s samplers are spaced by default: about σ = 157, 26, 6, 2, 0.7 at 5 evaluations.
    Where σ(T) is larger, the first step goes from there.

    Raises:
        ValueError: nfe too small for one step.
    """
    steps = whole("nfe", nfe, most=MOST_STEPS) - (final != "none")
    if steps < 1:
        raise ValueError(f"nfe must be at least {1 + (final != 'none')} with final={final!r}: got {nfe}.")
    times = 1.0 - torch.arange(steps + 1, dtype=torch.float64) / (steps + 1)
    sigmas, top = VPSDE().noise_scale(times), float(process.noise_scale(process.T))
    if top < float(sigmas[0]):  # a process that begins below takes as many steps over what it has
        sigmas = sigmas * (top / float(sigmas[0]))
    return noise_scales(process, sigmas, final)


@checked
def ends(process: LinearProcess, end: float = 1e-3, final: Final = "denoise") -> Grid:
    """T and `end` alone, for samplers that choose the steps between them."""
    _require_within(process, end)
    return Grid([process.T, end], final)


class _Optimised(NamedTuple):
    """A row of optimised_grids.json: the process, its network calls, and σ of every time."""

    process: LinearProcess
    nfe: int
    noise_scales: tuple[float, ...]


@cache
def _optimised() -> tuple[_Optimised, ...]:
    text = files("psld.samplers").joinpath("optimised_grids.json").read_text(encoding="utf-8")
    rows = parse_json(text, "optimised_grids.json", list)
    return tuple(_Optimised(build(row["process"]), row["nfe"], tuple(row["noise_scales"])) for row in rows)


def _searched(process: LinearProcess) -> dict[int, tuple[float, ...]]:
    """The noise scales that were found for a process, by number of calls; empty where there are none."""
    return {row.nfe: row.noise_scales for row in _optimised() if row.process == process}


def _stored(process: LinearProcess, found: dict[int, tuple[float, ...]], nfe: int, final: Final) -> Grid:
    if nfe not in found:
        raise ValueError(f"nfe must be one of {', '.join(map(str, sorted(found)))} for an optimised grid: got {nfe}.")
    sigmas = [float(process.noise_scale(process.T)), *found[nfe][1:]]
    return noise_scales(process, torch.tensor(sigmas, dtype=torch.float64), final)


NAMES = ("best", "safe", "log-snr", "edm-rho", "uniform", "quadratic", "optimised", "paper-uniform", "paper-quadratic")
"""What `Sampler.grid` and the programs call the grids. "best" is the sampler's, of the data where they are known."""


@checked
def named(name: str, process: LinearProcess, nfe: int) -> Grid:
    """The grid of that name, with its defaults.

    Raises:
        ValueError: an unknown name, or as the grid.
    """
    if name not in NAMES:
        raise ValueError(f"unknown grid {name!r}: one of {', '.join(NAMES)}, or a .json file.")
    if name.startswith("paper-"):
        return paper(process, nfe, "uniform" if name == "paper-uniform" else "quadratic")
    makers: dict[str, Callable[[LinearProcess, int], Grid]] = {
        "best": safe,
        "safe": safe,
        "log-snr": log_snr,
        "edm-rho": edm_rho,
        "uniform": uniform,
        "quadratic": quadratic,
        "optimised": optimised,
    }
    return makers[name](process, nfe)


def _at_noise_scales(process: LinearProcess, sigmas: Float[Tensor, " n"], end: float, final: Final) -> Grid:
    times = process.time_of(sigmas.clamp(max=float(process.noise_scale(process.T))))
    times[0], times[-1] = process.T, end
    return Grid(times, final)


@checked
def paper(process: LinearProcess, nfe: int, spacing: Literal["uniform", "quadratic"] = "uniform") -> Grid:
    """The convention behind the published numbers: NFE − 1 steps from T to ε = 1e-3, then a noise-free Euler step."""
    return (uniform if spacing == "uniform" else quadratic)(process, nfe, end=1e-3, final="euler")


def _require_within(process: LinearProcess, end: float) -> None:
    if not 0.0 < end < process.T:
        raise ValueError(f"end, the last time, must lie in (0, {process.T:g}): got {end}.")


def _fractions(process: LinearProcess, nfe: int, end: float, final: Final) -> Float[Tensor, " n"]:
    steps = whole("nfe", nfe, most=MOST_STEPS) - (final != "none")
    if steps < 1:
        raise ValueError(f"nfe must be at least {1 + (final != 'none')} with final={final!r}: got {nfe}.")
    _require_within(process, end)
    return torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
