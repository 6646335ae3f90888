from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from psld.data import Digits, ImageFolder, Images
from psld.data.one_class import OneClass
from psld.data.opening import open_images


def source_arrays() -> tuple[np.ndarray, np.ndarray]:
    pixels, labels = load_digits(return_X_y=True)
    return np.asarray(pixels).reshape(-1, 8, 8), np.asarray(labels)


def test_digits_are_those_of_sklearn():
    digits, (pixels, labels) = Digits("all"), source_arrays()
    assert digits.image_shape == (1, 8, 8)
    assert len(digits) == 1797
    np.testing.assert_array_equal(torch.stack([digits[i] for i in range(1797)])[:, 0].numpy(), (pixels / 8 - 1))
    np.testing.assert_array_equal(digits.labels.numpy(), labels)
    assert digits[0].dtype == torch.float32


def test_digits_are_split_without_overlap():
    train, heldout = Digits("train"), Digits("heldout")
    assert (len(train), len(heldout)) == (1437, 360)
    assert sorted(train.indices.tolist() + heldout.indices.tolist()) == list(range(1797))
    assert train.indices[:3].tolist() == [362, 1568, 1440]  # results depend on the split: it must not move
    np.testing.assert_array_equal(heldout[7][0].numpy(), source_arrays()[0][heldout.indices[7]] / 8 - 1)
    with pytest.raises(ValueError, match="'train', 'heldout' or 'all': got 'test'"):
        Digits("test")  # pyright: ignore[reportArgumentType]


def test_images_refuse_what_is_not_finite_by_its_index():
    images = torch.zeros(5, 1, 2, 2)
    images[3, 0, 1, 1] = float("nan")
    with pytest.raises(ValueError, match="image 3 holds NaN"):
        Images(images)
    with pytest.raises(ValueError, match=r"\(N, C, H, W\).*got \(5, 2\)"):
        Images(torch.zeros(5, 2))
    with pytest.raises(TypeError, match="uint8"):
        Images(torch.zeros(5, 1, 2, 2, dtype=torch.uint8))


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "deep").mkdir()
    for name in ("b.png", "a.png", "deep/c.png"):
        Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    return tmp_path


def test_folder_is_recursive_sorted_and_scaled(folder):
    data = ImageFolder(folder, 4)
    assert [Path(str(file)).relative_to(folder).as_posix() for file in data.files] == ["a.png", "b.png", "deep/c.png"]
    want = np.asarray(Image.open(folder / "b.png")).transpose(2, 0, 1).astype(np.float32) / 127.5 - 1
    np.testing.assert_allclose(data[1].numpy(), want, atol=1e-6)
    assert ImageFolder(folder, 4, channels=1)[0].shape == (1, 4, 4)


def test_mirror_images_are_items(folder):
    data = ImageFolder(folder, 4, flip=True)
    assert len(data) == 6
    for index in range(3):
        assert torch.equal(data[index + 3], data[index].flip(-1))
    with pytest.raises(IndexError):
        data[6]


def test_folder_refusals(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        ImageFolder(folder / "nowhere", 4)
    with pytest.raises(NotADirectoryError):
        ImageFolder(folder / "notes.txt", 4)
    with pytest.raises(ValueError, match="channels must be 1, 3 or 4: got 2"):
        ImageFolder(folder, 4, channels=2)
    with pytest.raises(ValueError, match=r"a\.png is 4×4, image_size=8 needs 8×8\. Resize"):
        ImageFolder(folder, 8)
    (folder / "deep" / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="no images in"):
        ImageFolder(folder / "deep" / "empty", 4)
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(folder / "deep" / "z.tif")
    with pytest.raises(ValueError, match=r"z\.tif has 32 bits a channel \(mode 'F'\)"):
        ImageFolder(folder, 4)
    (folder / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.png cannot be read as an image"):
        ImageFolder(folder, 4)


def test_truncated_pixels_are_refused_by_name(folder):
    data = ImageFolder(folder, 4)
    content = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(content[: len(content) - 30])
    with pytest.raises(ValueError, match=r"b\.png cannot be read"):
        data[1]


def test_one_class_of_a_folder_a_class(tmp_path):
    """Three cats and two dogs, each with a grey of its own, read as psld evaluate reads them."""
    for name, greys in (("cat", (10, 20, 30)), ("dog", (40, 50))):
        (tmp_path / name).mkdir()
        for grey in greys:
            Image.new("L", (4, 4), grey).save(tmp_path / name / f"{grey}.png")
    dogs = OneClass(open_images(tmp_path), 1)
    assert (len(dogs), dogs.image_shape, dogs.description) == (2, (1, 4, 4), "class 1 (dog)")
    greys = [(value + 1) * 127.5 for value in (dogs.batch([1, 0]).mean((1, 2, 3)).tolist() + [float(dogs[1].mean())])]
    assert greys == pytest.approx([50, 40, 50])
    with pytest.raises(ValueError, match="pets has no image of class 2: its labels are 0 … 1"):
        OneClass(open_images(tmp_path), 2, "pets")
    with pytest.raises(ValueError, match="cats has no labels"):
        OneClass(open_images(tmp_path / "cat"), 0, "cats")
