"""Whether a run still goes well: losses and gradient norms of an interval, looked at without stalling the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Interval", "TrainingDiverged"]


class TrainingDiverged(RuntimeError):  # noqa: N818 (it says what happened)
    """A loss, a gradient norm or a weight is not finite; the message names the step. No such weights are saved."""


class Interval:
    """(loss, gradient norm) of the steps since the last row of the log, kept on the device until they are asked for.

    Args:
        reduce: averages a tensor over the ranks, so that all of them come to the same verdict.
    """

    def __init__(self, reduce: Callable[[Tensor], Tensor]):
        self._reduce = reduce
        self._steps: list[int] = []
        self._values: list[Tensor] = []
        self._taken: list[bool] = []

    def add(self, step: int, loss: Float[Tensor, ""], gradient_norm: Float[Tensor, ""] | None) -> None:
        """Of a step that loss scaling skipped there is no norm, and that is no fault."""
        self._steps.append(step)
        self._values.append(torch.stack([loss, torch.zeros_like(loss) if gradient_norm is None else gradient_norm]))
        self._taken.append(gradient_norm is not None)

    def check(self, weights: Iterable[Tensor], advice: str) -> None:
        """Waits for the device and looks at every step of the interval, and at the weights they led to.

        Raises:
            TrainingDiverged: the message names the first bad step and ends in `advice`.
        """
        if not self._steps:
            return
        values = self._reduced()
        bad = (~values.isfinite()).any(dim=1).nonzero().flatten().tolist()
        if bad:
            loss, norm = values[bad[0]].tolist()
            raise TrainingDiverged(f"step {self._steps[bad[0]]}: loss {loss}, gradient norm {norm}. {advice}")
        finite = torch.stack([weight.isfinite().all() for weight in weights]).all()
        if float(self._reduce(finite.float())) < 1.0:  # of slices, each rank sees its own
            raise TrainingDiverged(f"after step {self._steps[-1]} some weights are not finite. {advice}")

    def close(self) -> tuple[float, float]:
        """Mean loss of the interval, and mean gradient norm of the steps that were taken; the next one starts."""
        losses, norms = self._reduced().unbind(dim=1)
        loss, norm = float(losses.mean()), float(norms[torch.tensor(self._taken)].mean())
        self._steps, self._values, self._taken = [], [], []
        return loss, norm

    def _reduced(self) -> Float[Tensor, "steps 2"]:
        return self._reduce(torch.stack(self._values)).cpu()
