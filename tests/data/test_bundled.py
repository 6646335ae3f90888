import numpy as np
import pytest
import torch
from PIL import Image

from psld.data import LFW, Patches, bundled

pytest.importorskip("skimage")


def test_lfw_is_that_of_scikit_image():
    from skimage.data import lfw_subset

    pictures = (lfw_subset() * 255).round()
    faces = LFW("all", image_size=25)
    np.testing.assert_array_equal(faces.array[:, 0].numpy(), pictures[:100])
    train, heldout = LFW(image_size=25, background=True), LFW("heldout", image_size=25, background=True)
    assert (len(train), len(heldout)) == (160, 40)
    assert train.labels.bincount().tolist() == [80, 80] and heldout.labels.bincount().tolist() == [20, 20]
    np.testing.assert_array_equal(train.array[80:, 0].numpy(), pictures[100:180])
    np.testing.assert_array_equal(heldout.array[:, 0].numpy(), pictures[[*range(80, 100), *range(180, 200)]])


def test_lfw_is_resized_and_keeps_its_brightness():
    small, large = LFW(image_size=25), LFW(image_size=32)
    assert large.image_shape == (1, 32, 32) and len(large) == 80
    brightness = [data.batch(range(80)).mean((1, 2, 3)) for data in (small, large)]
    assert (brightness[0] - brightness[1]).abs().max() < 0.02


def test_patches_are_pieces_of_the_photographs():
    from skimage.data import astronaut

    data = Patches(count=200)
    halved = np.asarray(Image.fromarray(astronaut()).reduce(2))
    index = data.labels.tolist().index(data.classes.index("astronaut"))
    _, top, left = data.places[index]
    want = halved[top : top + 32, left : left + 32].transpose(2, 0, 1)
    np.testing.assert_array_equal(data.pixels(index).numpy(), want)
    np.testing.assert_allclose(data[index].numpy(), want / 127.5 - 1, atol=1e-6)


def test_patches_of_the_two_splits_share_no_pixel():
    train, heldout = Patches(count=3000), Patches("heldout", count=3000)
    for photograph in range(4):
        right_most = max(left + 32 for number, _, left in train.places if number == photograph)
        assert right_most <= train.regions[photograph].shape[-1]
    from skimage.data import coffee

    halved = np.asarray(Image.fromarray(coffee()).reduce(2))
    number = train.classes.index("coffee")
    pieces = [data.regions[number].permute(1, 2, 0).numpy() for data in (train, heldout)]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), halved)


def test_patches_are_distinct_and_a_function_of_the_seed():
    data = Patches()
    assert len(data) == 50_000 and len({tuple(place) for place in data.places}) == 50_000
    assert data.places[:2] == Patches(count=2).places  # fewer are the first of more
    assert Patches(count=9, seed=1).places != Patches(count=9).places
    assert data.places[:2] == [[2, 1, 121], [3, 12, 139]]  # results depend on them: they must not move


def test_refusals(monkeypatch):
    with pytest.raises(ValueError, match="image_size must be at most 57: got 64"):
        Patches("heldout", image_size=64)
    with pytest.raises(ValueError, match="count must be 1 … "):
        Patches(count=10**6)
    with pytest.raises(ValueError, match="'train' or 'heldout': got 'test'"):
        Patches("test")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="'train', 'heldout' or 'all': got 'test'"):
        LFW("test")  # pyright: ignore[reportArgumentType]
    with pytest.raises(FileNotFoundError, match="does not bundle kitten.png"):
        bundled.bundled_file("kitten.png")
    monkeypatch.setattr(bundled, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'psld\[scikit-image\]'"):
        LFW()


def test_mirror_images_of_a_view_leave_the_photograph_alone():
    data = Patches(count=4, flip=True)
    before = [region.clone() for region in data.regions]
    assert torch.equal(data[5], data[1].flip(-1))
    assert all(torch.equal(now, then) for now, then in zip(data.regions, before, strict=True))
