"""Our Inception against torch-fidelity's module with the same random weights, resize and 8 bits included.

torch-fidelity (0.4.0, Apache-2.0) is no dependency: what it gave is recorded in torch_fidelity.json, and where it is
installed its module is called. With its package on the path, `python tests/evaluation/features/test_torch_fidelity.py`
records it anew and prints how far ours is from it.
"""

import importlib
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from psld.evaluation.features.inception import Inception2015, resize_tensorflow1

RECORDED = Path(__file__).with_name("torch_fidelity.json")


def random_weights():
    """By name, from a generator of numpy whose stream is fixed; of a size that keeps features of order one."""
    draw, state = np.random.RandomState(0), {}
    for name, value in sorted(Inception2015().state_dict().items()):
        if name.endswith("num_batches_tracked"):
            continue
        if name.endswith("conv.weight"):
            made = draw.standard_normal(value.shape) * (2 / value[0].numel()) ** 0.5
        elif name.endswith(("bn.weight", "running_var")):
            made = draw.uniform(0.5, 1.5, value.shape)
        else:
            made = draw.standard_normal(value.shape) * 0.1
        state[name] = torch.from_numpy(np.asarray(made)).float()
    return state


def images():
    """Smaller than 299×299, and larger and not square. Both modules take 8 bits a channel as they are."""
    draw = np.random.RandomState(1)
    return [torch.from_numpy(draw.randint(0, 256, (1, 3, *size)).astype(np.uint8)) for size in ((32, 32), (320, 301))]


@torch.no_grad()
def ours(state):
    network = Inception2015()
    network.load_state_dict(state, strict=False)
    network.eval()
    features = torch.cat([network(image) for image in images()])
    return {
        "resized": [resize_tensorflow1(image.float(), 299)[0, :, ::37, ::41].flatten().tolist() for image in images()],
        "features": features[:, ::32].tolist(),
        "logits": network.logits(features)[:, ::63].tolist(),
    }


@torch.no_grad()
def theirs(state, folder):
    fidelity = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
    torch.save(state | {n: torch.tensor(0) for n in Inception2015().state_dict() if n not in state}, folder / "w.pth")
    kinds = ["2048", "logits_unbiased"]
    network = fidelity.FeatureExtractorInceptionV3("inception", kinds, str(folder / "w.pth"))
    found = [network(image) for image in images()]
    resize = fidelity.interpolate_bilinear_2d_like_tensorflow1x
    resized = [resize(image.float(), size=(299, 299), align_corners=False) for image in images()]
    return {
        "resized": [image[0, :, ::37, ::41].flatten().tolist() for image in resized],
        "features": torch.cat([features for features, _ in found])[:, ::32].tolist(),
        "logits": torch.cat([logits for _, logits in found])[:, ::63].tolist(),
    }


def difference(found, expected):
    """The largest of each kind, over the largest value of that kind."""
    pairs = {name: (np.asarray(found[name]), np.asarray(expected[name])) for name in expected}
    return {name: float(np.abs(a - b).max() / np.abs(b).max()) for name, (a, b) in pairs.items()}


def agree(found, expected):
    """Features to 1e-5. Their resize takes positions in float32, up to 320 · 6e-8 of a pixel off, of up to 255 each."""
    far = difference(found, expected)
    return far["features"] < 1e-5 and far["logits"] < 1e-5 and far["resized"] < 320 * 6e-8


@pytest.fixture(scope="module")
def found():
    return ours(random_weights())


def test_inception_is_torch_fidelitys_as_recorded(found):
    expected = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert np.ptp(expected["features"]) > 0.1  # random weights that tell images and features apart
    assert agree(found, expected)


@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("torch_fidelity", "torchvision")),
    reason="torch-fidelity or its torchvision is not installed: recorded values serve",
)
def test_inception_is_torch_fidelitys_as_installed(found, tmp_path):
    assert agree(found, theirs(random_weights(), tmp_path))


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        recorded = theirs(random_weights(), Path(folder))
    RECORDED.write_text(json.dumps(recorded), encoding="utf-8")
    print(f"recorded {RECORDED}; ours differs by {difference(ours(random_weights()), recorded)}")
    sys.exit(0)
