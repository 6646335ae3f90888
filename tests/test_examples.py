"""The examples run as they are shown, on little data where they take any."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name: str, *arguments: object) -> str:
    command = [sys.executable, str(EXAMPLES / name), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_process():
    shown = run("own_process.py")
    assert "noise reaches 3 of 3" in shown
    distances = [float(line.split()[0]) for line in shown.splitlines()[-2:]]
    floor = float(shown.split("training digits: ")[1].split()[0])
    assert distances == pytest.approx([floor, floor], rel=0.3)


def test_own_images(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 16, 20, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    for i, image in enumerate(pixels):
        Image.fromarray(image).save(tmp_path / "photos" / f"{i}.png")
    options = ("--size", 16, "--width", 8)
    run("own_images.py", tmp_path / "photos", tmp_path / "run", *options, "--steps", 2)
    run("own_images.py", tmp_path / "photos", tmp_path / "run", *options, "--steps", 3)  # goes on with the run
    for name in ("PSLD.png", "CLD.png"):
        assert min(Image.open(tmp_path / "run" / name).size) >= 4 * 16
    assert [path.name for path in sorted((tmp_path / "run" / "checkpoints").iterdir())][-1] == "step-00000003"
