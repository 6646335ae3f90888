"""`psld likelihood` as a user meets it: the file, what it depends on, and refusals."""

import json
import math

import pytest
import yaml

from psld.cli import main

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
FAST = ["--data", "psld.data.Digits", "--data.split", "heldout", "--rtol", "1e-2", "--t_min", "0.05"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("likelihood")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    assert main(["train", "--config", str(folder / "small.yaml"), "--run", str(folder / "run")]) == 0
    return folder / "run"


@pytest.mark.parametrize("dequantise", ["none", "variational"])
def test_other_dequantisation(run, tmp_path, dequantise, capsys):
    out = tmp_path / "bits.json"
    options = ["--num", "2", "--dequantise", dequantise, "--out", str(out)]
    if dequantise == "variational":
        options += ["--fit_on", "psld.data.Digits", "--fit_steps", "3"]
    assert main(["likelihood", str(run), *FAST, *options]) == 0
    result = json.loads(out.read_text())
    assert math.isfinite(result["bits_per_dimension"]["mean"])
    assert result["importance_weighted"] is None
    expected = "pixels taken as continuous" if dequantise == "none" else "variational dequantisation of 17 levels"
    assert expected in capsys.readouterr().out


@pytest.mark.parametrize(
    "options, message",
    [
        (["--num", "0"], "--num must be at least 1: got 0"),
        (["--num", "1000"], "more than the 360 images"),
        (["--levels", "256"], "not on 256 levels"),
        (["--t_min", "0"], "--t_min must lie between 0 and 1"),
        (["--dequantise", "variational"], "give --fit_on"),
        (["--fit_on", "psld.data.Digits"], "--fit_on is for --dequantise variational"),
        (["--process", "psld.CLD"], "predicts 'eps' from states of its own process"),
    ],
)
def test_refusals(run, tmp_path, options, message, capsys):
    out = tmp_path / "bits.json"
    assert main(["likelihood", str(run), *FAST, "--num", "2", "--out", str(out), *options]) == 1
    assert message in capsys.readouterr().err
    assert not out.exists()
