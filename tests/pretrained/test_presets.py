"""The published experiments: sizes of their networks, settings, and that each is whole."""

import inspect

import pytest
import torch
import yaml

import psld.data
from ending import exit_code
from psld.cli import main
from psld.cli.presets import millions
from psld.cli.train import with_preset
from psld.networks import FIR, FourierTime, NCSNpp, ResidualInput
from psld.plots import save_images
from psld.pretrained import PRESETS, Preset, preset
from psld.pretrained.presets import published_config
from psld.processes import CLD, PSLD
from psld.runs import load, load_classifier

CLASSIFIERS = [name for name, item in PRESETS.items() if item.classifier]
COUNTED = {
    "cifar10-ablation-0.01": 39.40,
    "cifar10-ablation-cld": 39.39,
    "cifar10-ablation-vp": 39.39,
    "cifar10-sota-0.01": 97.63,
    "celeba64-ablation-0.01": 66.72,
    "celeba64-sota-0.005": 62.77,
    "afhqv2-ablation-0.01": 65.82,
    "afhqv2-sota-0.01": 128.45,
    "cifar10-classifier-0.01": 56.67,
}


@pytest.mark.parametrize(("name", "size"), COUNTED.items())
def test_parameters_of_the_published_networks(name, size):
    assert round(millions(preset(name)), 2) == size


def test_parameters_of_the_networks_in_between():
    """4 blocks of (2, 2, 2): the network of the paper's 55 M column, plain and in full."""
    with torch.device("meta"):
        sizes = dict(width=128, multipliers=(2, 2, 2), blocks=4, attention_resolutions=(16,))
        options = dict(time=FourierTime(), resampling=FIR(), progressive_input=ResidualInput())
        plain = NCSNpp(6, 6, 32, **sizes)  # pyright: ignore[reportArgumentType]
        full = NCSNpp(6, 6, 32, **sizes, **options)  # pyright: ignore[reportArgumentType]
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in (plain, full)]
    assert [round(count / 1e6, 2) for count in counts] == [55.74, 56.41]


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_whole(name):
    item = preset(name)
    config = yaml.safe_load(item.text())
    assert config == item.config()
    assert config["jitter"] == (0.0 if name.endswith("-vp") else 1e-9)
    assert config["training"]["warmup_steps"] == 5000 and config["training"]["t_min"] == 1e-5
    assert config["data"]["init_args"]["flip"] is True
    if not item.classifier:
        assert (config["training"]["ema_decay"], config["training"]["clip_norm"]) == (0.9999, 1.0)
    gamma = name.rsplit("-", 1)[1]
    if gamma not in ("cld", "vp"):
        assert config["process"]["init_args"]["gamma"] == float(gamma)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_names_data_that_there_are(name):
    """The files themselves are not at hand, so the arguments are only bound."""
    section = preset(name).config()["data"]
    module, _, kind = section["class_path"].rpartition(".")
    assert module == "psld.data"
    inspect.signature(getattr(psld.data, kind)).bind(**section["init_args"])
    if kind == "CelebA":
        assert "crop" in section["init_args"]


@pytest.mark.parametrize("family", ["cifar10-ablation", "cifar10-sota"])
def test_the_ablation_of_gamma_is_complete(family):
    assert {f"{family}-{gamma}" for gamma in ("cld", "0.005", "0.01", "0.02", "0.25")} <= set(PRESETS)


