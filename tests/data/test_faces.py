from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from psld.data import AFHQ, CelebA
from small_data import random_bytes, save, scaled


@pytest.fixture
def celeba(tmp_path):
    """Six PNG files under the names of JPEGs: Pillow goes by content, and pixels can be compared exactly."""
    pixels = random_bytes(6, 218, 178, 3)
    lines = []
    for number in range(6):
        name = f"{number + 1:06}.jpg"
        save(tmp_path / "img_align_celeba" / f"{number + 1:06}.png", pixels[number])
        (tmp_path / "img_align_celeba" / f"{number + 1:06}.png").rename(tmp_path / "img_align_celeba" / name)
        lines.append(f"{name} {(0, 0, 0, 1, 2, 2)[number]}")
    (tmp_path / "list_eval_partition.txt").write_text("\n".join(reversed(lines)) + "\n")
    return tmp_path, pixels


@pytest.mark.parametrize(
    ("crop", "size", "rows", "columns"),
    [
        ("center-140", 140, slice(39, 179), slice(19, 159)),
        ("center-178", 178, slice(20, 198), slice(0, 178)),
        ("face-128", 128, slice(57, 185), slice(25, 153)),
    ],
)
def test_crops_are_the_boxes_they_are_said_to_be(celeba, crop, size, rows, columns):
    root, pixels = celeba
    data = CelebA(root, size, crop=crop)
    np.testing.assert_array_equal(data[1].numpy(), scaled(pixels[1, rows, columns].transpose(2, 0, 1)))


def test_a_crop_is_then_made_smaller(celeba):
    root, pixels = celeba
    face = CelebA(root, 64, crop="face-128", resample="box")
    means = pixels[0, 57:185, 25:153].reshape(64, 2, 64, 2, 3).mean((1, 3)).transpose(2, 0, 1)
    np.testing.assert_allclose(face[0].numpy(), means / 127.5 - 1, atol=1.001 / 127.5)
    whole = Image.fromarray(pixels[0]).resize((64, 64), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(CelebA(root, crop="whole")[0].numpy(), scaled(np.asarray(whole).transpose(2, 0, 1)))
    assert CelebA(root).image_shape == (3, 64, 64)


def test_partition_decides_the_splits(celeba):
    root, _ = celeba
    names = [[file.name for file in CelebA(root, split=split).files] for split in ("train", "valid", "test")]
    assert names == [["000001.jpg", "000002.jpg", "000003.jpg"], ["000004.jpg"], ["000005.jpg", "000006.jpg"]]
    listing = (root / "list_eval_partition.txt").read_text().replace(" ", ",")
    (root / "list_eval_partition.txt").unlink()
    with pytest.raises(FileNotFoundError, match="no list_eval_partition.txt in .* split='all'"):
        CelebA(root)
    assert len(CelebA(root, split="all")) == 6
    (root / "list_eval_partition.csv").write_text("image_id,partition\n" + listing)
    assert len(CelebA(root)) == 3


def test_celeba_refusals(celeba):
    root, _ = celeba
    with pytest.raises(ValueError, match="crop must be 'center-140', .*got 'center'"):
        CelebA(root, crop="center")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="gives 140×140 pixels, fewer than image_size=256"):
        CelebA(root, 256)
    with pytest.raises(FileNotFoundError, match="no folder img_align_celeba"):
        CelebA(root / "img_align_celeba")
    (root / "list_eval_partition.txt").write_text("000001.jpg 0\n000002.jpg train\n")
    with pytest.raises(ValueError, match="line 2: '000002.jpg train' is not an image's name"):
        CelebA(root)
    (root / "list_eval_partition.txt").write_text("000001.jpg 0\n000009.jpg 0\n")
    with pytest.raises(FileNotFoundError, match=r"lacks 1 of the 2 images .* 000009\.jpg first"):
        CelebA(root)
    with pytest.raises(ValueError, match="puts no image in split 'test'"):
        CelebA(root, split="test")
    save(root / "img_align_celeba" / "000000.png", random_bytes(64, 64, 3))
    with pytest.raises(ValueError, match=r"000000\.png is 64×64: the crop takes columns 19 … 158 and rows 39 … 178"):
        CelebA(root, split="all")


@pytest.fixture
def afhq(tmp_path):
    pixels = random_bytes(9, 16, 16, 3)
    for number in range(9):
        part, kind = ("train", "train", "test")[number // 3], ("cat", "dog", "wild")[number % 3]
        save(tmp_path / part / kind / f"{number}.png", pixels[number])
    return tmp_path, pixels


def test_afhq(afhq):
    root, pixels = afhq
    train, test = AFHQ(root, 16), AFHQ(root, 16, "test")
    assert [Path(str(file)).stem for file in train.files] == ["0", "3", "1", "4", "2", "5"]
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2] and train.classes == ("cat", "dog", "wild")
    np.testing.assert_array_equal(test.batch(range(3)).numpy(), scaled(pixels[6:].transpose(0, 3, 1, 2)))
    both = AFHQ(root, 8, "all", resample="box")
    assert len(both) == 9 and not set(train.files) & set(test.files)
    np.testing.assert_allclose(
        both[0].numpy(),
        pixels[0].reshape(8, 2, 8, 2, 3).mean((1, 3)).transpose(2, 0, 1) / 127.5 - 1,
        atol=1.001 / 127.5,
    )


def test_afhq_refusals(afhq):
    root, _ = afhq
    with pytest.raises(ValueError, match="gives 16×16 pixels, fewer than image_size=128"):
        AFHQ(root)
    with pytest.raises(FileNotFoundError, match="no folder train in .*with cat, dog, wild"):
        AFHQ(root / "train", 16)
    for file in (root / "test" / "dog").iterdir():
        file.unlink()
    with pytest.raises(FileNotFoundError, match="no images in .*dog"):
        AFHQ(root, 16, "test")
    (root / "test").rename(root / "val")
    save(root / "val" / "dog" / "0.png", random_bytes(16, 16, 3))
    assert len(AFHQ(root, 16, "test")) == 3
