"""Classifier guidance: the score plus the gradient of a noise-conditional classifier (Dhariwal & Nichol, 2021).

    ∇ log p_t(z | label) = ∇ log p_t(z) + ∇_z log p(label | z_t)

With the exact classifier and scale 1 this is Bayes' rule, exact at every t. There are two ways to make a classifier
more or less decided, and they differ:

    scale s          s ∇ log p(label | z)          of p(label | z)^s, not normalised (Dhariwal & Nichol, 2021, §4.3)
    temperature T    ∇ log softmax(logits / T)     of p(label | z)^(1/T), normalised over the labels (Guo et al., 2017)

A scale multiplies a gradient, and where the classifier is sure there is none to multiply. A temperature above 1 takes
the classifier's certainty back, so that a gradient is left.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from psld.model import Model, ModelWrapper, Prediction, in_own_precision
from psld.processes import LinearProcess, Times
from psld.specs.arguments import checked, finite, positive, whole

__all__ = ["ClassifierGuidance"]


class ClassifierGuidance(ModelWrapper):
    """A model whose score is led towards a label by a classifier of the noisy state, at the same time t.

    Args:
        model: any model.
        classifier: logits (B, classes) of state (B, k, *data) and times (B,): differentiable in the state. A module
            runs in the precision of its weights.
        label: the class, in 0 … classes − 1.
        scale: what the gradient is multiplied with; 1 is Bayes' rule, and 0 the model itself, bit for bit.
        temperature: T > 0 that logits are divided by; 1 is the classifier as it was trained.
        process: that the classifier was trained under, where it is known: it has to be the model's.

    Raises:
        ValueError: a scale that is not finite, a temperature that is not positive, a classifier of another process, or
            a label that the classifier does not have (at the first call, if it does not say its number of `classes`).
    """

    @checked
    def __init__(
        self,
        model: Model,
        classifier: Callable[[Tensor, Tensor], Tensor],
        label: int,
        scale: float = 1.0,
        temperature: float = 1.0,
        process: LinearProcess | None = None,
    ):
        finite("scale", scale)
        positive("temperature", temperature)
        classes = getattr(classifier, "classes", None)
        if classes is None:
            whole("label", label, least=0)
        if process is not None and not process.same_marginals(model.process):
            raise ValueError(
                f"the classifier was trained on states of {process!r}, and the model is of {model.process!r}: a "
                "classifier guides models of its own process only."
            )
        super().__init__(model)
        self.classifier, self.label = classifier, label
        self.scale, self.temperature = scale, temperature
        self._require_label(classes)

    def __call__(self, z: Float[Tensor, "B k *data"], t: Times, **condition: Any) -> Prediction:
        prediction = self.model(z, t, **condition)
        if self.scale == 0.0:
            return prediction
        return Prediction(z, prediction.kernel, score=prediction.score + self.scale * self.gradient(z, t))

    def gradient(self, z: Float[Tensor, "B k *data"], t: Times) -> Float[Tensor, "B k *data"]:
        """∇_z log softmax(logits / T) of the label."""
        with torch.enable_grad():
            state = z.detach().requires_grad_()
            logits = in_own_precision(self.classifier, state, self.process.times(t))
            self._require_label(logits.shape[1])
            chosen = (logits / self.temperature).log_softmax(1)[:, self.label]
            (gradient,) = torch.autograd.grad(chosen.sum(), state)
        return gradient

    def _require_label(self, classes: int | None) -> None:
        if self.label < 0 or (classes is not None and self.label >= classes):
            known = "at least 0" if classes is None else f"in 0 … {classes - 1}, as the classifier has them"
            raise ValueError(f"label must be {known}: got {self.label}.")
