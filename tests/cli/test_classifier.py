"""`psld train-classifier`, and `psld sample --classifier`."""

import copy
import json
import re

import numpy as np
import pytest
import torch
import yaml

from ending import exit_code
from psld.cli import main
from psld.guidance.classifier_guidance import ClassifierGuidance
from psld.jobs import weights_sha256
from psld.model import Clamped
from psld.processes import CLD
from psld.runs import load, load_classifier
from psld.samplers import Exponential
from psld.training.reading import read_checkpoint

SIZES = {"in_channels": 2, "image_size": 8, "width": 8, "multipliers": [1], "blocks": 1, "attention_resolutions": []}
CONFIG = {
    "seed": 3,
    "process": {"class_path": "psld.CLD", "init_args": {"kappa": 0.1}},
    "network": {"class_path": "psld.networks.NoiseClassifier", "init_args": SIZES | {"classes": 10, "dropout": 0.2}},
    "data": {"class_path": "psld.data.Digits", "init_args": {"split": "heldout"}},
    "training": {"steps": 12, "batch_size": 16, "learning_rate": 0.01, "warmup_steps": 0, "tensorboard": False},
}
SCORES = CONFIG | {
    "network": {"class_path": "psld.networks.UNet", "init_args": SIZES | {"out_channels": 1}},
    "loss": {"class_path": "psld.losses.HSM"},
    "training": CONFIG["training"] | {"steps": 6},
}
SOFTER = ["--guidance", "ClassifierGuidance", "--guidance.temperature", "2"]


