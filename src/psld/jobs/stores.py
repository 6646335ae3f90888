"""Where samples are kept while they are drawn, so that a job that was killed goes on with those that are missing."""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from psld.files import UnreadableFileError, atomic_file
from psld.files.arrays import read_arrays
from psld.plots.pictures import from_bytes, load_images, save_image, to_bytes

__all__ = ["Arrays", "Pictures", "own_share"]


def own_share(count: int, present: set[int], rank: int, ranks: int) -> list[int]:
    """What a process has to draw of images 0 … count − 1: every `ranks`-th, where it is not there yet.

    Each process writes its own images only, so it does not matter when it looks which are there.
    """
    return [i for i in range(rank, count, ranks) if i not in present]


class Pictures:
    """Samples as OUT/images/000000.png …, each there as soon as it is drawn.

    With several draws an image, sample i is draw i % draws of image i // draws, and its name says both: 000000-0.png.
    """

    def __init__(self, out: Path, draws: int = 1):
        self.folder, self.draws = out / "images", draws

    def path(self, i: int) -> Path:
        """The file of sample i."""
        image, draw = divmod(i, self.draws)
        return self.folder / (f"{image:06d}.png" if self.draws == 1 else f"{image:06d}-{draw}.png")

    def present(self) -> set[int]:
        """Which samples are there."""
        name = r"(\d{6,})()" if self.draws == 1 else r"(\d{6,})-(\d+)"
        found = (re.fullmatch(name, path.stem) for path in self.folder.glob("*.png"))
        return {int(match[1]) * self.draws + int(match[2] or 0) for match in found if match}

    def add(self, indices: Sequence[int], images: Float[Tensor, "n C H W"]) -> None:
        """Writes samples, in [−1, 1]."""
        for i, image in zip(indices, images, strict=True):
            save_image(image, self.path(i))

    def first(self, count: int) -> Float[Tensor, "n C H W"]:
        """The first samples, as 8 bits have kept them, in [−1, 1]."""
        return load_images([self.path(i) for i in range(count)])

    def finish(self, seed: int) -> None:
        """Nothing is left to do."""


class Arrays:
    """Samples as OUT/samples.npz; until all are there, a file a batch in OUT/parts."""

    draws = 1

    def __init__(self, out: Path):
        self.path, self.parts = out / "samples.npz", out / "parts"

    def present(self) -> set[int]:
        """Which samples are there."""
        known = set(range(len(self._read(self.path, "seeds")["images"]))) if self.path.exists() else set()
        return known.union(*(self._read(part, "indices")["indices"].tolist() for part in self.parts.glob("*.npz")))

    def add(self, indices: Sequence[int], images: Float[Tensor, "n C H W"]) -> None:
        """Writes samples, in [−1, 1]."""
        with atomic_file(self.parts / f"{indices[0]:06d}.npz") as file:
            np.savez_compressed(file, images=to_bytes(images), indices=np.asarray(indices))

    def first(self, count: int) -> Float[Tensor, "n C H W"]:
        """The first samples, as 8 bits have kept them, in [−1, 1]."""
        return from_bytes(self._read(self.path, "seeds")["images"][:count])

    def finish(self, seed: int) -> None:
        """One array, in the order of the seeds; the parts go once it is written.

        Each image is there once: after a kill between the two, or two commands at once, some are in both or in two.
        """
        found = [self._read(part, "indices") for part in sorted(self.parts.glob("*.npz"))]
        if not found:
            if self.parts.is_dir():
                shutil.rmtree(self.parts)
            return
        pieces = [(part["indices"], part["images"]) for part in found]
        if self.path.exists():
            known = self._read(self.path, "seeds")["images"]
            pieces.append((np.arange(len(known)), known))
        indices, first = np.unique(np.concatenate([piece[0] for piece in pieces]), return_index=True)
        images = np.concatenate([piece[1] for piece in pieces])[first]
        with atomic_file(self.path) as file:
            np.savez_compressed(file, images=images, seeds=seed + indices)
        shutil.rmtree(self.parts)

    @staticmethod
    def _read(path: Path, numbers: Literal["seeds", "indices"]) -> dict[str, np.ndarray]:
        """The images of a file, uint8 (n, H, W, C), and which samples they are."""
        found = read_arrays(path, "images", numbers)
        images, numbered = found["images"], found[numbers]
        fits = images.dtype == np.uint8 and images.ndim == 4 and images.shape[-1] in (1, 3) and images.size > 0
        if not fits or numbered.dtype.kind not in "iu" or numbered.shape != images.shape[:1]:
            raise UnreadableFileError(
                f"{path} holds no samples: images (n, H, W, C) of uint8 and n whole numbers ({numbers}) are "
                f"needed. Delete it, and they are drawn again."
            )
        return found
