"""Whether a run still goes well: losses and gradient norms of an interval, looked at without stalling the device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["Interval", "TrainingDiverged"]


class TrainingDiverged(RuntimeError):  # noqa: N818 (it says what happened)
    """A loss, a gradient norm or a weight is not finite; the message names the step. No such weights are saved."""


class Interval:
    """(loss, gradient norm) of the steps since the last row of the log, kept on the device until they are asked for.

    A checkpoint keeps them (`state`), so that the first row after a resume is that of a run that did not stop.

    Args:
        reduce: averages a tensor over the ranks, so that all of them come to the same verdict.
    """

    def __init__(self, reduce: Callable[[Tensor], Tensor]):
        self._reduce = reduce
        self._steps: list[int] = []
        self._values: list[Tensor] = []
        self._taken: list[bool] = []

    def add(self, step: int, loss: Float[Tensor, ""], gradient_norm: Float[Tensor, ""] | None) -> None:
        """Steps skipped by the loss scaler have no gradient norm; this is expected."""
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

    def means(self) -> tuple[float, float]:
        """Mean loss of the interval so far, and mean gradient norm of the steps that were taken."""
        losses, norms = self._reduced().unbind(dim=1)
        return float(losses.mean()), float(norms[torch.tensor(self._taken)].mean())

    def close(self) -> None:
        """The next one starts."""
        self._steps, self._values, self._taken = [], [], []

    def __len__(self) -> int:
        return len(self._steps)

    def state(self, of_all_ranks: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """For a checkpoint. Every rank must call it.

        Args:
            of_all_ranks: (ranks, …) on the CPU, of a tensor of every rank.
        """
        if not self._steps:
            return {}
        return {
            "steps": list(self._steps),
            "taken": list(self._taken),
            "values": of_all_ranks(torch.stack(self._values)),
        }

    def restore(self, state: Mapping[str, Any], rank: int, device: torch.device) -> None:
        """Goes on from what `state` returned; {} is an interval that has just begun."""
        self._steps, self._taken = list(state.get("steps", [])), list(state.get("taken", []))
        self._values = list(state["values"][rank].to(device)) if state else []

    def _reduced(self) -> Float[Tensor, "steps 2"]:
        return self._reduce(torch.stack(self._values)).cpu()
