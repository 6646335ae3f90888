"""The images of one class, out of data with labels."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from psld.data.base import ImageData

__all__ = ["OneClass"]


class OneClass(ImageData):
    """Those images of a data set that have one label, in its order.

    Args:
        data: a data set with labels.
        label: the class.
        name: what messages call the data.

    Attributes:
        description: the class for people: "class 3", or "class 3 (cat)" where the data name it otherwise.

    Raises:
        ValueError: the data have no labels, or none of that label.
    """

    def __init__(self, data: ImageData, label: int, name: str = "the data set"):
        if data.labels is None:
            raise ValueError(
                f"{name} has no labels, so images of class {label} cannot be told from others. Data with labels: "
                "digits, MNIST, an .npz file with an array labels, a folder with a sub-folder a class."
            )
        own = (data.labels == label).nonzero().flatten()
        if not len(own):
            known = f"{int(data.labels.min())} … {int(data.labels.max())}"
            raise ValueError(f"{name} has no image of class {label}: its labels are {known}.")
        self.data, self.indices, self.labels = data, own.tolist(), data.labels[own]
        self.image_shape, self.classes = data.image_shape, data.classes
        called = data.classes[label] if label < len(data.classes) else str(label)
        self.description = f"class {label}" if called == str(label) else f"class {label} ({called})"

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Float[Tensor, "C H W"]:
        return self.data[self.indices[index]]

    def batch(self, indices: Sequence[int]) -> Float[Tensor, "B C H W"]:
        """The images of several indices, as the data read them."""
        return self.data.batch([self.indices[index] for index in indices])
