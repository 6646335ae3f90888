"""`psld likelihood` as a user meets it: the file, what it depends on, and refusals."""

import json
import math

import numpy as np
import pytest
import torch
import yaml

from ending import exit_code
from psld.cli import main
from psld.data import Digits
from psld.likelihood import Hutchinson, ProbabilityFlow, bound
from psld.likelihood.dequantisation import Uniform
from psld.runs import load

SMALL = {
    "seed": 3,
    "process": {"class_path": "psld.PSLD"},
    "network": {
        "class_path": "psld.networks.UNet",
        "init_args": {
            "in_channels": 2,
            "out_channels": 2,
            "image_size": 8,
            "width": 8,
            "multipliers": [1],
            "blocks": 1,
            "attention_resolutions": [],
        },
    },
    "data": {"class_path": "psld.data.Digits", "init_args": {"split": "train"}},
    "loss": {"class_path": "psld.losses.HSM"},
    "training": {"steps": 4, "batch_size": 8, "log_every": 2, "warmup_steps": 0, "tensorboard": False},
}
FAST = ["--data", "Digits", "--data.split", "heldout", "--rtol", "1e-2", "--t_min", "0.05"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("likelihood")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    assert main(["train", "--config", str(folder / "small.yaml"), "--run", str(folder / "run")]) == 0
    return folder / "run"


def test_mean_and_error_are_those_of_the_bounds(run, capsys):
    """The library's bounds, one image at a time, against the batches of the command."""
    options = ["--num", "3", "--batch_size", "2", "--draws", "2", "--seed", "5"]
    assert main(["likelihood", str(run), *FAST, *options]) == 0
    result = json.loads((run / "likelihood.json").read_text())
    flow = ProbabilityFlow(load(run), Hutchinson(), 1e-2, 1e-2)
    images = Digits("heldout")
    found = [bound(flow, images[i][None], 0.05, [5 + i], 2, Uniform(17)) for i in range(3)]
    bits = np.array([-float(each.evidence) / (64 * math.log(2)) for each in found])
    tighter = np.array([-float(each.importance) / (64 * math.log(2)) for each in found])
    np.testing.assert_allclose(result["bits_of_each_image"], bits, rtol=1e-4)
    assert result["bits_per_dimension"]["mean"] == pytest.approx(bits.mean(), rel=1e-4)
    assert result["bits_per_dimension"]["standard_error"] == pytest.approx(bits.std(ddof=1) / math.sqrt(3), rel=1e-3)
    assert result["importance_weighted"]["mean"] == pytest.approx(tighter.mean(), rel=1e-4)
    assert result["settings"]["levels"] == 17 and result["settings"]["process"] == "PSLD(gamma=0.01)"
    shown = capsys.readouterr().out
    assert f"{bits.mean():.4f} ± " in shown and "uniform dequantisation of 17 levels" in shown
    assert main(["likelihood", str(run), *FAST]) == 1
    assert "is there already: give another --out" in capsys.readouterr().err


@pytest.mark.parametrize("dequantise", ["none", "variational"])
def test_other_dequantisation(run, tmp_path, dequantise, capsys):
    out = tmp_path / "bits.json"
    options = ["--num", "2", "--dequantise", dequantise, "--out", str(out)]
    if dequantise == "variational":
        options += ["--fit_on", "Digits", "--fit_steps", "3"]
    assert main(["likelihood", str(run), *FAST, *options]) == 0
    result = json.loads(out.read_text())
    assert math.isfinite(result["bits_per_dimension"]["mean"])
    assert result["importance_weighted"] is None
    expected = "pixels taken as continuous" if dequantise == "none" else "variational dequantisation of 17 levels"
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--num", "0"], "--num must be a whole number from 1 to 10,000,000: got '0'"),
        (["--num", "1000"], "more than the 360 images"),
        (["--levels", "256"], "not on 256 levels"),
        (["--t_min", "1"], "--t_min must lie between 0 and 1"),
        (["--dequantise", "variational"], "give --fit_on"),
        (["--fit_on", "Digits"], "--fit_on is for --dequantise variational"),
        (["--process", "psld.CLD"], "predicts 'eps' from states of its own process"),
    ],
)
def test_refusals(run, tmp_path, options, message, capsys):
    out = tmp_path / "bits.json"
    assert exit_code(["likelihood", str(run), *FAST, "--num", "2", "--out", str(out), *options]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_images_of_another_shape(run, tmp_path, capsys):
    array = tmp_path / "wide.npz"
    np.savez(array, images=torch.zeros(2, 8, 9, 1, dtype=torch.uint8).numpy())
    command = ["likelihood", str(run), "--data", "psld.data.ArrayFile", "--data.file", str(array), "--num", "2"]
    assert main([*command, "--out", str(tmp_path / "bits.json")]) == 1
    assert "the run makes images of shape (1, 8, 8), the data have (1, 8, 9)" in capsys.readouterr().err
