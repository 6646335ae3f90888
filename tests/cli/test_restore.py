"""`psld restore` against the library, with measurements of the same seeds; grey and small pictures; refusals."""

import re
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from psld.cli import main
from psld.inverse.operators import GaussianBlur, Grayscale, SuperResolution
from psld.inverse.posterior import MMPS, PiGDM
from psld.jobs import degraded
from psld.noise import SeededNoise
from psld.plots.pictures import load_images
from psld.runs import load
from psld.samplers import Ancestral
from restored_digits import digits_in, drawn, levels, refused


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return folder, digits_in(folder)


def command(folder, out, operator, *options, run="psld-digits"):
    names = ["--num", "2", "--draws", "2", "--steps", "5", "--grid", "quadratic", "--seed", "7"]
    return [str(part) for part in ["restore", run, folder, "--out", out, "--operator", operator, *names, *options]]


@pytest.mark.parametrize(
    ("name", "options", "operator", "noise", "kind"),
    [
        ("SuperResolution", [], SuperResolution(2), 0.05, MMPS),
        (
            "GaussianBlur",
            ["--operator.std", "0.7", "--noise", "0.2", "--method", "PiGDM"],
            GaussianBlur(0.7),
            0.2,
            PiGDM,
        ),
    ],
)
def test_a_draw_is_that_of_its_seed_and_its_measurement(
    pictures, tmp_path, capsys, name, options, operator, noise, kind
):
    folder, images = pictures
    assert main(command(folder, tmp_path / "out", name, "--batch_size", "3", *options)) == 0
    said = capsys.readouterr().out
    found, measured = (
        levels(tmp_path / "out" / "images"),
        load_images(sorted((tmp_path / "out" / "measured").iterdir())),
    )
    y = operator.forward(images[:2].double())
    y = y + noise * SeededNoise(range(2**31 + 7, 2**31 + 9), tuple(y.shape[1:]))()
    torch.testing.assert_close(measured.double(), y.clamp(-1, 1), rtol=0, atol=0.51 / 127.5)
    model = load("psld-digits")
    for i in (1, 2):
        asked = kind(model, operator, y[i // 2 : i // 2 + 1], noise)
        alone = drawn(Ancestral(), asked, Ancestral().grid("quadratic", model.process, 5), 7 + i)
        assert np.abs(found[i] - alone).max() <= 1
    x = load_images(sorted((tmp_path / "out" / "images").iterdir())).double()
    for words, difference in (
        ("to the truth", x - images[:2].double().repeat_interleave(2, 0)),
        ("the one given", operator.forward(x) - y.repeat_interleave(2, 0)),
    ):
        printed = re.search(words + r" (\d\.\d+)", said)
        assert printed and float(printed[1]) == pytest.approx(float(difference.square().mean().sqrt()), abs=1e-4)


def test_noise_of_measurements_is_not_that_of_draws():
    """Each of the law that is said, and of seeds that no draw has: torch's generators read 32 bits of a seed."""
    operator, n = GaussianBlur(1.0), 60
    images = torch.zeros(n, 1, 8, 8)
    noise = degraded(operator, images, 0.3, seed=5) / 0.3
    assert float(noise.std()) == pytest.approx(1.0, abs=0.05)
    for seeds in (range(5, 5 + n), range(n)):
        other = SeededNoise(seeds, (1, 8, 8))()
        assert abs(float((noise * other).mean())) < 5 / (64 * n) ** 0.5
    torch.testing.assert_close(degraded(operator, images[:2], 0.3, seed=6), 0.3 * noise[1:3])


def test_more_of_the_truth_than_without_a_measurement(pictures, tmp_path, capsys):
    """A measurement with little noise: draws agree with it, and with the truth more than draws of other images do."""
    folder, images = pictures
    options = ["--steps", "16", "--noise", "0.02", "--operator.std", "0.6"]
    assert main(command(folder, tmp_path / "out", "GaussianBlur", *options)) == 0
    x = load_images(sorted((tmp_path / "out" / "images").iterdir())).unflatten(0, (2, 2))
    own, other = (float((x - truth[:, None]).square().mean().sqrt()) for truth in (images[:2], images[[1, 0]]))
    assert own < 0.25 * other
    left = re.search(r"the one given (\d\.\d+)", capsys.readouterr().out)
    assert left and float(left[1]) < 0.06


def test_measurements_of_ones_own_are_smaller(tmp_path, capsys):
    small = SuperResolution(4).forward(digits_in(tmp_path / "digits", 2))
    files = [tmp_path / "small" / f"{i}.png" for i in range(2)]
    files[0].parent.mkdir()
    for file, image in zip(files, small, strict=True):
        Image.fromarray(((image[0] + 1) * 127.5).round().byte().numpy()).save(file)
    y = load_images(files).double()
    options = ["--operator.factor", "4", "--degraded"]
    assert main(command(tmp_path / "small", tmp_path / "out", "SuperResolution", *options)) == 0
    assert "truth" not in capsys.readouterr().out and not (tmp_path / "out" / "measured").exists()
    model = load("psld-digits")
    asked = MMPS(model, SuperResolution(4), y[1:], 0.05)
    alone = drawn(Ancestral(), asked, Ancestral().grid("quadratic", model.process, 5), 10)
    assert np.abs(levels(tmp_path / "out" / "images")[3] - alone).max() <= 1


@pytest.fixture(scope="module")
def colour(tmp_path_factory):
    """A run of one step on colour images, and a folder of two of them."""
    folder = tmp_path_factory.mktemp("colour")
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), dtype=np.uint8)
    np.savez(folder / "data.npz", images=pixels)
    (folder / "pictures").mkdir()
    for i in range(2):
        Image.fromarray(pixels[i]).save(folder / "pictures" / f"{i}.png")
    sizes = {"in_channels": 3, "out_channels": 3, "image_size": 8, "width": 8, "multipliers": [1], "blocks": 1}
    config = {
        "process": {"class_path": "psld.VPSDE"},
        "network": {"class_path": "psld.networks.UNet", "init_args": sizes | {"attention_resolutions": []}},
        "data": {"class_path": "psld.data.ArrayFile", "init_args": {"file": str(folder / "data.npz"), "key": "images"}},
        "loss": {"class_path": "psld.losses.HSM"},
        "training": {"steps": 1, "batch_size": 4, "warmup_steps": 0, "tensorboard": False},
    }
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--config", str(folder / "run.yaml"), "--run", str(folder / "run")]) == 0
    return folder


