import gzip

import numpy as np
import pytest
import torch

from psld.data import MNIST
from small_data import idx, random_bytes, scaled, write_mnist

IMAGES, LABELS = random_bytes(60, 28, 28), np.arange(60) % 10


@pytest.fixture(params=[True, False], ids=["gz", "plain"])
def root(tmp_path, request):
    write_mnist(tmp_path, "train", IMAGES, LABELS, request.param)
    return tmp_path


def test_pixels_and_labels(root):
    data = MNIST(root, "train+heldout")
    np.testing.assert_array_equal(data.batch(range(60))[:, 0].numpy(), scaled(IMAGES))
    np.testing.assert_array_equal(data.labels.numpy(), LABELS)
    assert data.image_shape == (1, 28, 28) and data[0].dtype == torch.float32


def test_splits_are_disjoint_whatever_files_are_at_hand(root):
    train, heldout = MNIST(root), MNIST(root, "heldout")
    assert (len(train), len(heldout)) == (50, 10)
    np.testing.assert_array_equal(torch.cat([train.array, heldout.array])[:, 0].numpy(), IMAGES)
    with pytest.raises(FileNotFoundError, match=r"no t10k-images-idx3-ubyte \(plain or \.gz\)"):
        MNIST(root, "test")
    write_mnist(root, "t10k", IMAGES[:3, ::-1], LABELS[:3], True)
    assert len(MNIST(root)) == 50
    np.testing.assert_array_equal(MNIST(root, "test").array[:, 0].numpy(), IMAGES[:3, ::-1])


def test_the_border_is_background(root):
    data = MNIST(root, image_size=32)
    assert data.image_shape == (1, 32, 32)
    np.testing.assert_array_equal(data[7][0, 2:30, 2:30].numpy(), scaled(IMAGES[7]))
    assert data[7].sum() == pytest.approx(float(scaled(IMAGES[7]).sum()) - (32**2 - 28**2), rel=1e-5)
    with pytest.raises(ValueError, match="image_size must be 28 or 32"):
        MNIST(root, image_size=64)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (idx(IMAGES)[:-1], "it should hold 47040 bytes by its header and holds 47039"),
        (idx(IMAGES) + b"0", "holds more"),
        (idx(IMAGES)[:9], "ends within its header"),
        (b"", "begins with nothing"),
        (idx(LABELS.astype(np.uint8)), "begins with 00000801, not 00000803"),
        (gzip.compress(idx(IMAGES))[:-100], "truncated or damaged"),
        (idx(IMAGES[:, :27]), "images of 27×28"),
        (idx(IMAGES[:59]), "59 images and train-labels-idx1-ubyte 60 labels"),
        (idx(IMAGES[:0]), "its header says 0×28×28 bytes, and between 1 and"),
    ],
)
def test_broken_files_are_refused(tmp_path, content, message):
    write_mnist(tmp_path, "train", IMAGES, LABELS, False)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        MNIST(tmp_path)


def test_an_unknown_split_is_refused(root):
    with pytest.raises(ValueError, match=r"'train', 'heldout', 'train\+heldout' or 'test': got 'val'"):
        MNIST(root, "val")  # pyright: ignore[reportArgumentType]
