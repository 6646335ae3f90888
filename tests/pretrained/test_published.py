"""The checkpoints in the package: there, small, with a card, and as good as the card says."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image

from psld import Clamped, Exponential
from psld.cli import main
from psld.comparison import Cell, DigitsReference, measure
from psld.evaluation.features.bundled import bundled_weights
from psld.files import read_sums, require_unchanged
from psld.pretrained import published_checkpoint, published_checkpoints
from psld.pretrained.published import FOLDER
from psld.runs import load
from psld.training import CheckpointError

NAMES = published_checkpoints()


def test_all_are_small_and_have_a_card():
    assert {"psld-digits", "psld-mnist", "mnist-denoiser"} <= set(NAMES)
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) < 20e6
    for name in NAMES:
        assert f"psld sample {name} " in (FOLDER / name / "README.md").read_text(encoding="utf-8")


def test_their_hashes_are_theirs():
    """After a change of a published file: `sha256sum config.yaml *.safetensors > SHA256SUMS` in its folder."""
    for name in NAMES:
        assert set(read_sums(FOLDER / name)) == {"config.yaml", "model_ema.safetensors", "spectrum.safetensors"}
        assert require_unchanged(FOLDER / name, read_sums(FOLDER / name))
    for name in ("digits", "mnist"):
        assert require_unchanged(bundled_weights(name).parent, [bundled_weights(name).name])


def test_a_changed_one_is_not_loaded(tmp_path):
    folder = shutil.copytree(FOLDER / "psld-digits", tmp_path / "copy")
    load(folder)
    weights = bytearray((folder / "model_ema.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model_ema.safetensors").write_bytes(weights)
    with pytest.raises(CheckpointError, match="model_ema.safetensors has changed since it was written"):
        load(folder)


def test_a_folder_of_that_name_comes_first(tmp_path, monkeypatch):
    assert published_checkpoint("psld-digits") == FOLDER / "psld-digits"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "psld-digits").mkdir()
    assert str(published_checkpoint("psld-digits")) == "psld-digits"


@pytest.mark.parametrize(
    "name", ["psld-digits", *(pytest.param(name, marks=pytest.mark.slow) for name in ("cld-digits", "vp-digits"))]
)
def test_samples_are_as_good_as_the_card_says(name):
    """Same sampler, budget and seeds as a row of the card; another processor rounds otherwise."""
    row = re.search(r"\| multistep \| 10 \| 10 \| ([\d.]+) \|", (FOLDER / name / "README.md").read_text())
    assert row is not None
    model = Clamped(load(name))
    cell = Cell.of(Exponential(order=2), "optimised", model.process, 10)
    distance = measure(cell, model, DigitsReference(), range(1000)).frechet
    assert distance == pytest.approx(float(row[1]), rel=0.15)


@pytest.mark.parametrize("name", ["psld-mnist", "mnist-denoiser"])
def test_mnist_is_sampled_by_name(name, tmp_path):
    """Without its data, which are not in the package; most of an image is background."""
    assert main(["sample", name, "--num", "2", "--steps", "5", "--grid", "optimised", "--out", str(tmp_path)]) == 0
    images = [np.asarray(Image.open(file)) for file in sorted((tmp_path / "images").iterdir())]
    assert [image.shape for image in images] == [(32, 32)] * 2
    assert all(np.median(image) < 30 and image.max() > 150 for image in images)


def test_sampling_by_name(tmp_path, capsys):
    by_option = ["sample", "--checkpoint", "psld-digits", "--num", "2", "--steps", "5", "--out", str(tmp_path / "a")]
    by_place = ["sample", "psld-digits", "--num", "2", "--steps", "5", "--out", str(tmp_path / "b")]
    assert main(by_option) == main(by_place) == 0
    assert (tmp_path / "a/images/000001.png").read_bytes() == (tmp_path / "b/images/000001.png").read_bytes()
    assert main(["sample", "psld-digits", "--checkpoint", "vp-digits", "--out", str(tmp_path / "c")]) == 1
    assert main(["sample", "--out", str(tmp_path / "c")]) == 1
    assert capsys.readouterr().err.count("Published checkpoints: ") == 2
