"""Probability-flow ODE by adaptive Dormand–Prince 5(4), each sample with its own step size, or all with one.

    dz/dt = f(z, t) − βD ∇log p_t(z),      from T down to the end of the grid

With error control a sample, a sample does not depend on its neighbours, and finished samples leave the batch; with
control a batch, as the paper's solver has it, one step size fits the root-mean-square error of all. Step control and
the choice of the first step follow Hairer, Nørsett & Wanner, "Solving Ordinary Differential Equations I", II.4, so that
counts of evaluations can be held against scipy's RK45.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import mix
from psld.predictions import ScoreModel
from psld.samplers.base import Plan, Sampler

__all__ = ["RK45"]

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


class RK45(Sampler):
    """Adaptive Runge–Kutta on the probability flow; of the grid it uses the first and the last time.

    Args:
        rtol, atol: tolerances on the root-mean-square error of a step, a sample; the paper uses 1e-5 and 1e-4.
        max_steps: attempted steps a sample before giving up.
        control: over which the error of a step is measured, each "sample" or the whole "batch".

    Raises:
        ValueError: a tolerance that is not positive, or another control.
        RuntimeError: a sample needs more than `max_steps`, or its state is no longer finite.
    """

    order = 5
    stochastic = False

    def __init__(
        self,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        max_steps: int = 10_000,
        control: Literal["sample", "batch"] = "sample",
    ):
        if not (rtol > 0 and atol > 0 and max_steps > 0):
            raise ValueError(f"rtol, atol and max_steps must be positive: got {rtol}, {atol}, {max_steps}.")
        if control not in ("sample", "batch"):
            raise ValueError(f"control must be 'sample' or 'batch': got {control!r}.")
        self.rtol, self.atol, self.max_steps, self.control = rtol, atol, max_steps, control

    def coefficients(self, process, t, s):
        return ()

    def step(self, z, c, model, t, noise):
        raise TypeError("RK45 chooses its own steps: call sample or integrate.")

    def integrate(self, model, z, plan: Plan, noise, watch=None):
        end = float(plan.grid.times[-1])
        t = torch.full((len(z),), float(plan.grid.times[0]), dtype=torch.float64)
        slope = flow(model, z, t)
        _check_finite(slope)
        h = self._first_step(model, z, t, slope, end)
        _check_finite(h)
        nfe = torch.full((len(z),), 2)
        rejected = torch.zeros(len(z), dtype=torch.bool)
        result, active = torch.empty_like(z), torch.arange(len(z))
        for _ in range(self.max_steps):
            h = torch.minimum(h, t - end)
            proposal, last_slope, error = self._attempt(model, z, t, slope, h)
            nfe[active] += 6
            _check_finite(error)
            accepted = error < 1.0
            factor = (SAFETY * error.clamp(min=1e-10) ** -0.2).clamp(SHRINK, GROW)
            factor = torch.where(~accepted | rejected, factor.clamp(max=1.0), factor)
            arrived = torch.where(t - h - end <= 1e-14, end, t - h)
            t, h, rejected = torch.where(accepted, arrived, t), h * factor, ~accepted
            z, slope = _select(accepted, proposal, z), _select(accepted, last_slope, slope)
            done = t <= end
            result[active[done]] = z[done.to(z.device)]
            left = ~done
            if not left.any():
                return result, nfe
            on_device = left.to(z.device)
            active, t, h, rejected = active[left], t[left], h[left], rejected[left]
            z, slope = z[on_device], slope[on_device]
        raise RuntimeError(f"{len(active)} samples need more than {self.max_steps} steps: loosen rtol = {self.rtol}.")

    def _attempt(
        self, model: ScoreModel, z: Tensor, t: Tensor, slope: Tensor, h: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One step of size h down from t: the new state, the slope there, and the error in units of the tolerance."""
        slopes = [slope]
        for node, weights in zip(C[1:], A[1:], strict=True):
            stage = z - _scale(h, _combine(weights, slopes))
            slopes.append(flow(model, stage, t - node * h))
        proposal = z - _scale(h, _combine(B, slopes))
        slopes.append(flow(model, proposal, t - h))
        tolerance = self.atol + self.rtol * torch.maximum(z.abs(), proposal.abs())
        return proposal, slopes[-1], self._size(_scale(h, _combine(E, slopes)) / tolerance)

    def _first_step(self, model: ScoreModel, z: Tensor, t: Tensor, slope: Tensor, end: float) -> Tensor:
        """A first step such that an explicit Euler step changes the solution little (Hairer et al., II.4)."""
        tolerance = self.atol + self.rtol * z.abs()
        size, rate = self._size(z / tolerance), self._size(slope / tolerance)
        trial = torch.where((size < 1e-5) | (rate < 1e-5), 1e-6, 0.01 * size / rate).clamp(max=float(t[0]) - end)
        change = flow(model, z - _scale(trial, slope), t - trial) - slope
        curvature = self._size(change / tolerance) / trial
        steepest = torch.maximum(rate, curvature)
        second = torch.where(steepest <= 1e-15, (1e-3 * trial).clamp(min=1e-6), (0.01 / steepest) ** 0.2)
        return torch.minimum(100.0 * trial, second)

    def _size(self, z: Tensor) -> Float[Tensor, " B"]:
        """Root-mean-square of each sample, or of all, in units of the tolerance."""
        size = z.flatten(1).square().mean(1).sqrt().double().cpu()
        return size if self.control == "sample" else size.square().mean().sqrt().expand_as(size)

    def __repr__(self) -> str:
        return f"RK45(rtol={self.rtol:g}, atol={self.atol:g}, control={self.control!r})"


def flow(model: ScoreModel, z: Float[Tensor, "B k *data"], t: Float[Tensor, " B"]) -> Float[Tensor, "B k *data"]:
    """dz/dt of the probability flow, in forward time."""
    process = model.process
    return mix(process.drift_rate(t), z) - mix(process.diffusion_rate(t), model(z, t).score)


def _check_finite(values: Tensor) -> None:
    if not values.isfinite().all():
        raise RuntimeError("the state is no longer finite: check the network, or sample with a smaller tolerance.")


def _combine(weights, slopes: list[Tensor]) -> Tensor:
    total = torch.zeros_like(slopes[0])
    for weight, slope in zip(weights, slopes, strict=True):
        if weight:
            total = total + weight * slope
    return total


def _scale(h: Float[Tensor, " B"], z: Tensor) -> Tensor:
    return h.to(z).reshape(-1, *[1] * (z.ndim - 1)) * z


def _select(choice: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(choice.to(yes.device).reshape(-1, *[1] * (yes.ndim - 1)), yes, no)
