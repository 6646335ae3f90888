"""What `psld stats` and `psld evaluate` share: the network of features, and data or their statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jsonargparse import ArgumentParser, Namespace

from psld.cli.arguments import data_name, open_data
from psld.cli.kinds import Several, Text
from psld.data import ImageData
from psld.data.one_class import OneClass
from psld.evaluation.features import FeatureExtractor, feature_extractor
from psld.evaluation.features.inception import PUBLISHED
from psld.evaluation.statistics import ImageStatistics, Measurement, is_statistics
from psld.jobs.evaluating import statistics_of

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["add_extractor_arguments", "chosen_extractor", "known_or_opened", "measured", "opened", "statistics_file"]


def add_extractor_arguments(options: ArgumentParser) -> None:
    """Which network the features come from."""
    options.add_argument(
        "--extractor",
        type=Text,
        default="auto",
        help="digits, mnist, efficientnet-lite0, inception, or with --trust a file: TorchScript .pt, .onnx, "
        ".safetensors; auto goes by the image shape, and takes efficientnet-lite0 for all but digits and MNIST unless "
        "weights of inception are named",
    )
    options.add_argument(
        "--extractor_weights",
        type=Text,
        default=None,
        help=f"of inception: file, or address; default {PUBLISHED.name}",
    )
    options.add_argument("--extractor_sha256", type=Text, default=None, help="what the file must hash to")
    options.add_argument(
        "--extractor_download",
        action="store_true",
        help="fetch the weights from their address, once: they are kept in ~/.cache/psld",
    )
    options.add_argument("--extractor_class", type=Text, default=None, help="of .safetensors: my_package.MyNetwork")
    options.add_argument("--keep", type=Several, default=10_000, help="features kept of each set, for all but moments")


def chosen_extractor(config: Namespace, shape: tuple[int, ...], fabric: Fabric) -> FeatureExtractor:
    """The network that the options name, on the device of this process."""
    weights = (config.extractor_weights, config.extractor_sha256, config.extractor_class)
    extractor = feature_extractor(config.extractor, shape, *weights, config.extractor_download, config.trust)
    return extractor.to(fabric.device)


def statistics_file(source: str | Namespace | None) -> str | None:
    """The file, if an option names statistics of `psld stats` and not images."""
    return source if isinstance(source, str) and is_statistics(source) else None


def opened(source: str | Namespace, shape: tuple[int, ...] | None, label: int | None) -> tuple[ImageData, str]:
    """Images, of a class only where a label is given, and what they are called."""
    images, name = open_data(source, shape, "samples are", labelled=label is not None), data_name(source)
    if label is None:
        return images, name
    chosen = OneClass(images, label, name)
    return chosen, f"{name}, {chosen.description}"


def known_or_opened(
    source: str | Namespace, shape: tuple[int, ...], extractor: FeatureExtractor, label: int | None
) -> ImageStatistics | tuple[ImageData, str]:
    """Statistics from their file, or images to measure, which must be of that shape, and what they are called."""
    file = statistics_file(source)
    if file is None:
        return opened(source, shape, label)
    known = ImageStatistics.load(file)
    known.require_comparable(Measurement(extractor.identity, extractor.convention, shape))
    return known


def measured(
    data: ImageStatistics | tuple[ImageData, str], config: Namespace, extractor: FeatureExtractor, fabric: Fabric
) -> ImageStatistics:
    """The statistics of what `known_or_opened` returns."""
    if isinstance(data, ImageStatistics):
        return data
    images, name = data
    return statistics_of(images, range(len(images)), extractor, config.keep, config.batch_size, fabric, name)
