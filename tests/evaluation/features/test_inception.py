"""The Inception network of 2015 by its published facts: names, shapes, number of parameters, and the resize rule."""

import hashlib
import io

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from psld.evaluation.features import InceptionFeatures, feature_extractor
from psld.evaluation.features.inception import (
    PUBLISHED,
    BlockE,
    Inception2015,
    average_around,
    load_inception,
    resize_tensorflow1,
)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return Inception2015().eval()


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    file = tmp_path_factory.mktemp("inception") / "weights.pth"
    torch.save({n: t for n, t in network.state_dict().items() if not n.endswith("num_batches_tracked")}, file)
    return file


def test_parameters_are_as_many_as_published(network):
    """27,161,264 with 1000 classes and the auxiliary head (Szegedy et al., 2016, as torchvision counts them)."""
    auxiliary = (768 * 128 + 2 * 128) + (128 * 768 * 25 + 2 * 768) + (768 * 1000 + 1000)
    classes = 8 * (2048 + 1)
    assert sum(p.numel() for p in network.parameters()) == 27_161_264 - auxiliary + classes == 23_850_960


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("Conv2d_1a_3x3.conv.weight", (32, 3, 3, 3)),
        ("Conv2d_1a_3x3.bn.running_var", (32,)),
        ("Conv2d_4a_3x3.conv.weight", (192, 80, 3, 3)),
        ("Mixed_5b.branch1x1.conv.weight", (64, 192, 1, 1)),
        ("Mixed_5d.branch_pool.conv.weight", (64, 288, 1, 1)),
        ("Mixed_6a.branch3x3dbl_3.conv.weight", (96, 96, 3, 3)),
        ("Mixed_6b.branch7x7dbl_2.conv.weight", (128, 128, 7, 1)),
        ("Mixed_6d.branch7x7_2.conv.weight", (160, 160, 1, 7)),
        ("Mixed_6e.branch7x7dbl_5.conv.weight", (192, 192, 1, 7)),
        ("Mixed_7a.branch7x7x3_3.conv.weight", (192, 192, 7, 1)),
        ("Mixed_7b.branch3x3_2b.conv.weight", (384, 384, 3, 1)),
        ("Mixed_7c.branch3x3dbl_1.conv.weight", (448, 2048, 1, 1)),
        ("fc.weight", (1008, 2048)),
        ("fc.bias", (1008,)),
    ],
)
def test_parameters_have_the_published_names(network, name, shape):
    assert network.state_dict()[name].shape == shape


def test_there_are_94_convolutions_and_no_other_parameters(network):
    names = [name for name, _ in network.named_parameters() if not name.startswith("fc")]
    kinds = {name.split(".", name.count(".") - 1)[-1] for name in names}
    assert len(names) == 94 * 3
    assert kinds == {"conv.weight", "bn.weight", "bn.bias"}


def test_resize_is_tensorflow_1s_rule_pixel_by_pixel():
    image = np.random.default_rng(0).uniform(0, 255, (7, 5))
    found = resize_tensorflow1(torch.from_numpy(image)[None, None], 12)[0, 0].numpy()
    for i in range(12):
        for j in range(12):
            y, x = i * 7 / 12, j * 5 / 12
            top, left = int(y), int(x)
            below, right = min(top + 1, 6), min(left + 1, 4)
            upper = image[top, left] * (1 - (x - left)) + image[top, right] * (x - left)
            lower = image[below, left] * (1 - (x - left)) + image[below, right] * (x - left)
            assert found[i, j] == pytest.approx(upper * (1 - (y - top)) + lower * (y - top), rel=1e-12)


def test_resize_is_not_torchs():
    image = torch.arange(32.0).expand(1, 1, 32, 32)
    assert not torch.allclose(resize_tensorflow1(image, 299), F.interpolate(image, 299, mode="bilinear"), atol=0.1)


def test_pooling_branches():
    """The mean at a corner is over the four pixels that are there; the last block takes the maximum."""
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert float(average_around(x)[0, 0, 0, 0]) == (0 + 1 + 4 + 5) / 4
    torch.manual_seed(0)
    x = torch.rand(1, 8, 4, 4)
    average, maximum = BlockE(8, "average").eval(), BlockE(8, "maximum").eval()
    maximum.load_state_dict(average.state_dict())
    difference = (average(x) - maximum(x)).abs().amax((0, 2, 3))
    assert (difference[:-192] == 0).all() and difference[-192:].max() > 0
    pooled = F.unfold(F.pad(x, (1,) * 4, value=-torch.inf), 3).view(1, 8, 9, 16).amax(2).view_as(x)
    torch.testing.assert_close(maximum(x)[:, -192:], maximum.branch_pool(pooled))


@torch.no_grad()
def test_features_are_2048_and_logits_have_no_bias(network):
    pixels = torch.randint(0, 256, (1, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = network(pixels)
    assert features.shape == (1, network.num_features)
    assert torch.equal(features, network(pixels.expand(1, 3, 32, 32)))
    torch.testing.assert_close(network.logits(features) + network.fc.bias, network.fc(features))


def test_weights_come_from_a_file_or_an_address_and_are_checked(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
    _, found = load_inception(weights)
    assert found == sha256
    with pytest.raises(ValueError, match="has SHA-256 .*, not 00"):
        load_inception(weights, "00" * 32)
    with pytest.raises(ValueError, match="is an address: give the SHA-256"):
        load_inception(weights.as_uri())
    with pytest.raises(ValueError, match="has SHA-256"):
        load_inception(weights.as_uri(), "00" * 32, download=True)
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))
    with pytest.raises(ValueError, match="nothing is downloaded unasked"):
        load_inception(weights.as_uri(), sha256)
    load_inception(weights.as_uri(), sha256, download=True)
    assert [path.stem for path in (tmp_path / "cache" / "psld").iterdir()] == [sha256]
    monkeypatch.setattr("urllib.request.urlopen", lambda *_: pytest.fail("downloaded again"))
    extractor = InceptionFeatures(weights.as_uri(), sha256)
    assert (extractor.distance, extractor.identity) == ("FID", f"Inception-2015, sha256 {sha256}")


def test_weights_of_another_network_are_refused(weights, tmp_path):
    state = torch.load(weights, weights_only=True)
    del state["fc.weight"]
    torch.save(state | {"AuxLogits.conv0.conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="another network: no fc.weight, unknown AuxLogits"):
        load_inception(tmp_path / "other.pth")
    (tmp_path / "cut.pth").write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.pth is truncated or corrupt, or not a file of torch\.save"):
        load_inception(tmp_path / "cut.pth")


def test_the_published_weights_are_fetched_when_asked_for_and_kept_only_if_they_are_right(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(ValueError, match="pt_inception-2015-12-05-6726825d.pth .*--extractor_download once"):
        feature_extractor("inception", (3, 32, 32))
    asked = []

    def another_file(address):
        asked.append(address)
        return io.BytesIO(b"not the weights")

    monkeypatch.setattr("urllib.request.urlopen", another_file)
    with pytest.raises(ValueError, match=f"has SHA-256 .*, not {PUBLISHED.sha256}"):
        feature_extractor("inception", (3, 32, 32), download=True)
    assert asked == [PUBLISHED.address] and not any(path.is_file() for path in tmp_path.rglob("*"))
