import numpy as np
import pytest
import torch

from psld.data import ArrayFile, PixelArray, save_arrays
from small_data import random_bytes, scaled

PIXELS = random_bytes(5, 4, 6, 3)


@pytest.fixture
def file(tmp_path):
    return tmp_path / "images.npz"


def test_layouts(file):
    want = scaled(PIXELS.transpose(0, 3, 1, 2))
    np.savez(file, PIXELS)
    np.testing.assert_array_equal(ArrayFile(file).batch(range(5)).numpy(), want)
    np.savez_compressed(file, pictures=PIXELS.transpose(0, 3, 1, 2), y=np.arange(5))
    data = ArrayFile(file, label_key="y", layout="NCHW")
    np.testing.assert_array_equal(data.batch(range(5)).numpy(), want)
    assert data.labels is not None and data.labels.tolist() == [0, 1, 2, 3, 4]
    np.savez(file, PIXELS[..., 0])
    np.testing.assert_array_equal(ArrayFile(file)[2][0].numpy(), want[2, 0])


class Wicked:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


def test_refusals(file):
    with pytest.raises(FileNotFoundError, match="no file"):
        ArrayFile(file)
    np.savez(file, a=PIXELS, b=PIXELS)
    with pytest.raises(ValueError, match="holds a, b: key must name"):
        ArrayFile(file)
    with pytest.raises(ValueError, match="label_key='c' is not among them"):
        ArrayFile(file, "a", "c")
    with pytest.raises(ValueError, match=r"names or whole numbers ≥ 0 of shape \(5,\) or \(5, 1\): got uint8 of shape"):
        ArrayFile(file, "a", "b")
    np.savez(file, PIXELS.transpose(0, 3, 1, 2))
    with pytest.raises(ValueError, match=r"\(5, 6, 3, 4\) .*read as NHWC.*The other layout is NCHW"):
        ArrayFile(file, layout="NHWC")
    np.savez(file, PIXELS / 255)
    with pytest.raises(ValueError, match="float64, not uint8"):
        ArrayFile(file)
    np.savez(file, PIXELS)
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(ValueError, match=r"cannot be read as \.npz"):
        ArrayFile(file)
    with file.open("wb") as stream:
        np.save(stream, PIXELS)
    with pytest.raises(ValueError, match="one bare array"):
        ArrayFile(file)


def test_objects_are_not_loaded(file):
    np.savez(file, np.array([Wicked()], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle=False"):
        ArrayFile(file)


@pytest.mark.parametrize("flip", [False, True])
def test_any_data_set_becomes_an_array_file(file, flip):
    data = PixelArray(torch.from_numpy(PIXELS).permute(0, 3, 1, 2), flip, labels=[3, 1, 4, 1, 5])
    again = ArrayFile(save_arrays(data, file), "images", "labels", flip=flip)
    assert torch.equal(again.batch(range(len(data))), data.batch(range(len(data))))
    assert again.labels is not None and again.labels.tolist() == [3, 1, 4, 1, 5] * (1 + flip)
    assert [path.name for path in file.parent.iterdir()] == ["images.npz"]
    with pytest.raises(ValueError, match=r"must end in \.npz"):
        save_arrays(data, file.with_suffix(".zip"))
