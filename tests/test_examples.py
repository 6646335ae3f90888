"""The examples run as they are shown, in processes of their own, on little data where they take any.

What they define is also named in the programs, as a user would: by class path, with the folder on PYTHONPATH.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
PSLD = ("-c", "import sys; from psld.cli import main; sys.exit(main(sys.argv[1:]))")
LITTLE = ("--training.steps", 3, "--training.batch_size", 8, "--training.tensorboard", "false")
DIGITS = ROOT / "configs" / "digits.yaml"


def launched(*command: object) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(EXAMPLES), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    line = [sys.executable, *map(str, command)]
    environment = os.environ | {"PYTHONPATH": paths}
    return subprocess.run(line, capture_output=True, text=True, timeout=300, check=False, env=environment)


def run(*command: object) -> str:
    done = launched(*command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def psld(*arguments: object) -> str:
    return run(*PSLD, *arguments)


def numbers(shown: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+(?:e-?\d+)?", shown)]


def config_of(run: Path) -> dict:
    return yaml.safe_load(next((run / "checkpoints").glob("*/config.yaml")).read_text())


def images_in(folder: Path) -> int:
    return len(list((folder / "images").iterdir()))


def test_own_process():
    shown = run(EXAMPLES / "own_process.py")
    assert "noise reaches 3 of 3" in shown
    distances = [float(line.split()[0]) for line in shown.splitlines()[-2:]]
    floor = float(shown.split("training digits: ")[1].split()[0])
    assert distances == pytest.approx([floor, floor], rel=0.3)


def test_own_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 20, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    options = ("--size", 8)
    for steps in (2, 3):  # the second goes on with the run
        run(EXAMPLES / "own_images.py", tmp_path / "photos", tmp_path / "run", *options, "--steps", steps)
    for name in ("PSLD.png", "CLD.png"):
        assert min(Image.open(tmp_path / "run" / name).size) >= 4 * 8
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())][-1] == "step-00000003"


def test_own_sampler():
    """Its fitted order is the declared one."""
    assert numbers(run(EXAMPLES / "own_sampler.py"))[0] == pytest.approx(2.0, abs=0.15)


def test_own_rates():
    """A report that says why it is no recipe, a kernel that holds, and samples."""
    shown = run(EXAMPLES / "own_rates.py")
    assert re.search(r"stationary +NO", shown) and "H depends on time" in shown
    error, samples, digits = numbers(shown)[-3:]
    assert error < 1e-6 and samples == pytest.approx(digits, rel=0.6)


def test_own_data():
    """Discs cover πr² pixels, and so do samples."""
    expected, data, samples = numbers(run(EXAMPLES / "own_data.py"))
    assert data == pytest.approx(expected, rel=0.02) and samples == pytest.approx(expected, rel=0.1)


def test_own_metric():
    figures = numbers(run(EXAMPLES / "own_metric.py"))
    assert len(figures) == 4
    for figure, expected in (figures[:2], figures[2:]):
        assert figure == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
def test_own_network(tmp_path):
    """Trained and loaded in Python, sampled by the program; and trained by it, with channels from process and data."""
    trained, out = tmp_path / "run", tmp_path / "samples"
    samples, noise = numbers(run(EXAMPLES / "own_network.py", trained))[-2:]
    assert samples < 0.05 * noise
    psld("sample", trained, "--trust", "--num", 2, "--steps", 3, "--out", out)
    assert images_in(out) == 2
    network = ("--network", "own_network.Dilated", "--network.width", 8)
    psld("train", "--config", DIGITS, *network, *LITTLE, "--run", tmp_path / "other")
    expected = {"in_channels": 2, "out_channels": 2, "width": 8}
    assert config_of(tmp_path / "other")["network"]["init_args"] == expected


@pytest.mark.slow
def test_the_programs_take_a_sampler_and_data_of_ones_own(tmp_path):
    of_run = ("psld-digits", "--num", 2, "--steps", 6, "--out", tmp_path / "samples")
    psld("sample", *of_run, "--sampler", "own_sampler.AdamsBashforth")
    assert images_in(tmp_path / "samples") == 2
    psld("train", "--config", DIGITS, "--data", "own_data.Discs", "--data.side", 8, *LITTLE, "--run", tmp_path / "run")
    known = config_of(tmp_path / "run")["data"]
    assert known == {"class_path": "own_data.Discs", "init_args": {"count": 1000, "side": 8, "seed": 0}}
    psld("stats", "own_data.Discs", "--data.side", 8, "--out", tmp_path / "discs.npz")
    assert (tmp_path / "discs.npz").is_file()


@pytest.mark.slow
def test_the_programs_take_a_process_of_ones_own_in_yaml(tmp_path):
    config = yaml.safe_load(DIGITS.read_text())
    config["process"] = {"class_path": "own_rates.Warming", "init_args": {"cold": 0.3}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    trained, out = tmp_path / "run", tmp_path / "samples"
    psld("train", "--config", tmp_path / "own.yaml", *LITTLE, "--run", trained)
    assert config_of(trained)["process"]["init_args"] == {"beta": 8.0, "cold": 0.3}
    few = ("sample", trained, "--num", 2, "--steps", 3, "--sampler", "Ancestral", "--out", out)
    refused = launched(*PSLD, *few)
    assert refused.returncode == 1 and "own_rates.Warming" in refused.stderr and "--trust" in refused.stderr
    psld(*few, "--trust")
    assert images_in(out) == 2
