"""The loss of a noise-conditional classifier."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import cross_entropy

from psld.losses.objective import Objective
from psld.model import ScoreModel, in_own_precision
from psld.noise import Generators, standard_normal

__all__ = ["CrossEntropy"]


class CrossEntropy(Objective):
    """−log p(label | z_t) of a classifier, with z_t given x₀ as in HSM.

    Its gradient in z_t is what `psld.guidance.classifier_guidance.ClassifierGuidance` adds to a score, so it
    is trained on the states that a sampler meets: all k variables, at every time (Dhariwal & Nichol, 2021, §4; in phase
    space Pandey & Mandt, 2023).
    """

    asks_for_labels = True

    def __call__(
        self,
        model: ScoreModel,
        x0: Float[Tensor, "B *data"],
        t: Float[Tensor, " B"],
        generator: Generators = None,
        label: Int64[Tensor, " B"] | None = None,
        **condition: Any,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample at its time t, in nats.

        Args:
            model: network(z, t) → logits (B, classes), with its process and jitter; what it `predicts` is not read.
            x0: data.
            t: a time in (0, T] for each.
            generator: where the noise comes from: one for all, or one a sample.
            label: the class of each sample.
            condition: what the classifier is told besides.

        Raises:
            ValueError: no labels, or the network returns something else than logits.
        """
        if label is None:
            raise ValueError("CrossEntropy needs the label of every sample: give label=.")
        kernel = model.process.marginal(t, "hsm", model.jitter)
        noise = standard_normal((len(x0), model.process.k, *x0.shape[1:]), generator, x0.dtype).to(x0.device)
        z_t = kernel.sample(model.process.lift(x0), noise)
        logits = in_own_precision(model.network, z_t, t, **condition)
        if logits.ndim != 2 or len(logits) != len(x0):
            raise ValueError(
                f"a classifier must return logits ({len(x0)}, classes) for {len(x0)} states: got "
                f"{tuple(logits.shape)}. psld.networks.NoiseClassifier does."
            )
        return cross_entropy(logits.to(x0.dtype), label, reduction="none")
