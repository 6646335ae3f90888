"""The program as a user meets it: exit codes, files, and refusals that leave nothing behind."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file

from ending import exit_code
from interrupted import killed_at_the_second_batch
from psld.cli import main, sample
from psld.jobs import own_share
from psld.pretrained.presets import published_config
from psld.runs import load
from psld.samplers.grids import Grid
from psld.training import latest_checkpoint
from small_config import SMALL


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A CLD run of four steps, whose network predicts the one row that has noise."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "small.yaml").write_text(yaml.safe_dump(SMALL))
    assert main(["train", "--config", str(folder / "small.yaml"), "--run", str(folder / "run")]) == 0
    return folder


def test_a_run_knows_its_process_and_image_shape(trained):
    model = load(trained / "run")
    shape = model.known_shape()
    assert (repr(model.process), shape) == ("CLD()", (1, 8, 8))


def test_sample_writes_what_it_says_and_continues_by_seed(trained):
    for out, num, seed, batch in (("a", 5, 0, 2), ("b", 2, 3, 256)):
        options = ["--num", str(num), "--seed", str(seed), "--batch_size", str(batch), "--steps", "3"]
        assert main(["sample", str(trained / "run"), "--out", str(trained / out), *options]) == 0
    assert Image.open(trained / "a" / "images" / "000004.png").size == (8, 8)
    first = np.asarray(Image.open(trained / "a" / "images" / "000003.png"), dtype=int)
    again = np.asarray(Image.open(trained / "b" / "images" / "000000.png"), dtype=int)
    assert np.abs(first - again).max() <= 1  # the network's own rounding may differ with the batch size


def test_sample_npz(trained):
    options = ["--num", "3", "--steps", "2", "--format", "npz", "--sampler", "Ancestral"]
    assert main(["sample", str(trained / "run"), "--out", str(trained / "npz"), *options]) == 0
    assert np.load(trained / "npz" / "samples.npz")["images"].shape == (3, 8, 8, 1)


def test_sample_reads_a_checkpoint_in_slices(trained, tmp_path):
    """Three files as the documentation describes them: tensors cut along dimension 0, their shapes beside."""
    folder = shutil.copytree(latest_checkpoint(trained / "run"), tmp_path / "slices")
    (folder / "SHA256SUMS").unlink()  # the files become others
    shutil.copy(trained / "run" / "spectrum.safetensors", folder)  # which the checkpoints of a run share
    for name in ("model", "model_ema"):
        tensors = load_file(folder / f"{name}.safetensors")
        (folder / f"{name}.safetensors").unlink()
        shapes = json.dumps({key: list(tensor.shape) for key, tensor in tensors.items()})
        for rank in range(3):
            step = {key: -(-len(tensor) // 3) for key, tensor in tensors.items()}
            own = {key: tensor[rank * step[key] :][: step[key]].clone() for key, tensor in tensors.items()}
            save_file(own, folder / f"{name}-0000{rank + 1}-of-00003.safetensors", {"shapes": shapes})
    for run, out in ((trained / "run", "whole"), (folder, "cut")):
        options = ["--num", "3", "--steps", "2", "--format", "npz", "--out", str(tmp_path / out)]
        assert main(["sample", str(run), *options]) == 0
    whole, cut = (np.load(tmp_path / out / "samples.npz")["images"] for out in ("whole", "cut"))
    assert np.array_equal(whole, cut)


def test_warnings_of_psld_are_one_plain_line(trained, capsys):
    shutil.copytree(trained / "run", trained / "unchecked")
    folder = latest_checkpoint(trained / "unchecked")
    (folder / "SHA256SUMS").unlink()
    command = ["train", "--config", str(trained / "small.yaml"), "--run", str(trained / "unchecked"), "--resume"]
    assert main(command) == 0
    words = "has no SHA256SUMS, so it cannot be seen whether its files are what was written."
    assert f"psld train: {folder} {words}\n" in capsys.readouterr().err.splitlines(keepends=True)


def test_the_grid_is_written_while_the_folder_is_locked(trained, monkeypatch):
    written = []

    def seen(images, file, real=sample.save_grid):
        assert (trained / ".locked-grid.lock").exists()
        written.append(file)
        return real(images, file)

    monkeypatch.setattr(sample, "save_grid", seen)
    options = ["--num", "1", "--steps", "2", "--out", str(trained / "locked-grid")]
    assert main(["sample", str(trained / "run"), *options]) == 0
    assert written == [trained / "locked-grid/grid.png"]
    assert not (trained / ".locked-grid.lock").exists()


@pytest.mark.parametrize("kind", ["png", "npz"])
def test_sample_goes_on_with_what_is_missing(trained, kind, monkeypatch):
    """A job killed after its first batch, then run again, then asked for more: the same images as in one go."""
    command = ["sample", str(trained / "run"), "--steps", "3", "--format", kind, "--batch_size", "2"]
    whole, parts = trained / f"whole-{kind}", trained / f"parts-{kind}"
    assert main([*command, "--num", "7", "--out", str(whole)]) == 0
    with killed_at_the_second_batch(monkeypatch):
        main([*command, "--num", "5", "--out", str(parts)])
    for num in ("5", "7"):
        assert main([*command, "--num", num, "--out", str(parts)]) == 0
    if kind == "npz":
        arrays = [np.load(folder / "samples.npz") for folder in (whole, parts)]
        assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in ("images", "seeds"))
        assert not (parts / "parts").exists()
    else:
        pictures = [sorted((folder / "images").iterdir()) for folder in (whole, parts)]
        assert [path.read_bytes() for path in pictures[0]] == [path.read_bytes() for path in pictures[1]]
        assert len(pictures[1]) == 7


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory):
    """A run of four steps of D(y; σ)."""
    folder = tmp_path_factory.mktemp("denoiser")
    config = copy.deepcopy(SMALL)
    config["network"]["init_args"]["in_channels"] = 1
    config["network"] = {"class_path": "psld.networks.Preconditioned", "init_args": {"network": config["network"]}}
    config |= {"predicts": "denoiser", "loss": {"class_path": "psld.losses.Denoising"}}
    (folder / "denoiser.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--config", str(folder / "denoiser.yaml"), "--run", str(folder / "run")]) == 0
    return folder


@pytest.mark.parametrize("process", ["VPSDE", "CLD", "PSLD", "HigherOrderLangevin", "EDM"])
def test_one_denoiser_is_sampled_under_every_process(denoiser, process):
    options = ["--process", f"psld.{process}", "--num", "2", "--steps", "3", "--format", "npz", "--grid", "edm-rho"]
    assert main(["sample", str(denoiser / "run"), *options, "--out", str(denoiser / process)]) == 0
    assert np.load(denoiser / process / "samples.npz")["images"].shape == (2, 8, 8, 1)
    known = json.loads((denoiser / process / "sampling.json").read_text())
    assert known["process"]["class_path"] == f"psld.{process}"


def test_another_process_takes_its_arguments_and_is_not_mixed(denoiser, capsys):
    command = ["sample", str(denoiser / "run"), "--num", "2", "--steps", "3", "--out", str(denoiser / "gamma")]
    assert main([*command, "--process", "psld.PSLD", "--process.gamma", "0.25"]) == 0
    assert main([*command, "--process", "psld.PSLD", "--process.gamma", "0.02"]) == 1
    assert "differs in" in capsys.readouterr().err


def test_another_process_is_refused_for_a_network_of_states(trained, capsys):
    command = ["sample", str(trained / "run"), "--process", "psld.VPSDE", "--out", str(trained / "vp")]
    assert main(command) == 1
    error = capsys.readouterr().err
    assert "predicts 'eps' from states of its own process" in error and "predicts: denoiser" in error
    assert not (trained / "vp").exists()


def test_a_preconditioned_network_of_states_gets_the_process_of_the_run(tmp_path):
    config = copy.deepcopy(SMALL)
    network = {"class_path": "psld.networks.PreconditionedState", "init_args": {"network": config["network"]}}
    config |= {"network": network, "predicts": "x0", "loss": {"class_path": "psld.losses.Denoising"}}
    (tmp_path / "x0.yaml").write_text(yaml.safe_dump(config))
    assert main(["train", "--config", str(tmp_path / "x0.yaml"), "--run", str(tmp_path / "run")]) == 0
    model = load(tmp_path / "run")
    assert repr(model.network.process) == "CLD()"  # pyright: ignore[reportFunctionMemberAccess, reportAttributeAccessIssue]
    assert model(torch.zeros(2, 2, 1, 8, 8, dtype=torch.float64), 0.5).x0.shape == (2, 1, 8, 8)


def test_sample_refuses_to_mix_samplers(trained, capsys):
    command = ["sample", str(trained / "run"), "--num", "2", "--steps", "3", "--out", str(trained / "mixed")]
    assert main(command) == 0
    assert main([*command, "--sampler", "Ancestral"]) == 1
    assert "differs in sampler" in capsys.readouterr().err


def test_sample_in_16_bits_is_nearly_the_same_and_is_not_mixed_with_32(tmp_path, capsys):
    command = ["sample", "psld-digits", "--num", "8", "--steps", "5", "--format", "npz", "--out"]
    assert (
        main([*command, str(tmp_path / "32")])
        == main([*command, str(tmp_path / "16"), "--precision", "bf16-mixed"])
        == 0
    )
    whole, rounded = (np.load(tmp_path / out / "samples.npz")["images"].astype(int) for out in ("32", "16"))
    assert 0 < np.abs(whole - rounded).mean() < 2  # of 255
    capsys.readouterr()
    assert main([*command, str(tmp_path / "16")]) == 1
    assert "differs in precision" in capsys.readouterr().err


def test_sample_takes_a_grid_from_a_file(trained):
    Grid(torch.tensor([1.0, 0.5, 0.1], dtype=torch.float64)).save(trained / "grid.json")
    command = ["sample", str(trained / "run"), "--num", "2", "--grid", str(trained / "grid.json")]
    assert main([*command, "--sampler", "PredictorCorrector", "--out", str(trained / "own-grid")]) == 0
    (trained / "broken.json").write_text("[1, 2]")
    command[-1] = str(trained / "broken.json")
    assert main([*command, "--out", str(trained / "other")]) == 1


def test_two_processes_draw_what_one_does(trained):
    """Each process takes every other image."""
    command = ["sample", str(trained / "run"), "--num", "5", "--steps", "3", "--out"]
    assert main([*command, str(trained / "one")]) == 0
    program = Path(sys.executable).with_name("psld")
    subprocess.run([program, *command, trained / "two", "--devices", "2"], check=True, capture_output=True, timeout=120)
    pictures = [sorted((trained / folder / "images").iterdir()) for folder in ("one", "two")]
    assert [path.read_bytes() for path in pictures[0]] == [path.read_bytes() for path in pictures[1]]


def test_a_configuration_without_its_option_is_refused(trained, capsys):
    for command in ("train", "train-classifier"):
        assert main([command, str(trained / "small.yaml"), "--run", str(trained / "other")]) == 1
        assert f"psld {command} --config {trained / 'small.yaml'} --run RUN" in capsys.readouterr().err


def test_bench_is_resumed(tmp_path, capsys):
    command = ["bench", "samplers", "--data", "ring", "--num", "20", "--exact", "8", "--processes", "PSLD-0.01"]
    command += ["--only", "Exponential(order=2), log-snr", "RVV", "Conjugate ones", "--out", str(tmp_path / "bench")]
    assert main([*command, "--nfe", "5"]) == 0
    first = json.loads((tmp_path / "bench" / "rows.json").read_text())
    assert main([*command, "--nfe", "5", "8"]) == 0
    rows = json.loads((tmp_path / "bench" / "rows.json").read_text())
    assert rows[: len(first)] == first and {row["budget"] for row in rows} == {5, 8}
    wanted = {"process", "sampler", "nfe", "frechet", "frechet_floor", "energy_distance", "rms_to_exact"}
    assert all(wanted <= row.keys() and row["nfe"] <= row["budget"] for row in rows)
    assert (tmp_path / "bench" / "frechet.png").stat().st_size > 10_000
    assert main([*command, "--nfe", "5", "--num", "30"]) == 1
    assert "other settings" in capsys.readouterr().err
    assert main([*command, "--only", "zzz"]) == 1
    assert "no sampler has zzz in its name" in capsys.readouterr().err


def test_bench_of_other_images_than_digits_is_refused(trained, tmp_path, capsys):
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "spectrum.safetensors").unlink()
    for file in (tmp_path / "run").rglob("config.yaml"):
        file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), "image_shape": [3, 8, 8]}))
        (file.parent / "SHA256SUMS").unlink()
    command = ["bench", "samplers", "--checkpoint", str(tmp_path / "run"), "--out", str(tmp_path / "bench")]
    assert main(command) == 1
    assert "makes images of (3, 8, 8)" in capsys.readouterr().err


def test_sample_refuses_a_full_folder_and_keeps_it(trained, capsys):
    (trained / "mine").mkdir()
    (trained / "mine" / "thesis.txt").write_text("years of work")
    assert main(["sample", str(trained / "run"), "--out", str(trained / "mine")]) == 1
    assert "not an empty folder" in capsys.readouterr().err
    assert [path.name for path in (trained / "mine").iterdir()] == ["thesis.txt"]


def test_sample_names_runs_that_have_a_checkpoint(trained, capsys):
    assert main(["sample", str(trained / "nothing"), "--out", str(trained / "x")]) == 1
    error = capsys.readouterr().err
    assert "no checkpoint in" in error and "run" in error


@pytest.mark.parametrize(("option", "value"), [("--steps", "0"), ("--num", "0")])
def test_sample_refuses_numbers_below_one(trained, capsys, option, value):
    assert exit_code(["sample", str(trained / "run"), "--out", str(trained / "y"), option, value]) == 2
    assert "from 1 to" in capsys.readouterr().err and not (trained / "y").exists()


def test_train_refuses_a_run_that_is_there(trained, capsys):
    arguments = ["train", "--config", str(trained / "small.yaml"), "--run", str(trained / "run")]
    before = sorted(path.name for path in (trained / "run" / "checkpoints").iterdir())
    assert main(arguments) == 1
    assert "--resume" in capsys.readouterr().err
    assert sorted(path.name for path in (trained / "run" / "checkpoints").iterdir()) == before


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"training": {**SMALL["training"], "stepz": 4}}, "stepz"),
        ({"training": {**SMALL["training"], "steps": "many"}}, "steps"),
        ({"process": {"class_path": "psld.PSLD", "init_args": {"gama": 0.1}}}, "gama"),
    ],
)
def test_train_refuses_unknown_keys_and_wrong_types(tmp_path, capsys, change, words):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**SMALL, **change}))
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", str(tmp_path / "bad.yaml"), "--run", str(tmp_path / "run")])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_train_refuses_a_network_of_another_process(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump({**SMALL, "process": {"class_path": "psld.VPSDE"}}))
    assert main(["train", "--config", str(tmp_path / "bad.yaml"), "--run", str(tmp_path / "run")]) == 1
    assert capsys.readouterr().err and not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["digits", "digits-denoiser", "digits-dit", "digits-conditional"])
def test_every_published_configuration_can_be_printed(capsys, name):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--config", str(published_config(name)), "--run", "x", "--print_config"])
    assert stop.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["process"]["init_args"]["gamma"] == 0.01


@pytest.mark.parametrize(("process", "code"), [("PSLD", 0), ("CLD", 0), ("VESDE", 1), ("SubVPSDE", 1)])
def test_recipe_exit_codes(capsys, process, code):
    assert main(["recipe", "--process", process]) == code
    assert ("why:" in capsys.readouterr().out) == bool(code)


def test_recipe_reads_an_sde_as_json(tmp_path, capsys):
    (tmp_path / "sde.yaml").write_text("drift: [[0, 2], [-0.5, -2]]\nnoise: [[0], [1]]\n")
    assert main(["recipe", "--matrices", str(tmp_path / "sde.yaml"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["damping"] == "critical" and report["spectral_gap"] == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("diffusion: [[1]]\ncurl: [[1]]\ncovariance: [[1]]\n", "skew"),
        ("drift: [[0.5]]\nnoise: [[1]]\n", "no stationary law"),
        ("matrix: [[1]]\n", "must hold"),
        ("drift: [[", "not YAML"),
    ],
)
def test_recipe_refuses_in_words(tmp_path, capsys, text, words):
    (tmp_path / "bad.yaml").write_text(text)
    assert main(["recipe", "--matrices", str(tmp_path / "bad.yaml")]) == 1
    assert words in capsys.readouterr().err


def test_help_and_import_load_no_torch():
    code = (
        "import sys, psld; from psld.cli import main; assert main(['--help']) == 0; "
        "print([m for m in ('torch', 'lightning', 'matplotlib', 'jsonargparse') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "sample",
        "inpaint",
        "restore",
        "edit",
        "interpolate",
        "presets",
        "import",
        "recipe",
        "demo",
    ],
)
def test_help_has_an_example(capsys, command):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    assert f"example: psld {command}" in capsys.readouterr().out


def test_weights_of_another_network_are_refused(trained, tmp_path):
    model = load(trained / "run")
    assert isinstance(model.network, torch.nn.Module)
    config = yaml.safe_load((trained / "small.yaml").read_text())
    config["network"]["init_args"]["width"] = 16
    other = {**config, "image_shape": [1, 8, 8]}
    checkpoint = next((trained / "run" / "checkpoints").iterdir())
    for name in ("model.safetensors", "model_ema.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(other))
    with pytest.raises((ValueError, RuntimeError)):
        load(tmp_path)


def test_a_broken_config_is_named(trained, tmp_path, capsys):
    checkpoint = next((trained / "run" / "checkpoints").iterdir())
    (tmp_path / "model_ema.safetensors").write_bytes((checkpoint / "model_ema.safetensors").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    for text, words in (
        ("[1, 2]", "holds a list where a mapping"),
        ("process: {class_path: psld.PSLDD}", "does not describe"),
    ):
        (tmp_path / "config.yaml").write_text(text + "\nimage_shape: [1, 8, 8]" * (text[0] != "["))
        assert main(["sample", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
        assert words in capsys.readouterr().err


def test_sampling_needs_no_data_class(trained, tmp_path):
    checkpoint = next((trained / "run" / "checkpoints").iterdir())
    for name in ("model.safetensors", "model_ema.safetensors"):
        (tmp_path / name).write_bytes((checkpoint / name).read_bytes())
    config = yaml.safe_load((checkpoint / "config.yaml").read_text())
    config["data"] = {"class_path": "a_module_of_mine.Data"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    assert load(tmp_path).data_shape == (1, 8, 8)


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_processes_that_look_at_different_moments_leave_nothing_out(ranks):
    """The second one finds images of the first there already; together they still draw every image, and none twice."""
    present, drawn = {4, 5}, []
    for rank in range(ranks):
        own = own_share(11, present, rank, ranks)
        drawn += own
        present |= set(own[:2])
    assert sorted(drawn) == [0, 1, 2, 3, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(
    "name",
    [
        "digits",
        "digits-denoiser",
        "digits-dit",
        "digits-preconditioned",
        "digits-conditional",
        "mnist",
        "mnist-denoiser",
    ],
)
def test_another_process_on_top_of_a_configuration_has_its_own_defaults(capsys, name):
    """β = 8 of PSLD, written in the file, would silently become the schedule of VP."""
    with pytest.raises(SystemExit):
        main(["train", "--config", str(published_config(name)), "--process", "psld.VPSDE", "--print_config"])
    process = yaml.safe_load(capsys.readouterr().out)["process"]
    assert process["init_args"] == {"beta_min": 0.1, "beta_max": 20.0, "beta": None}
