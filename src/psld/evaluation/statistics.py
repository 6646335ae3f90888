"""What a set of images is compared by: the moments of its features, some of the features, and its class probabilities.

Images arrive in batches and are let go; what stays does not grow with their number. Statistics can be written to a file
and compared with later; features of different networks, or of images of different shapes, are never compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from psld.evaluation.features import FeatureExtractor
from psld.evaluation.metrics.inception_score import InceptionScore
from psld.evaluation.metrics.moments import Moments
from psld.files import UnreadableFileError, atomic_file, parse_json
from psld.files.arrays import array_names, read_arrays
from psld.files.reading import said

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["CONFIDENT", "ImageStatistics", "Measurement", "is_statistics", "kept_indices", "measured"]

CONFIDENT = 0.9  # a classifier whose largest probability is above this is sure of what it sees


@dataclass(frozen=True)
class Measurement:
    """How images were turned into features: equal, or not to be compared.

    Attributes:
        extractor: identity of the network.
        convention: what happened to the pixels.
        image_shape: (C, H, W).
    """

    extractor: str
    convention: str
    image_shape: tuple[int, ...]


@dataclass(frozen=True)
class ImageStatistics:
    """What is known of a set of images.

    Attributes:
        measurement: how features were made.
        moments: of all features.
        features: of some images, evenly spread over the set, for distances that need the features themselves.
        inception_score: mean and standard deviation over ten parts; None without a classifier.
        confident: share, in [0, 1], of images whose largest class probability exceeds `CONFIDENT`; None without one.
        source: where the images came from, for people.
    """

    measurement: Measurement
    moments: Moments
    features: Float[Tensor, "kept d"]
    inception_score: tuple[float, float] | None = None
    confident: float | None = None
    source: str = ""

    def require_comparable(self, other: Measurement) -> None:
        """Raises ValueError where the features of the other were made in another way, saying how they differ."""
        own, theirs = asdict(self.measurement), asdict(other)
        differ = [f"{name} is {own[name]} there and {theirs[name]} here" for name in own if own[name] != theirs[name]]
        if differ:
            raise ValueError(f"the statistics of {self.source or 'the data'} do not fit: {'; '.join(differ)}.")

    def save(self, file: str | Path) -> None:
        """One .npz, whole or not there, with a SHA-256 of its content in it."""
        about = asdict(self.measurement) | {
            "source": self.source,
            "inception_score": self.inception_score,
            "confident": self.confident,
        }
        arrays = {
            "count": np.asarray(self.moments.count),
            "mean": self.moments.mean.numpy(),
            "covariance": self.moments.covariance.numpy(),
            "features": self.features.numpy(),
            "about": np.asarray(json.dumps(about)),
        }
        with atomic_file(file) as stream:
            digest = np.asarray(_content_sha256(arrays))
            np.savez(stream, sha256=digest, **arrays)  # pyright: ignore[reportArgumentType]

    @classmethod
    def load(cls, file: str | Path) -> ImageStatistics:
        """What `save` wrote, compared with the SHA-256 in it; files of older versions have none.

        Raises:
            UnreadableFileError: another file, or one that is broken or has changed.
            FileNotFoundError: there is none.
        """
        if not Path(file).exists():
            raise FileNotFoundError(f"no file {file}: psld stats writes one.")
        wrong = f"{file} does not hold statistics that psld stats wrote, or is broken"
        try:
            known = read_arrays(file, *ARRAYS, optional=("sha256",))
            digest = known.pop("sha256", None)
            if digest is not None and str(digest) != _content_sha256(known):
                raise UnreadableFileError(f"{wrong}: its content has changed since it was written.")
            about = parse_json(str(known["about"]), f"the array 'about' of {file}", nan=True)
        except UnreadableFileError as error:
            raise UnreadableFileError(f"{wrong}: {said(error)}.") from error
        if problem := _problem(known) or _problem_of(about):
            raise UnreadableFileError(f"{wrong}: {problem}.")
        tensors = {name: torch.from_numpy(known[name]) for name in ("mean", "covariance", "features")}
        count, score = int(known["count"]), about["inception_score"]
        return cls(
            Measurement(about["extractor"], about["convention"], tuple(about["image_shape"])),
            Moments(count, tensors["mean"], tensors["covariance"] * (count - 1)),
            tensors["features"],
            None if score is None else (score[0], score[1]),
            about["confident"],
            about["source"],
        )


ARRAYS = ("count", "mean", "covariance", "features", "about")


def _problem(arrays: Mapping[str, np.ndarray]) -> str:
    """What is wrong with types and shapes, in words; empty if nothing is."""
    count, mean, covariance, features, about = (arrays[name] for name in ARRAYS)
    if count.shape != () or count.dtype.kind not in "iu" or not 2 <= int(count) < 2**53:
        return "count must be one whole number, at least 2"
    if about.shape != () or about.dtype.kind != "U":
        return "about must be one text"
    for name in ("mean", "covariance", "features"):
        if arrays[name].dtype.str not in ("<f8", "<f4"):
            return f"{name} must be float32 or float64, and is {arrays[name].dtype}"
    if mean.ndim != 1 or covariance.shape != 2 * mean.shape or features.ndim != 2 or features.shape[1:] != mean.shape:
        shapes = f"{mean.shape}, {covariance.shape} and {features.shape}"
        return f"mean (d,), covariance (d, d) and features (kept, d) are needed, and it has {shapes}"
    return ""


def _problem_of(about: Mapping[str, Any]) -> str:
    """The same of the text that says how features were made."""
    if not all(isinstance(about.get(name), str) for name in ("extractor", "convention", "source")):
        return "it does not say extractor, convention and source"
    shape = about.get("image_shape")
    if not (isinstance(shape, list) and len(shape) == 3 and all(type(n) is int and n > 0 for n in shape)):
        return "image_shape must be the (C, H, W) of an image"
    score, confident = about.get("inception_score"), about.get("confident")
    pair = score is None or (isinstance(score, list) and len(score) == 2 and all(type(n) is float for n in score))
    if not pair or not (confident is None or type(confident) is float):
        return "inception_score must be two numbers and confident one, or null"
    return ""


def _content_sha256(arrays: Mapping[str, np.ndarray]) -> str:
    """A hash of names, types, shapes and numbers, whatever way the file packs them."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def is_statistics(file: str | Path) -> bool:
    """Whether it is a file of statistics, and not of images."""
    try:
        return "covariance" in array_names(file)
    except (UnreadableFileError, OSError):  # whoever reads it as something else says what is wrong
        return False


