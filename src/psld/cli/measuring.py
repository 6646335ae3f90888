"""What `psld stats` and `psld evaluate` share: the network of features, and images by the batch, in shares."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser
from torch import Tensor

from psld.data import ImageData
from psld.evaluation.features import FeatureExtractor, feature_extractor
from psld.evaluation.statistics import ImageStatistics, measured
from psld.jobs import own_share

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["add_extractor_arguments", "chosen_extractor", "statistics_of"]


def add_extractor_arguments(options: ArgumentParser) -> None:
    """Which network the features come from."""
    options.add_argument(
        "--extractor",
        type=str,
        default="auto",
        help="digits, mnist, inception, or a file: TorchScript .pt, .onnx, .safetensors; auto goes by the image shape",
    )
    options.add_argument("--extractor_weights", type=str, default=None, help="of inception: file, or address")
    options.add_argument("--extractor_sha256", type=str, default=None, help="what the file must hash to")
    options.add_argument("--extractor_class", type=str, default=None, help="of .safetensors: my_package.MyNetwork")
    options.add_argument("--keep", type=int, default=10_000, help="features kept of each set, for all but moments")


def chosen_extractor(config, shape: tuple[int, ...], fabric: Fabric) -> FeatureExtractor:
    """The network that the options name, on the device of this process."""
    weights = (config.extractor_weights, config.extractor_sha256, config.extractor_class)
    return feature_extractor(config.extractor, shape, *weights).to(fabric.device)


def statistics_of(
    data: ImageData, count: int, extractor: FeatureExtractor, config, fabric: Fabric, source: str
) -> ImageStatistics:
    """Of the first `count` images of data; each process reads every so many-th."""
    own = own_share(count, set(), fabric.global_rank, fabric.world_size)
    batches = _read(data, own, config.batch_size, fabric, source)
    return measured(batches, own, count, extractor, config.keep, fabric, source)


def _read(data: ImageData, indices: Sequence[int], batch_size: int, fabric: Fabric, source: str) -> Iterator[Tensor]:
    from tqdm import tqdm

    with tqdm(total=len(indices), unit="img", disable=None, desc=source) as bar:
        for start in range(0, len(indices), batch_size):
            batch = data.batch(indices[start : start + batch_size])
            yield batch.to(fabric.device)
            bar.update(len(batch))
