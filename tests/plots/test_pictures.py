"""Pictures: every pixel where the docstring says, and no half-written file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from psld.files import atomic_file
from psld.plots.pictures import GAP_LEVEL, save_beside, save_grid, save_images


def levels(count: int, channels: int, height: int, width: int) -> tuple[torch.Tensor, np.ndarray]:
    """Images whose bytes are known: (n, C, H, W) in [−1, 1] and (n, H, W, C) in 0…255."""
    expected = np.random.default_rng(0).integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    images = torch.as_tensor(expected.astype(np.float32)).permute(0, 3, 1, 2) / 127.5 - 1
    return images, expected


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pixel_of_a_grid(tmp_path: Path, channels: int) -> None:
    images, expected = levels(5, channels, 4, 6)
    scale, gap, columns = 3, 2, 3
    save_grid(images, tmp_path / "grid.png", columns, scale=scale, gap=gap)
    grid = np.asarray(Image.open(tmp_path / "grid.png")).reshape(2 * (12 + gap) + gap, 3 * (18 + gap) + gap, channels)
    covered = np.zeros(grid.shape[:2], dtype=bool)
    for i in range(5):
        for y in range(12):
            for x in range(18):
                at = (gap + (i // columns) * (12 + gap) + y, gap + (i % columns) * (18 + gap) + x)
                assert (grid[at] == expected[i, y // scale, x // scale]).all()
                covered[at] = True
    assert (grid[~covered] == GAP_LEVEL).all()


def test_a_grid_is_square_where_no_columns_are_given(tmp_path: Path) -> None:
    save_grid(levels(9, 1, 8, 8)[0], tmp_path / "grid.png", scale=1, gap=0)
    assert Image.open(tmp_path / "grid.png").size == (24, 24)


def test_values_outside_are_clipped_and_rounded(tmp_path: Path) -> None:
    images = torch.tensor([-3.0, -1.0, -0.999, 0.0, 0.999, 1.0, 3.0]).reshape(1, 1, 1, 7)
    (path,) = save_images(images, tmp_path)
    assert np.asarray(Image.open(path)).tolist() == [[0, 0, 0, 128, 255, 255, 255]]


def test_one_file_an_image(tmp_path: Path) -> None:
    images, expected = levels(3, 3, 5, 5)
    paths = save_images(images, tmp_path / "new" / "folder", first=99)
    assert [path.name for path in paths] == ["000099.png", "000100.png", "000101.png"]
    for path, pixels in zip(paths, expected, strict=True):
        assert np.array_equal(np.asarray(Image.open(path)), pixels)
    assert sorted(paths[0].parent.iterdir()) == paths


def test_beside_shows_both_grids_unresampled(tmp_path: Path) -> None:
    (data, left), (samples, right) = levels(4, 1, 8, 8), levels(9, 1, 8, 8)
    save_beside(data, samples, tmp_path / "beside.png", scale=6)
    picture = np.asarray(Image.open(tmp_path / "beside.png").convert("L"))
    for pixels, top, start in ((left, 40 + 6, 24 + 6), (right, 40 + 6, 24 + 114 + 24 + 6)):
        assert np.array_equal(picture[top : top + 48, start : start + 48], np.kron(pixels[0, ..., 0], np.ones((6, 6))))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 2, 4, 4), r"1, 3 or 4 channels.*\(2, 2, 4, 4\)"),
        (torch.zeros(0, 1, 4, 4), "n ≥ 1"),
        (torch.full((1, 1, 2, 2), float("nan")), "4 of 4 values"),
    ],
)
def test_what_is_not_images_is_refused(tmp_path: Path, images: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        save_grid(images, tmp_path / "grid.png")
    assert not list(tmp_path.iterdir())


def test_columns_of_a_grid_must_be_positive(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="columns ≥ 1"):
        save_grid(torch.zeros(1, 1, 2, 2), tmp_path / "grid.png", columns=0)


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "kept.png"
    path.write_bytes(b"old")
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