def test_colorize(colour, tmp_path):
    """Grey measurements of colour images, and colour draws; grey pictures as measurements."""
    pictures, run = colour / "pictures", colour / "run"
    assert main(command(pictures, tmp_path / "out", "Grayscale", "--noise", "0", run=run)) == 0
    grey = np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / "out" / "measured").iterdir())])
    expected = levels(pictures) @ np.array([0.299, 0.587, 0.114])
    assert np.abs(grey - expected).max() <= 1
    assert levels(tmp_path / "out" / "images").shape == (4, 8, 8, 3)
    options = ["--noise", "0.01", "--degraded"]
    assert main(command(tmp_path / "out" / "measured", tmp_path / "again", "Grayscale", *options, run=run)) == 0
    y = load_images(sorted((tmp_path / "out" / "measured").iterdir())).double()
    model = load(run)
    asked = MMPS(model, Grayscale(), y[:1], 0.01)
    alone = drawn(Ancestral(), asked, Ancestral().grid("quadratic", model.process, 5), 8, (3, 8, 8))
    assert np.abs(levels(tmp_path / "again" / "images")[1] - alone).max() <= 1


def test_refusals(pictures, tmp_path, capsys):
    folder, _ = pictures
    out = tmp_path / "out"
    for name, options, words in (
        ("SuperResolution", ["--operator.factor", "3"], "not made of 3×3 blocks"),
        ("SuperResolution", ["--operator.factor", "1"], "factor must be at least 2"),
        ("SuperResolution", ["--degraded"], "8×8 grey, and measurements of SuperResolution(factor=2) are 4×4 grey"),
        ("GaussianBlur", ["--operator.std", "0"], "std must be positive, and at most 2048 pixels: got 0.0"),
        ("GaussianBlur", ["--operator.std", "5"], "take a smaller blur"),
        ("GaussianBlur", ["--operator.std", "1", "--noise", "-1"], "noise must be a finite number of at least 0"),
        ("Grayscale", [], "colour images (B, 3, H, W) are needed: got shape (1, 1, 8, 8)"),
    ):
        refused(capsys, command(folder, out, name, *options), words, out)
    for name, options, words in (
        ("SuperResolution", ["--operator.std", "1"], "SuperResolution has no argument 'std': it has factor."),
        ("GaussianBlur", [], "GaussianBlur needs --operator.std."),
        ("Grayscale", ["--method", "DPS", "--method.iterations", "2"], "DPS has no argument 'iterations'"),
    ):
        with pytest.raises(SystemExit):
            main(command(folder, out, name, *options))
        assert words in capsys.readouterr().err and not out.exists()


def test_an_operator_and_a_method_of_ones_own(pictures, tmp_path, monkeypatch):
    """Every second row of pixels, weighed as MMPS does: the draws are those that the library makes."""
    (tmp_path / "my_code").mkdir()
    (tmp_path / "my_code" / "my_measurement.py").write_text(
        "from psld.inverse.operators import LinearOperator\nfrom psld.inverse.posterior import MMPS\n"
        "class Rows(LinearOperator):\n"
        "    def __init__(self, every: int):\n        self.every = every\n"
        "    def forward(self, x):\n        return x[..., :: self.every, :]\n"
        "    def adjoint(self, y):\n"
        "        x = y.new_zeros(*y.shape[:-2], y.shape[-2] * self.every, y.shape[-1])\n"
        "        x[..., :: self.every, :] = y\n        return x\n"
        "    def solve(self, v, a, b):\n        return v / (a + b)\n"
        "class Fewer(MMPS):\n"
        "    def __init__(self, model, operator, observation, noise, rounds: int = 1):\n"
        "        super().__init__(model, operator, observation, noise, iterations=rounds)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "my_code"))
    folder, images = pictures
    options = ["--operator.every", "2", "--noise", "0", "--method", "my_measurement.Fewer", "--method.rounds", "2"]
    assert main(command(folder, tmp_path / "out", "my_measurement.Rows", *options)) == 0
    from my_measurement import Rows  # pyright: ignore[reportMissingImports]

    model = load("psld-digits")
    asked = MMPS(model, Rows(2), images[:1, :, ::2].double(), 0.0, iterations=2)
    alone = drawn(Ancestral(), asked, Ancestral().grid("quadratic", model.process, 5), 8)
    assert np.abs(levels(tmp_path / "out" / "images")[1] - alone).max() <= 1
    sys.modules.pop("my_measurement")
