"""`psld train` with labels and `psld sample --label --guidance`."""

import json

import numpy as np
import pytest
import torch
import yaml

from ending import exit_code
from psld.cli import main
from psld.model import Clamped, ScoreModel
from psld.runs import load
from psld.samplers import Exponential

SIZES = {"in_channels": 2, "out_channels": 1, "image_size": 8, "width": 8, "multipliers": [1], "blocks": 1}
CONFIG = {
    "seed": 3,
    "process": {"class_path": "psld.CLD"},
    "network": {
        "class_path": "psld.networks.PreconditionedState",
        "init_args": {
            "network": {
                "class_path": "psld.networks.UNet",
                "init_args": SIZES | {"attention_resolutions": [], "classes": 10},
            }
        },
    },
    "predicts": "x0",
    "data": {"class_path": "psld.data.Digits", "init_args": {"split": "heldout"}},
    "loss": {"class_path": "psld.losses.Denoising"},
    "training": {
        "steps": 30,
        "batch_size": 16,
        "learning_rate": 0.02,
        "warmup_steps": 0,
        "label_dropout": 0.1,
        "tensorboard": False,
    },
}


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    folder = tmp_path_factory.mktemp("conditional")
    (folder / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    assert main(["train", "--config", str(folder / "run.yaml"), "--run", str(folder / "run")]) == 0
    return folder


def sampled(folder, name, *options):
    command = ["sample", str(folder / "run"), "--num", "3", "--steps", "4", "--format", "npz", "--weights", "online"]
    command += ["--sampler", "Exponential", "--grid", "log-snr"]  # the defaults depend on whether there is guidance
    assert main([*command, "--out", str(folder / name), *options]) == 0
    return np.load(folder / name / "samples.npz")["images"]


def told(model, label):
    """The model of one label, without any guidance."""
    return ScoreModel(lambda z, t: model.network(z.float(), t.float(), label=label(z)).to(z), model.process, "x0")


def by_hand(folder, model):
    grid = Exponential().grid("log-snr", model.process, 4)
    x = Exponential().sample(Clamped(model), grid=grid, seeds=range(3), shape=(1, 8, 8)).x.float().clamp(-1, 1)
    return ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def test_guidance_1_is_the_conditional_model_and_0_the_unconditional(conditional):
    model = load(conditional / "run", "online")
    of_three = by_hand(conditional, told(model, lambda z: torch.full((len(z),), 3)))
    of_none = by_hand(conditional, told(model, lambda z: None))
    assert not np.array_equal(of_three, of_none)
    assert np.array_equal(sampled(conditional, "three", "--label", "3"), of_three)
    assert np.array_equal(sampled(conditional, "one", "--label", "3", "--guidance", "1"), of_three)
    assert np.array_equal(sampled(conditional, "zero", "--label", "3", "--guidance", "0"), of_none)
    assert np.array_equal(sampled(conditional, "none"), of_none)


def test_guidance_2_extrapolates_from_the_null_class(conditional):
    """x̂₀ is linear in the score, so guidance by hand is an extrapolation of two x̂₀."""
    model = load(conditional / "run", "online")

    def extrapolated(z, t):
        here = [model.network(z.float(), t.float(), label=torch.full((len(z),), n)).to(z) for n in (10, 7)]
        return 2.0 * here[1] - here[0]

    expected = by_hand(conditional, ScoreModel(extrapolated, model.process, "x0"))
    found = sampled(conditional, "seven", "--label", "7", "--guidance", "2")
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert np.abs(found.astype(int) - sampled(conditional, "plain", "--label", "7").astype(int)).max() > 1


def test_label_and_guidance_are_recorded_and_not_mixed(conditional, capsys):
    sampled(conditional, "known", "--label", "2", "--guidance", "1.5")
    known = json.loads((conditional / "known" / "sampling.json").read_text())
    assert (known["label"], known["guidance"]) == (2, 1.5)
    command = [
        "sample",
        str(conditional / "run"),
        "--num",
        "3",
        "--steps",
        "4",
        "--format",
        "npz",
        "--weights",
        "online",
        "--sampler",
        "Exponential",
        "--grid",
        "log-snr",
    ]
    for options in (["--label", "3", "--guidance", "1.5"], []):
        assert main([*command, "--out", str(conditional / "known"), *options]) == 1
        assert "differs in label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "10"], "labels are 0 … 9: got --label 10"),
        (["--label", "-1"], "--label must be a whole number from 0 to 10,000,000: got '-1'"),
        (["--guidance", "2"], "--guidance 2.0 needs a class to guide to: give --label"),
        (["--label", "3", "--guidance", "1e999"], "--guidance must be a finite number"),
    ],
)
def test_refusals(conditional, capsys, options, message):
    assert exit_code(["sample", str(conditional / "run"), "--out", str(conditional / "refused"), *options]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (conditional / "refused").exists()


def test_a_label_for_a_run_without_labels_is_refused(tmp_path, capsys):
    assert main(["sample", "psld-digits", "--label", "3", "--out", str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "--label 3 is for runs trained with labels, and this one was not" in error
    assert not (tmp_path / "out").exists()
