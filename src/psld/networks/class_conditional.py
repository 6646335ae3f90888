"""Networks that can be told a class label: what they must have, and the null class that stands for no label.

A network with n classes has n + 1 rows of embedding. The last, number n, is the null class: label dropout trains it,
and classifier-free guidance asks for it (Ho & Salimans, 2022, arXiv 2207.12598).
"""

from __future__ import annotations

from typing import Protocol, TypeGuard, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

__all__ = ["ClassConditional", "is_class_conditional", "null_class_for_none"]


@runtime_checkable
class ClassConditional(Protocol):
    """A network that takes label=, one class a sample.

    Attributes:
        classes: how many labels there are; `classes` itself is the null class, for no label.
    """

    classes: int

    def __call__(
        self, z: Float[Tensor, "B *shape"], t: Float[Tensor, " B"], *, label: Int64[Tensor, " B"] | None = None
    ) -> Float[Tensor, "B *out_shape"]:
        """What the network predicts for a state, a time and a label; None is the null class."""
        ...


def is_class_conditional(network: object) -> TypeGuard[ClassConditional]:
    """Whether the network can be told a label: whether its `classes` is a number.

    An attribute alone says nothing: a network of this library that is built without labels has classes = None.
    """
    return isinstance(getattr(network, "classes", None), int)


def null_class_for_none(
    label: Int64[Tensor, " B"] | None, t: Float[Tensor, " B"], classes: int | None
) -> Int64[Tensor, " B"] | None:
    """The label of every sample, the null class where none is given; None for a network without classes.

    Raises:
        ValueError: a label for a network without classes, or not one a sample.
    """
    if classes is None:
        if label is not None:
            raise ValueError(
                "a label was given to a network without classes: build it with classes=…, the number of labels."
            )
        return None
    if label is None:
        return torch.full(t.shape, classes, device=t.device)
    if label.shape != t.shape:
        raise ValueError(f"label must be one a sample, shape {tuple(t.shape)}: got {tuple(label.shape)}.")
    return label