def test_the_list_says_what_the_paper_reports(capsys):
    assert main(["presets"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert set(PRESETS) < set(lines)
    assert "97.63 M" in lines["cifar10-sota-0.01"] and "2.10 @ 246" in lines["cifar10-sota-0.01"]


def test_one_preset_is_printed_as_yaml(capsys):
    assert main(["presets", "cifar10-ablation-0.02"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["process"]["init_args"]["gamma"] == 0.02


def test_an_unknown_preset_is_refused(capsys):
    assert main(["presets", "cifar-sota"]) == 1
    assert "Did you mean cifar10-sota-" in capsys.readouterr().err


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folders of four small pictures, by size."""
    folders = {}
    for size in (32, 64, 128):
        folders[size] = tmp_path_factory.mktemp(f"pictures{size}")
        save_images(torch.rand(4, 3, size, size) * 2 - 1, folders[size])
    return folders


def smoke(name, pictures, folder):
    """Two steps of a preset, its network narrowed, on pictures of its size."""
    config = preset(name).config()
    network = config["network"]["init_args"]
    network["width"] = 8
    size = network["image_size"]
    config["data"] = {
        "class_path": "psld.data.ImageFolder",
        "init_args": {"root": str(pictures[size]), "image_size": size},
    }
    (folder / "preset.yaml").write_text(yaml.safe_dump(config))
    run = ["--run", str(folder / "run"), "--limit", "2", "--training.tensorboard", "false"]
    assert main(["train", "--config", str(folder / "preset.yaml"), *run]) == 0
    rows = (folder / "run" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2"]
    model = load(folder / "run")
    shape = model.known_shape()
    assert shape == (3, size, size) and model.jitter == config["jitter"]


@pytest.mark.parametrize(
    "name",
    [name if name == "cifar10-classifier-0.01" else pytest.param(name, marks=pytest.mark.slow) for name in CLASSIFIERS],
)
def test_a_smoke_run_of_a_classifier(name, monkeypatch, tmp_path):
    """Two steps of it, narrowed, on two classes of pictures of its size."""
    config = preset(name).config()
    size = config["network"]["init_args"]["image_size"]
    for label in ("one", "two"):
        save_images(torch.rand(3, 3, size, size) * 2 - 1, tmp_path / "pictures" / label)
    monkeypatch.setattr(Preset, "text", lambda self: yaml.safe_dump(config))
    data = {"root": str(tmp_path / "pictures"), "image_size": size, "flip": True}
    config["data"] = {"class_path": "psld.data.ImageFolder", "init_args": data}
    narrow = ["--network.width", "8", "--network.classes", "2", "--training.tensorboard", "false"]
    run = ["--preset", name, "--run", str(tmp_path / "run"), "--limit", "2", *narrow]
    assert main(["train-classifier", *run]) == 0
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2"]
    loaded = load_classifier(tmp_path / "run")
    assert (loaded.classes, loaded.data_shape) == (2, (3, size, size))
    assert loaded.process.same_marginals(CLD() if name.endswith("cld") else PSLD(0.01))


SCORES = [name for name, item in PRESETS.items() if not item.classifier]


@pytest.mark.parametrize("name", ["cifar10-ablation-vp", "cifar10-sota-cld", "celeba64-sota-0.005"])
def test_a_smoke_run(name, pictures, tmp_path):
    smoke(name, pictures, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCORES)
def test_a_smoke_run_of_every_preset(name, pictures, tmp_path):
    smoke(name, pictures, tmp_path)


def test_a_preset_is_a_configuration_with_options_on_top():
    assert with_preset(["--preset", "cifar10-sota-0.01", "--run", "x"])[:2] == [
        "--config",
        preset("cifar10-sota-0.01").text(),
    ]
    assert with_preset(["--preset=cifar10-sota-0.01"])[1].startswith("# CIFAR-10, the best network")
    with pytest.raises(ValueError, match="no preset 'cifar'"):
        with_preset(["--preset", "cifar"])


def test_train_takes_a_preset_by_name(monkeypatch, pictures, tmp_path):
    text = preset("cifar10-ablation-0.02").config()
    text["data"] = {"class_path": "psld.data.ImageFolder", "init_args": {"root": "nowhere", "image_size": 32}}
    monkeypatch.setattr(Preset, "text", lambda self: yaml.safe_dump(text))
    run = ["--run", str(tmp_path / "run"), "--limit", "1", "--training.tensorboard", "false"]
    changed = ["--data.root", str(pictures[32]), "--network.width", "8"]
    assert main(["train", "--preset", "cifar10-ablation-0.02", *changed, *run]) == 0
    model = load(tmp_path / "run")
    assert repr(model.process) == "PSLD(gamma=0.02)"


@pytest.mark.parametrize("name", ["cifar10-ablation-0.01", "cifar10-sota-0.02"])
def test_a_preset_runs_on_real_pixels_without_a_download(name, tmp_path):
    pytest.importorskip("skimage")
    data = ["--data", "psld.data.Patches", "--data.count", "16", "--data.flip", "true"]
    run = ["--run", str(tmp_path / "run"), "--limit", "4", "--training.tensorboard", "false"]
    assert main(["train", "--preset", name, *data, "--network.width", "8", *run]) == 0
    rows = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["step", "1", "2", "3", "4"]
    assert yaml.safe_load(next((tmp_path / "run").rglob("config.yaml")).read_text())["data"]["class_path"] == (
        "psld.data.Patches"
    )


def test_limit_refuses_no_steps(pictures, tmp_path, capsys):
    run = ["--run", str(tmp_path / "run"), "--limit", "0"]
    assert exit_code(["train", "--config", str(published_config("digits")), *run]) == 2
    assert "--limit must be a whole number from 1" in capsys.readouterr().err and not (tmp_path / "run").exists()