def kept_indices(count: int, keep: int) -> set[int]:
    """At most `keep` of 0 … count − 1, evenly spread: data are often sorted by class."""
    return set(range(count)) if keep >= count else {i * count // keep for i in range(keep)}


def measured(
    batches: Iterable[Float[Tensor, "_ C H W"]],
    indices: Sequence[int],
    count: int,
    extractor: FeatureExtractor,
    keep: int = 10_000,
    fabric: Fabric | None = None,
    source: str = "",
) -> ImageStatistics:
    """Statistics of images that arrive in batches.

    Args:
        batches: of images in [−1, 1].
        indices: the position in the whole set of each image of this process, in the order of the batches.
        count: of the whole set, over all processes.
        extractor: of features, on the device of the images.
        keep: how many features are kept, of the whole set.
        fabric: of several processes, each of which brings its images; all of them get the statistics of all. They do
            not depend on the number of processes, but for rounding.
        source: for people.

    Raises:
        ValueError: fewer than two images in all, another number of images than indices, or images that the extractor
            does not take.
    """
    if count < 2:
        raise ValueError(f"statistics need at least 2 images: {source or 'there'} has {count}.")
    wanted, place = kept_indices(count, keep), 0
    partial: _Partial | None = None
    for images in batches:
        own = list(indices[place : place + len(images)])
        place += len(images)
        features, logits = extractor(images)
        if partial is None:
            partial = _Partial(features.shape[1], 0 if logits is None else logits.shape[1], tuple(images.shape[1:]))
        partial.add(own, features, logits, [row for row, index in enumerate(own) if index in wanted])
    if place != len(indices) or partial is None:
        raise ValueError(f"{len(indices)} images were announced and {place} came.")
    if fabric is not None and fabric.world_size > 1:
        partial.combine(fabric)
    measurement = Measurement(extractor.identity, extractor.convention, partial.shape)
    return partial.finished(measurement, source)


class _Partial:
    """Running sums, of this process until they are combined."""

    def __init__(self, dimension: int, classes: int, shape: tuple[int, ...]):
        self.moments, self.shape = Moments.none(dimension), shape
        self.score = InceptionScore(classes) if classes else None
        self.confident = torch.zeros((), dtype=torch.float64)
        self.positions: list[int] = []
        self.kept: list[Tensor] = []

    def add(self, indices: list[int], features: Tensor, logits: Tensor | None, kept: list[int]) -> None:
        self.moments = self.moments + Moments.of(features)
        self.kept.append(features[kept].float())
        self.positions += [indices[row] for row in kept]
        if logits is not None and self.score is not None:
            self.score.add(logits, torch.tensor(indices))
            self.confident += (logits.softmax(1).amax(1) > CONFIDENT).sum()

    def combine(self, fabric: Fabric) -> None:
        """Sums over the processes, in their order."""
        from psld.distributed import of_all_ranks

        own = self.moments
        counts = of_all_ranks(fabric, torch.tensor([own.count, len(self.positions)])).tolist()
        means, scatters = of_all_ranks(fabric, own.mean), of_all_ranks(fabric, own.scatter)
        parts = [Moments(int(c[0]), m, s) for c, m, s in zip(counts, means, scatters, strict=True)]
        self.moments = sum(parts[1:], parts[0])
        longest = max(int(count[1]) for count in counts)
        kept, positions = torch.zeros(longest, len(own.mean)), torch.zeros(longest, dtype=torch.int64)
        kept[: len(self.positions)], positions[: len(self.positions)] = (
            torch.cat(self.kept),
            torch.tensor(self.positions),
        )
        all_kept, all_positions = of_all_ranks(fabric, kept), of_all_ranks(fabric, positions)
        self.kept = [rows[: int(count[1])] for rows, count in zip(all_kept, counts, strict=True)]
        self.positions = [
            index for row, count in zip(all_positions.tolist(), counts, strict=True) for index in row[: int(count[1])]
        ]
        self.confident = of_all_ranks(fabric, self.confident).sum()
        if self.score is not None:
            self.score.sums = of_all_ranks(fabric, self.score.sums).sum(0)

    def finished(self, measurement: Measurement, source: str) -> ImageStatistics:
        order = torch.tensor(self.positions, dtype=torch.int64).argsort()
        features = torch.cat(self.kept)[order]
        if self.score is None:
            return ImageStatistics(measurement, self.moments, features, source=source)
        confident = float(self.confident) / self.moments.count
        return ImageStatistics(measurement, self.moments, features, self.score.result(), confident, source)
