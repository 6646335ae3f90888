"""One loader for every data set: workers, pinned memory, labels; in an order that a resumed run continues."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol, cast, overload, runtime_checkable

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from psld.data.base import ImageData
from psld.data.order import ShuffledBatches, derived_seed

__all__ = ["TrainingData", "loader"]


@runtime_checkable
class TrainingData(Protocol):
    """A finite map-style data set of tensors of one shape, e.g. any psld.data.ImageData."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@overload
def loader(
    data: TrainingData,
    batches: ShuffledBatches,
    num_workers: int = 0,
    pin_memory: bool = False,
    labels: Literal[False] = False,
    worker_init: Callable[[int], None] | None = None,
) -> Iterable[Tensor]: ...


@overload
def loader(
    data: ImageData,
    batches: ShuffledBatches,
    num_workers: int = 0,
    pin_memory: bool = False,
    *,
    labels: Literal[True],
    worker_init: Callable[[int], None] | None = None,
) -> Iterable[tuple[Tensor, Tensor]]: ...


def loader(
    data: TrainingData,
    batches: ShuffledBatches,
    num_workers: int = 0,
    pin_memory: bool = False,
    labels: bool = False,
    worker_init: Callable[[int], None] | None = None,
) -> Iterable[Tensor] | Iterable[tuple[Tensor, Tensor]]:
    """Batches of a data set, one for each step of `batches`, in its order whatever the number of workers.

    The order is a function of (seed, step), nothing is tossed while reading, and no global random state is touched: a
    loader that starts at step n gives, bit for bit, what one from step 0 gives from its n-th batch on.

    Args:
        data: mirror images, if wanted, are items of it (`flip=True`).
        batches: which items each step takes.
        num_workers: processes that read ahead; 0 reads in this one.
        pin_memory: page-locked batches, from which copies to a GPU run beside its work.
        labels: give (images (B, C, H, W) float32, labels (B,) int64) instead of images alone.
        worker_init: called with its number in each worker as it starts.

    Raises:
        ValueError: labels are asked for and the data have none, or `batches` are of a set of another length.
    """
    if batches.length != len(data):
        raise ValueError(f"batches are of {batches.length} items and the data have {len(data)}: they must agree.")
    if not labels:
        items = _Batches(data)
    elif isinstance(data, ImageData) and data.labels is not None:
        items = _Batches(data, data.labels)
    else:
        raise ValueError(f"{type(data).__name__} has no labels here: leave labels=False.")
    # A generator of its own: else the loader draws from the global one, and a resumed run would draw once more.
    generator = torch.Generator().manual_seed(derived_seed(batches.seed, "workers"))
    return DataLoader(
        cast("Dataset[Any]", items),
        batch_sampler=batches,
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=_as_read,
        generator=generator,
        worker_init_fn=worker_init,
    )


class _Batches:
    """The data by whole batches: DataLoader hands `__getitems__` the indices of one, and leaves alone what it gets."""

    def __init__(self, data: TrainingData, labels: Tensor | None = None):
        self._data, self._labels = data, labels

    def __len__(self) -> int:
        return len(self._data)

    def __getitems__(self, indices: list[int]) -> Tensor | tuple[Tensor, Tensor]:
        data = self._data
        images = data.batch(indices) if isinstance(data, ImageData) else torch.stack([data[index] for index in indices])
        return images if self._labels is None else (images, self._labels[torch.tensor(indices)])


def _as_read(batch: Any) -> Any:
    return batch
