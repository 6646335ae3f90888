"""Images as PNG files: one a file, in a grid, or in grids with titles beside one another.

Images are (n, C, H, W) in [−1, 1] with one channel (grey), three (colour) or four (with transparency); what
lies outside is clipped. A file is
written beside its place and then moved there, so a reader, or an interrupted run, never meets half a picture.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from psld.files import UnreadableFileError, atomic_file
from psld.files.pictures import read_picture

__all__ = [
    "from_bytes",
    "load_images",
    "save_beside",
    "save_grid",
    "save_image",
    "save_images",
    "save_panels",
    "to_bytes",
]

GAP_LEVEL = 72  # between images: dark grey, from which white strokes and a black ground both stand out


def save_images(images: Float[Tensor, "n C H W"], folder: str | Path, first: int = 0) -> list[Path]:
    """Each image as a PNG of its own size; returns the paths, `folder`/000000.png and on, numbered from `first`."""
    paths = [Path(folder) / f"{first + i:06d}.png" for i in range(len(images))]
    for pixels, path in zip(to_bytes(images), paths, strict=True):
        _save_png(pixels, path)
    return paths


def save_image(image: Float[Tensor, "C H W"], path: str | Path) -> None:
    """One image as a PNG of its own size."""
    _save_png(to_bytes(image[None])[0], path)


def load_images(paths: Iterable[str | Path]) -> Float[Tensor, "n C H W"]:
    """What `save_images` wrote: PNG files of one size and mode, in [−1, 1].

    Raises:
        FileNotFoundError: one is missing.
        UnreadableFileError: one is broken, or of another size or mode.
    """
    arrays = []
    for path in paths:
        pixels = read_picture(path, advice="Delete it, and it is drawn again.")
        if arrays and pixels.shape != arrays[0].shape:
            sizes = " and ".join("×".join(map(str, shape)) for shape in (pixels.shape, arrays[0].shape))
            raise UnreadableFileError(f"{path} is of another size or mode than the first picture: {sizes}. Delete it.")
        arrays.append(pixels)
    return from_bytes(np.stack(arrays))


def save_grid(
    images: Float[Tensor, "n C H W"], path: str | Path, columns: int | None = None, scale: int = 8, gap: int = 6
) -> None:
    """All images in one PNG, row by row, grey between and around them.

    Image i = columns · r + c has its top left corner at ((H · scale + gap) r + gap, (W · scale + gap) c + gap).

    Args:
        images: (n, C, H, W) in [−1, 1], n ≥ 1.
        path: the file to write.
        columns: images in a row; None makes the grid as square as it can be.
        scale: every pixel becomes scale × scale pixels, unsmoothed.
        gap: pixels, after enlargement, between images and at the edge.
    """
    _save_png(_tile(images, columns, scale, gap), path)


def save_beside(
    data: Float[Tensor, "n C H W"],
    samples: Float[Tensor, "m C H W"],
    path: str | Path,
    columns: int | None = None,
    scale: int = 6,
) -> None:
    """A PNG with two grids, "data" on the left and "samples" on the right, one image pixel scale × scale pixels."""
    save_panels({"data": (data, columns), "samples": (samples, columns)}, path, scale)


def save_panels(
    panels: Mapping[str, tuple[Float[Tensor, "n C H W"], int | None]], path: str | Path, scale: int = 6
) -> None:
    """A PNG with grids beside one another, each under its title; rows line up where images are of one height.

    Args:
        panels: title → images and how many of them are in a row (None: as many as there are rows).
        path: the file to write.
        scale: every pixel becomes scale × scale pixels, unsmoothed.
    """
    from matplotlib.figure import Figure

    gap = max(scale, 4)
    grids = [_tile(images, columns, scale, gap) for images, columns in panels.values()]
    margin, title, dpi = 24, 40, 100
    height = max(grid.shape[0] for grid in grids) + title + margin
    width = sum(grid.shape[1] + margin for grid in grids) + margin
    figure = Figure(figsize=(width / dpi, height / dpi), dpi=dpi, facecolor="white")
    left = margin
    for grid, name in zip(grids, panels, strict=True):
        rows, cols = grid.shape[:2]
        place = (left / width, 1 - (title + rows) / height, cols / width, rows / height)
        axes = figure.add_axes(place)  # its size in pixels is the grid's, so that nothing is resampled
        shown = grid if grid.shape[2] > 1 else np.broadcast_to(grid, (rows, cols, 3))
        axes.imshow(shown, interpolation="nearest", aspect="auto")
        axes.set_axis_off()
        axes.set_title(name, fontsize=13, pad=8)
        left += cols + margin
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=dpi)


def _tile(
    images: Float[Tensor, "n C H W"], columns: int | None, scale: int, gap: int
) -> UInt8[np.ndarray, "height width C"]:
    """The pixels of a grid; see `save_grid`."""
    columns = math.ceil(math.sqrt(max(len(images), 1))) if columns is None else columns
    if columns < 1 or scale < 1 or gap < 0:
        raise ValueError(f"a grid needs columns ≥ 1, scale ≥ 1, gap ≥ 0; got {columns}, {scale}, {gap}.")
    enlarged = to_bytes(images).repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, channels = enlarged.shape
    rows = math.ceil(count / columns)
    grid = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, channels), GAP_LEVEL, dtype=np.uint8)
    if channels == 4:
        grid[..., 3] = 255
    for i, pixels in enumerate(enlarged):
        top, left = (i // columns) * (height + gap) + gap, (i % columns) * (width + gap) + gap
        grid[top : top + height, left : left + width] = pixels
    return grid


def to_bytes(images: Float[Tensor, "n C H W"]) -> UInt8[np.ndarray, "n H W C"]:
    """−1 to 0, 1 to 255, rounded to the nearest."""
    if images.ndim != 4 or images.shape[1] not in (1, 3, 4) or len(images) == 0:
        raise ValueError(f"images must be (n, C, H, W) with 1, 3 or 4 channels and n ≥ 1, got {tuple(images.shape)}.")
    wrong = int((~images.isfinite()).sum())
    if wrong:
        raise ValueError(f"images must be finite: {wrong} of {images.numel()} values are NaN or infinite.")
    levels = ((images.detach().float().clamp(-1, 1) + 1) * 127.5).round()
    return levels.byte().permute(0, 2, 3, 1).cpu().numpy()


def from_bytes(levels: UInt8[np.ndarray, "n H W C"]) -> Float[Tensor, "n C H W"]:
    """What `to_bytes` made: 0 to −1, 255 to 1."""
    return torch.from_numpy(levels).permute(0, 3, 1, 2).float() / 127.5 - 1


def _save_png(pixels: UInt8[np.ndarray, "height width C"], path: str | Path) -> None:
    grey = pixels.shape[-1] == 1
    with atomic_file(path) as file:
        Image.fromarray(pixels[..., 0] if grey else pixels).save(file, format="PNG")
