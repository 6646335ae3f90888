"""Classifier guidance: the score plus the gradient of a noise-conditional classifier (Dhariwal & Nichol, 2021).

∇ log p_t(z | label) = ∇ log p_t(z) + ∇_z log p(label | z_t): with the exact classifier and scale 1, exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from psld.predictions import Prediction, ScoreModel
from psld.processes import Times

__all__ = ["ClassifierGuidance"]


class ClassifierGuidance(ScoreModel):
    """A model whose score is led towards a label by a classifier of the noisy state, at the same time t.

    Args:
        model: any model.
        classifier: logits (B, classes) of state (B, k, *data) and times (B,): differentiable in the state.
        label: the class, in 0 … classes − 1.
        scale: what the gradient is multiplied with; 1 is Bayes' rule, and 0 the model itself, bit for bit.

    Raises:
        ValueError: a negative label; at a call, a label the classifier does not have.
    """

    def __init__(
        self, model: ScoreModel, classifier: Callable[[Tensor, Tensor], Tensor], label: int, scale: float = 1.0
    ):
        if label < 0:
            raise ValueError(f"label must be at least 0: got {label}.")
        super().__init__(model.network, model.process, model.predicts, model.conditioning, model.jitter)
        self.model, self.classifier, self.label, self.scale = model, classifier, label, scale

    def tabulate(self, times: Float[Tensor, " n"]) -> ClassifierGuidance:
        return ClassifierGuidance(self.model.tabulate(times), self.classifier, self.label, self.scale)

    def __call__(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Prediction:
        prediction = self.model(z, t, **condition)
        if self.scale == 0.0:
            return prediction
        times = self.process.times(t).to(z.device, z.dtype).expand(len(z))
        with torch.enable_grad():
            state = z.detach().requires_grad_()
            logits = self.classifier(state, times)
            if self.label >= logits.shape[1]:
                raise ValueError(f"label must be in 0 … {logits.shape[1] - 1}, as the classifier: got {self.label}.")
            (gradient,) = torch.autograd.grad(logits.log_softmax(1)[:, self.label].sum(), state)
        return Prediction(z, prediction.kernel, score=prediction.score + self.scale * gradient)
