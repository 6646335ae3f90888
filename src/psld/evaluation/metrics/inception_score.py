"""The Inception Score (Salimans et al., 2016), of class probabilities that arrive in batches and are not kept.

    IS = exp( E_x KL(p(y|x) ‖ p(y)) ) = exp( E_x Σ_y p log p − Σ_y p̄ log p̄ ),     p̄ = E_x p(y|x),

in [1, classes], as mean and standard deviation over ten parts. Two running sums a part are all it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from psld.evaluation.metrics.metric import Metric
from psld.specs.arguments import MOST_CLASSES, whole

if TYPE_CHECKING:
    from psld.evaluation.statistics import ImageStatistics

__all__ = ["ClassifierScore", "InceptionScore"]


class ClassifierScore(Metric):
    """The score of samples and of data, and the share of each of which the classifier is confident."""

    name = "classifier score"
    needs = frozenset({"logits"})
    with_inception = {f"classifier score of {of}": f"Inception Score of {of}" for of in ("samples", "data")}

    def __call__(self, samples: ImageStatistics, data: ImageStatistics) -> dict[str, Any]:
        figures: dict[str, Any] = {}
        for name, of in (("samples", samples), ("data", data)):
            assert of.inception_score is not None  # `needs` says so
            figures[f"classifier score of {name}"] = dict(zip(("mean", "std"), of.inception_score, strict=True))
            figures[f"confident share of {name}"] = of.confident
        return figures


class InceptionScore:
    """Image i belongs to part i mod `parts`, so the score does not depend on batches or devices.

    Args:
        classes: of the classifier.
        parts: of the images.
    """

    def __init__(self, classes: int, parts: int = 10):
        whole("classes", classes, most=MOST_CLASSES)
        whole("parts", parts, most=MOST_CLASSES)
        self.sums: Float[Tensor, "parts columns"] = torch.zeros(parts, classes + 2, dtype=torch.float64)

    def add(self, logits: Float[Tensor, "n classes"], indices: Int[Tensor, " n"]) -> None:
        """Count in images, with their positions in the whole set."""
        log_p = logits.double().log_softmax(1)
        p = log_p.exp()
        negentropy = (p * log_p).sum(1, keepdim=True)
        self.sums.index_add_(0, indices % len(self.sums), torch.cat([torch.ones_like(negentropy), negentropy, p], 1))

    def result(self) -> tuple[float, float]:
        """Mean and standard deviation over the parts that have images; the latter is 0 where there is one."""
        sums = self.sums[self.sums[:, 0] > 0]
        means = sums[:, 1:] / sums[:, :1]
        marginal = means[:, 1:]
        scores = (means[:, 0] - torch.special.xlogy(marginal, marginal).sum(1)).exp()
        return float(scores.mean()), float(scores.std()) if len(scores) > 1 else 0.0
