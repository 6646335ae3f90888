"""Adaptive Dormand–Prince 5(4) for a batch of initial values, each with its own step size, or all with one.

Step control and the choice of the first step follow Hairer, Nørsett & Wanner, "Solving Ordinary Differential Equations
I", II.4, so that counts of evaluations can be held against scipy's RK45.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from psld.kernels import per_sample
from psld.specs.arguments import one_of, positive, whole

__all__ = ["DormandPrince", "Rate", "Solution", "root_mean_square"]

# Dormand & Prince (1980): nodes, stage weights, 5th-order weights (equal to the last stage), and their error estimate
C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0)
A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
)
B = (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84)
E = (-71 / 57600, 0.0, 71 / 16695, -71 / 1920, 17253 / 339200, -22 / 525, 1 / 40)
SAFETY, SHRINK, GROW = 0.9, 0.2, 10.0

Rate = Callable[[Tensor, Tensor, Tensor], Tensor]
"""dz/dt as rate(z, t, rows): states (b, ...), a float64 time each (b,), and which of the batch they are (b,)."""


class Solution(NamedTuple):
    """States at the end (B, ...), and evaluations of the rate a sample, (B,) int64."""

    z: Tensor
    nfe: Tensor


def root_mean_square(z: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
    """The root mean square of each sample, float64 on the CPU."""
    return z.flatten(1).square().mean(1).sqrt().double().cpu()


class DormandPrince:
    """Solves dz/dt = rate(z, t), forward or backward in time; samples that have arrived leave the batch.

    Args:
        rtol, atol: tolerances on the error of a step.
        max_steps: attempted steps a sample before giving up.
        control: over which the error of a step is measured, each "sample" or the whole "batch". With "sample", a sample
            does not depend on its neighbours.
        size: what is compared with the tolerance: from an error in units of the tolerance, (B, ...), one number a
            sample.

    Raises:
        ValueError: a tolerance that is not positive, or another control.
    """

    def __init__(
        self,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        max_steps: int = 10_000,
        control: Literal["sample", "batch"] = "sample",
        size: Callable[[Tensor], Tensor] = root_mean_square,
    ):
        self.rtol, self.atol = positive("rtol", rtol), positive("atol", atol)
        self.max_steps, self.control, self.size = whole("max_steps", max_steps), control, size
        one_of("control", control, ("sample", "batch"))

    def solve(self, rate: Rate, z: Float[Tensor, "B ..."], start: float, end: float) -> Solution:
        """Carry z from time `start` to time `end`.

        Raises:
            RuntimeError: a sample needs more than `max_steps`, or its state is no longer finite.
        """
        way = 1.0 if end >= start else -1.0
        rows = torch.arange(len(z))
        t = torch.full((len(z),), float(start), dtype=torch.float64)
        slope = rate(z, t, rows)
        _check_finite(slope)
        h = self._first_step(rate, z, t, rows, slope, end)
        _check_finite(h)
        nfe = torch.full((len(z),), 2)
        rejected = torch.zeros(len(z), dtype=torch.bool)
        result = torch.empty_like(z)
        for _ in range(self.max_steps):
            h = torch.minimum(h, way * (end - t))
            proposal, last_slope, error = self._attempt(rate, z, t, rows, slope, way * h)
            nfe[rows] += 6
            _check_finite(error)
            accepted = error < 1.0
            factor = (SAFETY * _power(error.clamp(min=1e-10), -0.2)).clamp(SHRINK, GROW)
            factor = torch.where(~accepted | rejected, factor.clamp(max=1.0), factor)
            arrived = torch.where(way * (end - (t + way * h)) <= 1e-14, end, t + way * h)
            t, h, rejected = torch.where(accepted, arrived, t), h * factor, ~accepted
            z, slope = _select(accepted, proposal, z), _select(accepted, last_slope, slope)
            done = way * (end - t) <= 0.0
            result[rows[done]] = z[done.to(z.device)]
            left = ~done
            if not left.any():
                return Solution(result, nfe)
            on_device = left.to(z.device)
            rows, t, h, rejected = rows[left], t[left], h[left], rejected[left]
            z, slope = z[on_device], slope[on_device]
        raise RuntimeError(f"{len(rows)} samples need more than {self.max_steps} steps: loosen rtol = {self.rtol}.")

    def _attempt(
        self, rate: Rate, z: Tensor, t: Tensor, rows: Int64[Tensor, " b"], slope: Tensor, step: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One signed step from t: the new state, the slope there, and the error in units of the tolerance."""
        slopes = [slope]
        for node, weights in zip(C[1:], A[1:], strict=True):
            slopes.append(rate(z + _scale(step, _combine(weights, slopes)), t + node * step, rows))
        proposal = z + _scale(step, _combine(B, slopes))
        slopes.append(rate(proposal, t + step, rows))
        tolerance = self.atol + self.rtol * torch.maximum(z.abs(), proposal.abs())
        return proposal, slopes[-1], self._size(_scale(step, _combine(E, slopes)) / tolerance)

    def _first_step(self, rate: Rate, z: Tensor, t: Tensor, rows: Tensor, slope: Tensor, end: float) -> Tensor:
        """A first step such that an explicit Euler step changes the solution little (Hairer et al., II.4)."""
        tolerance = self.atol + self.rtol * z.abs()
        size, speed = self._size(z / tolerance), self._size(slope / tolerance)
        reach = end - float(t[0])
        trial = torch.where((size < 1e-5) | (speed < 1e-5), 1e-6, 0.01 * size / speed).clamp(max=abs(reach))
        step = trial if reach >= 0 else -trial
        change = rate(z + _scale(step, slope), t + step, rows) - slope
        curvature = self._size(change / tolerance) / trial
        steepest = torch.maximum(speed, curvature)
        second = torch.where(steepest <= 1e-15, (1e-3 * trial).clamp(min=1e-6), _power(0.01 / steepest, 0.2))
        return torch.minimum(100.0 * trial, second)

    def _size(self, z: Tensor) -> Float[Tensor, " B"]:
        """The error of each sample, or of all together, in units of the tolerance."""
        size = self.size(z)
        return size if self.control == "sample" else size.square().mean().sqrt().expand_as(size)


def _check_finite(values: Tensor) -> None:
    if not values.isfinite().all():
        raise RuntimeError("the state is no longer finite: check the network, or use a smaller tolerance.")


def _combine(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = torch.zeros_like(slopes[0])
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            total = total + weight * slope
    return total


def _scale(h: Float[Tensor, " B"], z: Tensor) -> Tensor:
    return per_sample(h, z) * z


def _power(base: Float[Tensor, " B"], exponent: float) -> Float[Tensor, " B"]:
    """One after the other: the last bit of torch's power depends on whether a number is in a full vector register."""
    return torch.tensor([math.pow(number, exponent) for number in base.tolist()], dtype=base.dtype)


def _select(choice: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(choice.to(yes.device).reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
