"""The contract of what training minimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from jaxtyping import Float
from torch import Tensor

from psld.model import ScoreModel
from psld.noise import Generators
from psld.specs import SpecifiedValue

__all__ = ["Objective"]


class Objective(SpecifiedValue, ABC):
    """What training minimises: one number a sample.

    Attributes:
        asks_for_labels: whether it cannot do without label=, whatever the network is told.
    """

    asks_for_labels: ClassVar[bool] = False

    @abstractmethod
    def __call__(
        self,
        model: ScoreModel,
        x0: Float[Tensor, "B *data"],
        t: Float[Tensor, " B"],
        generator: Generators = None,
        **condition: Any,
    ) -> Float[Tensor, " B"]:
        """The loss of each sample; noise comes from the generators: one for all, or one a sample.

        `condition` goes to the model: label=, (B,) int64, where the network is told labels.
        """
