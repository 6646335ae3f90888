"""Classifier-free guidance: a conditional and an unconditional prediction, extrapolated (Ho & Salimans, 2022).

    score = score(z_t | null) + w (score(z_t | label) − score(z_t | null))

w = 0 is the unconditional model, w = 1 the conditional one; Ho & Salimans write w − 1 for the scale. The guidance may
be confined to an interval of time (Kynkäänniemi et al., 2024) and w may depend on t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from psld.kernels import per_sample
from psld.model import Model, ModelWrapper, Prediction
from psld.processes import Times
from psld.specs.arguments import checked, finite, whole

__all__ = ["ClassifierFreeGuidance"]


class ClassifierFreeGuidance(ModelWrapper):
    """A class-conditional model, guided towards a label.

    The model is called with `label=` a tensor (B,) of int64. Where every w of a call is 0 only the null class is
    called, where every w is 1 only the label. The label is decided, so the guided model itself takes none.

    Args:
        model: a model whose network takes the keyword `label`.
        label: the class, in 0 … null − 1.
        scale: w, a number, or a function of the times (B,) that returns (B,).
        null: the null class: the number of classes, as label dropout trains it.
        interval: (low, high): outside low ≤ t ≤ high, w is 1, the conditional model unguided. None: everywhere.

    Raises:
        ValueError: a label out of range, or an interval that is empty.
    """

    @checked
    def __init__(
        self,
        model: Model,
        label: int,
        null: int,
        scale: float | Callable[[Tensor], Tensor] = 1.0,
        interval: tuple[float, float] | None = None,
    ):
        whole("null", null)
        if not 0 <= label < null:
            raise ValueError(f"label must be in 0 … {null - 1}: got {label}.")
        if not callable(scale):
            finite("scale", scale)
        if interval is not None and not (len(interval) == 2 and interval[0] < interval[1]):
            raise ValueError(f"interval must be (low, high) with low below high: got {interval}.")
        super().__init__(model)
        self.label, self.null, self.scale, self.interval = label, null, scale, interval
        self.classes = None

    def weights(self, t: Float[Tensor, " B"]) -> Float[Tensor, " B"]:
        """w at these times."""
        w = self.scale(t) if callable(self.scale) else torch.full_like(t, self.scale)
        if self.interval is None:
            return w
        low, high = self.interval
        return torch.where((t >= low) & (t <= high), w, torch.ones_like(w))

    def __call__(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Prediction:
        def labelled(label: int) -> Prediction:
            labels = torch.full((len(z),), label, device=z.device)
            return self.model(z, t, **condition, label=labels)

        w = self.weights(self.process.times(t).to(z.device, z.dtype).expand(len(z)))
        if (w == 0.0).all():
            return labelled(self.null)
        if (w == 1.0).all():
            return labelled(self.label)
        base, conditional = labelled(self.null), labelled(self.label)
        difference = conditional.score - base.score
        return Prediction(z, base.kernel, score=base.score + per_sample(w, z) * difference)
