from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from psld.data import Digits, FileImages, ImageFolder, Images, ImageWarning, PixelArray, ShuffledBatches, loader
from small_data import random_bytes, save

PIXELS = torch.from_numpy(random_bytes(10, 3, 4, 4))


@pytest.fixture
def folder(tmp_path):
    for number in range(7):
        save(tmp_path / ("b", "a", "a/deep")[number % 3] / f"{number}.png", random_bytes(4, 4, 3, seed=number))
    return tmp_path


def test_an_epoch_shows_each_image_both_ways_in_random_order():
    data = PixelArray(PIXELS, flip=True)
    order = ShuffledBatches(len(data), 20, seed=3, start_step=0, steps=400)
    assert all(sorted(batch) == list(range(20)) for batch in order)
    first = torch.tensor([batch[0] >= 10 for batch in order]).double()
    assert first.mean() == pytest.approx(0.5, abs=4 * 0.5 / 400**0.5)  # mirrored or not, at a fixed place of the epoch
    for batch, indices in zip(loader(data, order), order, strict=True):
        want = torch.stack([PIXELS[i % 10].flip(-1) if i >= 10 else PIXELS[i] for i in indices])
        assert torch.equal(batch, want.float().div(127.5).sub(1))
        if indices[0] >= 10:
            break


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["array", "files", "digits"])
def test_a_resumed_loader_continues_bit_for_bit_in_mid_epoch(folder, kind, workers):
    data = {
        "array": lambda: PixelArray(PIXELS, flip=True, labels=range(10)),
        "files": lambda: ImageFolder(folder, 4, flip=True),
        "digits": lambda: Digits("heldout"),
    }[kind]()
    uninterrupted = list(loader(data, ShuffledBatches(len(data), 3, 5, 0, 9), labels=True))
    before = torch.get_rng_state()
    resumed = list(loader(data, ShuffledBatches(len(data), 3, 5, 4, 9), num_workers=workers, labels=True))
    assert torch.equal(before, torch.get_rng_state())
    assert len(resumed) == 5
    for (images, labels), (now, now_labels) in zip(uninterrupted[4:], resumed, strict=True):
        assert torch.equal(images, now) and torch.equal(labels, now_labels)


def test_labels_go_with_their_images_and_mirror_images(folder):
    data = ImageFolder(folder, 4, flip=True)
    assert data.classes == ("a", "b") and data.labels is not None
    assert data.labels.tolist() == [int("/b/" in Path(str(file)).as_posix()) for file in data.files] * 2
    images, labels = next(iter(loader(data, ShuffledBatches(14, 14, 0, 0, 1), labels=True)))
    indices = ShuffledBatches(14, 14, 0, 0, 1).batch(0)
    assert torch.equal(labels, data.labels[indices])
    assert torch.equal(images, torch.stack([data[index] for index in indices]))


def test_an_image_beside_the_sub_folders_has_no_class(folder):
    save(folder / "c.png", random_bytes(4, 4, 3))
    data = ImageFolder(folder, 4)
    assert data.labels is None and data.classes == ()
    with pytest.raises(ValueError, match="ImageFolder has no labels here"):
        loader(data, ShuffledBatches(8, 2, 0, 0, 1), labels=True)
    with pytest.raises(ValueError, match="batches are of 9 items and the data have 8"):
        loader(data, ShuffledBatches(9, 2, 0, 0, 1))


def test_any_map_style_data_are_loaded():
    class Constants:
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int, /) -> torch.Tensor:
            return torch.full((1, 2, 2), float(index))

    batches = ShuffledBatches(6, 3, 0, 0, 2)
    got = torch.cat(list(loader(Constants(), batches)))
    assert got[:, 0, 0, 0].tolist() == batches.batch(0) + batches.batch(1)
    images = Images(torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 2, 2))
    assert torch.equal(torch.cat(list(loader(images, batches))), got)


def test_arrays_of_pixels_refuse_what_they_are_not():
    with pytest.raises(TypeError, match="must be uint8"):
        PixelArray(PIXELS.float())
    with pytest.raises(ValueError, match=r"\(N, C, H, W\)"):
        PixelArray(PIXELS[0])
    with pytest.raises(ValueError, match="no images"):
        PixelArray(PIXELS[:0])
    with pytest.raises(ValueError, match="10 images need 10 labels"):
        PixelArray(PIXELS, labels=[1])
    with pytest.raises(IndexError, match="item 10 of 10"):
        PixelArray(PIXELS).batch([3, 10])


def test_a_folder_is_framed_if_asked(tmp_path):
    pixels = random_bytes(8, 12, 3)
    save(tmp_path / "wide.png", pixels)
    want = Image.fromarray(pixels[:, 2:10]).resize((4, 4), Image.Resampling.LANCZOS)
    data = ImageFolder(tmp_path, 4, resize=True, resample="lanczos")
    np.testing.assert_allclose(data[0].permute(1, 2, 0).numpy(), np.asarray(want) / 127.5 - 1, atol=1e-6)
    with pytest.raises(ValueError, match=r"wide\.png gives 8×8 pixels, fewer than image_size=9: nothing is enlarged"):
        ImageFolder(tmp_path, 9, resize=True)


def test_one_transparent_file_among_others_is_named(folder):
    Image.fromarray(random_bytes(4, 4, 4)).save(folder / "a" / "z.png")
    with pytest.warns(ImageWarning, match=r"1 of 8 images: transparency is flattened onto .*'white'.*a/z\.png"):
        ImageFolder(folder, 4)
    assert ImageFolder(folder, 4, channels=4)[0].shape == (4, 4, 4)
    assert isinstance(ImageFolder(folder, 4, channels=4), FileImages)
