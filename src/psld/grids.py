"""Time grids: when a sampler looks at the score. A grid is data; make one here or write down your own.

NFE counts every network call: a grid of N times takes N − 1 steps, and a final denoising adds one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from psld.processes import Process

__all__ = ["Final", "Grid", "log_snr", "paper", "quadratic", "uniform"]

Final = Literal["denoise", "euler", "none"]


@dataclass(frozen=True)
class Grid:
    """Decreasing times, from where sampling starts to where it stops, and what becomes of the last state.

    Attributes:
        times: float64, strictly decreasing, positive.
        final: "denoise" returns x̂₀ at the last time; "euler" takes a noise-free Euler step of the reverse SDE to t = 0
            (the paper's convention); "none" returns the position as it is. The first two cost one evaluation.

    Raises:
        ValueError: fewer than two times, or times that are not positive and strictly decreasing.
    """

    times: Float[Tensor, " n"]
    final: Final = "denoise"

    def __post_init__(self):
        if self.final not in ("denoise", "euler", "none"):
            raise ValueError(f"final must be 'denoise', 'euler' or 'none': got {self.final!r}.")
        if self.times.ndim != 1 or len(self.times) < 2:
            raise ValueError(f"a grid needs at least two times: got shape {tuple(self.times.shape)}.")
        if not (self.times.diff() < 0).all() or self.times[-1] <= 0:
            raise ValueError("a grid's times must be positive and strictly decreasing, from noise to data.")

    @property
    def steps(self) -> int:
        """Steps from the first time to the last."""
        return len(self.times) - 1

    @property
    def nfe(self) -> int:
        """Network calls of a one-call-a-step sampler, final one included."""
        return self.steps + (self.final != "none")


def uniform(process: Process, nfe: int, end: float = 1e-3, final: Final = "denoise") -> Grid:
    """Equal steps from T to `end`.

    Raises:
        ValueError: nfe too small for one step, or `end` outside (0, T).
    """
    return Grid(process.T - (process.T - end) * _fractions(process, nfe, end, final), final)


def quadratic(process: Process, nfe: int, end: float = 1e-3, final: Final = "denoise") -> Grid:
    """t = end + (T − end)(1 − i/N)²: steps shorten towards the data."""
    return Grid(end + (process.T - end) * (1.0 - _fractions(process, nfe, end, final)) ** 2, final)


def log_snr(process: Process, nfe: int, end: float = 1e-3, final: Final = "denoise") -> Grid:
    """Equal steps in log σ(t), the log-SNR of the sufficient statistic."""
    fractions = _fractions(process, nfe, end, final)
    top, bottom = process.noise_scale(process.T).log(), process.noise_scale(end).log()
    target = top + (bottom - top) * fractions
    low, high = torch.full_like(target, end).log(), torch.full_like(target, process.T).log()
    for _ in range(60):  # bisection in log t: σ(t) increases
        middle = 0.5 * (low + high)
        above = process.noise_scale(middle.exp().clamp(max=process.T)).log() > target
        low, high = torch.where(above, low, middle), torch.where(above, middle, high)
    times = (0.5 * (low + high)).exp()
    times[0], times[-1] = process.T, end
    return Grid(times, final)


def paper(process: Process, nfe: int, spacing: Literal["uniform", "quadratic"] = "uniform") -> Grid:
    """The convention behind the published numbers: NFE − 1 steps from T to ε = 1e-3, then a noise-free Euler step."""
    if spacing not in ("uniform", "quadratic"):
        raise ValueError(f"spacing must be 'uniform' or 'quadratic': got {spacing!r}.")
    return (uniform if spacing == "uniform" else quadratic)(process, nfe, end=1e-3, final="euler")


def _fractions(process: Process, nfe: int, end: float, final: Final) -> Float[Tensor, " n"]:
    steps = nfe - (final != "none")
    if steps < 1:
        raise ValueError(f"nfe must be at least {1 + (final != 'none')} with final={final!r}: got {nfe}.")
    if not 0.0 < end < process.T:
        raise ValueError(f"the last time must lie in (0, {process.T:g}): got end = {end}.")
    return torch.linspace(0.0, 1.0, steps + 1, dtype=torch.float64)