def trained(folder, name, config, command, *options):
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--config", str(folder / f"{name}.yaml"), "--run", str(folder / name), *options]
    assert main([command, *arguments]) == 0
    return folder / name


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A classifier of twelve steps and an unconditional score model of six, of one process."""
    folder = tmp_path_factory.mktemp("guided")
    trained(folder, "classifier", CONFIG, "train-classifier")
    trained(folder, "scores", SCORES, "train")
    return folder


def sampled(runs, name, *options, of="scores"):
    command = ["sample", str(runs / of), "--num", "3", "--steps", "4", "--format", "npz", "--weights", "online"]
    command += ["--sampler", "Exponential", "--grid", "log-snr"]  # the defaults depend on whether there is guidance
    assert main([*command, "--out", str(runs / name), *options]) == 0
    return np.load(runs / name / "samples.npz")["images"]


def by_hand(model):
    grid = Exponential().grid("log-snr", model.process, 4)
    x = Exponential().sample(Clamped(model), grid=grid, seeds=range(3), shape=(1, 8, 8)).x.float().clamp(-1, 1)
    return ((x + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


# -- training ----------------------------------------------------------------------------------------------------------


def test_a_run_is_loaded_with_its_average_its_process_and_the_shape_of_its_images(runs):
    loaded = load_classifier(runs / "classifier")
    network = loaded.network
    assert (loaded.classes, repr(loaded.process), loaded.data_shape) == (10, "CLD(kappa=0.1)", (1, 8, 8))
    averages = read_checkpoint(next((runs / "classifier" / "checkpoints").iterdir())).averages
    assert all(torch.equal(value, averages[name]) for name, value in network.state_dict().items())
    assert not network.training and not any(parameter.requires_grad for parameter in network.parameters())


def test_what_a_checkpoint_keeps_trains_the_same_run_again(runs, tmp_path):
    kept = next((runs / "classifier").rglob("config.yaml")).read_text()
    assert yaml.safe_load(kept)["loss"]["class_path"] == "psld.losses.CrossEntropy"
    assert not {"run", "resume", "overwrite", "limit", "preset", "predicts"} & set(yaml.safe_load(kept))
    again = trained(tmp_path, "again", yaml.safe_load(kept), "train-classifier")
    first, second = (read_checkpoint(next((run / "checkpoints").iterdir())) for run in (runs / "classifier", again))
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_resumes_bit_for_bit(runs, tmp_path):
    trained(tmp_path, "parts", CONFIG, "train-classifier", "--training.steps", "5")
    trained(tmp_path, "parts", CONFIG, "train-classifier", "--resume")
    whole = read_checkpoint(next((runs / "classifier" / "checkpoints").iterdir()))
    parts = read_checkpoint(max((tmp_path / "parts" / "checkpoints").iterdir()))
    assert parts.step == whole.step == 12
    for want, found in ((whole.weights, parts.weights), (whole.averages, parts.averages)):
        assert all(torch.equal(want[name], found[name]) for name in want)


def test_limit_and_the_published_digits_configuration(tmp_path):
    from psld.pretrained.presets import published_config

    config = yaml.safe_load(published_config("digits-classifier").read_text())
    config["training"]["tensorboard"] = False
    run = trained(tmp_path, "run", config, "train-classifier", "--limit", "2")
    rows = (run / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2"]
    assert load_classifier(run).process.same_marginals(load("psld-digits").process)


@pytest.mark.parametrize(
    ("command", "change", "message"),
    [
        ("train-classifier", {"network": SCORES["network"]}, "UNet"),
        ("train-classifier", {"loss": {"class_path": "psld.losses.HSM"}}, "HSM"),
        ("train", {"loss": {"class_path": "psld.losses.CrossEntropy"}}, "psld train-classifier trains it"),
        ("train-classifier", {"training": CONFIG["training"] | {"label_dropout": 0.1}}, "needs every label: leave"),
    ],
)
def test_what_is_no_classifier_is_refused(tmp_path, capsys, command, change, message):
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(copy.deepcopy(CONFIG) | change))
    try:
        assert main([command, "--config", str(tmp_path / "run.yaml"), "--run", str(tmp_path / "run")]) == 1
    except SystemExit as usage:  # an argument of the wrong type
        assert usage.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


# -- sampling ----------------------------------------------------------------------------------------------------------


def test_guidance_0_is_the_run_itself_bit_for_bit(runs):
    classifier = ["--classifier", str(runs / "classifier"), "--label", "3"]
    plain, unguided = sampled(runs, "plain"), sampled(runs, "zero", *classifier, "--guidance", "0")
    assert np.array_equal(plain, unguided)
    assert not np.array_equal(plain, sampled(runs, "guided", *classifier, "--guidance", "3"))


@pytest.mark.parametrize(
    ("name", "options", "scale", "temperature"),
    [
        ("one", [], 1.0, 1.0),
        ("stronger", ["--guidance", "2.5"], 2.5, 1.0),
        ("softer", [*SOFTER[:-1], "3", "--guidance.scale", "2.5"], 2.5, 3.0),
    ],
)
def test_guided_images_are_those_of_the_score_and_the_classifier_by_hand(runs, name, options, scale, temperature):
    model = load(runs / "scores", "online")
    network = load_classifier(runs / "classifier").network
    expected = by_hand(ClassifierGuidance(model, lambda z, t: network(z.float(), t.float()), 7, scale, temperature))
    found = sampled(runs, name, "--classifier", str(runs / "classifier"), "--label", "7", *options)
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 1
    assert np.abs(found.astype(int) - by_hand(model).astype(int)).max() > 1


def test_a_run_with_labels_is_guided_from_its_null_class(runs):
    """Classifier guidance adds p(label | z) to p(z), which a conditional network has as its null class."""
    config = SCORES | {"network": copy.deepcopy(SCORES["network"])}
    config["network"]["init_args"]["classes"] = 10
    config["training"] = SCORES["training"] | {"label_dropout": 0.5}
    trained(runs, "conditional", config, "train")
    classifier = ["--classifier", str(runs / "classifier"), "--label", "3", "--guidance", "0"]
    unguided = sampled(runs, "unguided", *classifier, of="conditional")
    assert np.array_equal(unguided, sampled(runs, "null", of="conditional"))
    assert not np.array_equal(unguided, sampled(runs, "three", "--label", "3", of="conditional"))


def test_classifier_and_temperature_are_recorded_and_not_mixed(runs, capsys):
    classifier = ["--classifier", str(runs / "classifier"), "--label", "2", *SOFTER]
    sampled(runs, "known", *classifier)
    known = json.loads((runs / "known" / "sampling.json").read_text())
    assert known["guidance"]["init_args"]["temperature"] == 2.0
    network = load_classifier(runs / "classifier").network
    (guidance,) = [wrapper for wrapper in known["wrappers"] if "classifier" in wrapper]
    assert guidance["classifier"] == weights_sha256(network)
    command = ["sample", str(runs / "scores"), "--num", "3", "--steps", "4", "--format", "npz", "--weights", "online"]
    assert main([*command, "--out", str(runs / "known")]) == 1
    assert "differs in label, guidance, wrappers" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "10"], "label must be in 0 … 9, as the classifier has them: got 10"),
        (["--label", "-1"], "--label must be a whole number from 0 to 10,000,000: got '-1'"),
        ([], "needs a class to guide to: give --label"),
        (["--label", "3", "--guidance", "1e999"], "--guidance must be a finite number"),
        (["--label", "3", "--guidance", ".nan"], "--guidance must be a finite number"),
        (["--label", "3", *SOFTER[:-1], "0"], "temperature must be a positive, finite number: got 0.0"),
    ],
)
def test_refusals(runs, capsys, options, message):
    command = ["sample", str(runs / "scores"), "--classifier", str(runs / "classifier")]
    assert exit_code([*command, "--out", str(runs / "refused"), *options]) in (1, 2)
    assert message in capsys.readouterr().err
    assert not (runs / "refused").exists()


@pytest.mark.parametrize(
    ("run", "classifier", "message"),
    [
        ("scores", "scores", r"holds a score model and no classifier \(UNet\): train one with psld train-classifier"),
        ("classifier", "classifier", r"holds a classifier of noisy images: it guides a score model"),
        ("scores", "other", r"trained on states of CLD\(kappa=0.1, beta=4\), and the model is of CLD\(kappa=0.1\)"),
        ("scores", "coloured", r"classifies images of 8×8 pixels and 3 channel\(s\), and the run draws 8×8 and 1"),
        ("scores", "missing", r"no checkpoint|missing"),
    ],
)
def test_a_classifier_that_does_not_fit_is_refused(runs, capsys, run, classifier, message):
    if classifier == "other":
        config = CONFIG | {"process": {"class_path": "psld.CLD", "init_args": {"kappa": 0.1, "beta": 4.0}}}
        trained(runs, "other", config, "train-classifier", "--limit", "1", "--overwrite")
    if classifier == "coloured":
        trained(runs, "coloured", CONFIG, "train-classifier", "--limit", "1", "--overwrite")
        file = next((runs / "coloured").rglob("config.yaml"))
        file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"image_shape": [3, 8, 8]}))
        (file.parent / "SHA256SUMS").unlink()
    command = ["sample", str(runs / run), "--classifier", str(runs / classifier), "--label", "3"]
    assert main([*command, "--out", str(runs / "refused")]) == 1
    assert re.search(message, capsys.readouterr().err)
    assert not (runs / "refused").exists()


def test_guidance_without_its_classifier_is_refused(runs, capsys):
    assert main(["sample", str(runs / "scores"), "--label", "3", *SOFTER, "--out", str(runs / "refused")]) == 1
    assert "--guidance ClassifierGuidance needs --classifier" in capsys.readouterr().err


def test_another_process_for_a_denoiser_needs_a_classifier_of_it(runs, capsys):
    """The classifier has to be of the process that is sampled, whatever the run was trained with."""
    config = SCORES | {"process": {"class_path": "psld.VPSDE"}, "predicts": "denoiser"}
    config |= {"loss": {"class_path": "psld.losses.Denoising"}, "network": copy.deepcopy(SCORES["network"])}
    config["network"]["init_args"]["in_channels"] = 1
    trained(runs, "denoiser", config, "train")
    classifier = ["--classifier", str(runs / "classifier"), "--label", "3"]
    under_cld = ["--process", "psld.CLD", "--process.kappa", "0.1"]
    sampled(runs, "under-cld", *classifier, *under_cld, of="denoiser")
    assert main(["sample", str(runs / "denoiser"), "--out", str(runs / "refused"), *classifier]) == 1
    assert "and the model is of VPSDE()" in capsys.readouterr().err
    assert repr(load(runs / "denoiser", process=CLD(kappa=0.1)).process) == "CLD(kappa=0.1)"
