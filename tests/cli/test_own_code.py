"""Networks and guidance of a user's own: code that a folder names is run only when that is asked for."""

import sys

import numpy as np
import pytest
import yaml

from psld.cli import main
from psld.plots.pictures import load_images

CODE = """
from torch import nn
from psld.model import ModelWrapper, Prediction


class Shrunk(nn.Module):
    def __init__(self, factor: float = 0.5):
        super().__init__()
        self.factor, self.layer = factor, nn.Conv2d(1, 1, 1)

    def forward(self, z, t):
        return self.factor * self.layer(z[:, 0])[:, None]


class Towards(ModelWrapper):
    def __init__(self, model, level: float, label: int = 0):
        super().__init__(model)
        self.level, self.label = level, label

    def __call__(self, z, t, **condition):
        prediction = self.model(z, t, **condition)
        return Prediction(z, prediction.kernel, x0=0.0 * prediction.x0 + self.level * self.label)
"""
CONFIG = {
    "process": {"class_path": "psld.VPSDE"},
    "network": {"class_path": "my_networks.Shrunk", "init_args": {"factor": 0.25}},
    "data": {"class_path": "psld.data.Digits", "init_args": {"split": "heldout"}},
    "loss": {"class_path": "psld.losses.HSM"},
    "training": {"steps": 1, "batch_size": 8, "warmup_steps": 0, "tensorboard": False},
}


@pytest.fixture
def own_code(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_networks.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    yield tmp_path
    sys.modules.pop("my_networks", None)


def test_code_of_a_folder_runs_only_when_it_is_trusted(own_code, capsys):
    (own_code / "run.yaml").write_text(yaml.safe_dump(CONFIG))
    assert main(["train", "--config", str(own_code / "run.yaml"), "--run", str(own_code / "run")]) == 0
    sys.modules.pop("my_networks")
    picture = str(own_code / "out" / "sample" / "images" / "000000.png")
    commands = {
        "sample": ["--num", "1"],
        "inpaint": [picture, "--mask", "center", "--draws", "1"],
        "restore": [picture, "--operator", "SuperResolution", "--draws", "1"],
        "edit": [picture, "--start", "0.5", "--draws", "1"],
        "interpolate": [picture, picture, "--frames", "2", "--tolerance", "0.5", "--t_min", "0.4"],
    }
    for name, options in commands.items():
        steps = [] if name == "interpolate" else ["--steps", "6"]
        command = [name, str(own_code / "run"), *options, *steps, "--out", str(own_code / "out" / name)]
        assert main(command) == 1
        assert "names 'my_networks.Shrunk'" in capsys.readouterr().err
        assert "my_networks" not in sys.modules and not (own_code / "out" / name).exists()
        assert main([*command, "--trust"]) == 0
        sys.modules.pop("my_networks")


def test_guidance_of_ones_own_gets_what_it_asks_for(own_code, capsys):
    """x̂₀ is a constant, so the sample is: 0.25 times the label."""
    command = ["sample", "psld-digits", "--num", "1", "--steps", "4", "--guidance", "my_networks.Towards"]
    out = own_code / "out"
    assert main([*command, "--guidance.level", "0.25", "--label", "2", "--out", str(out)]) == 0
    image = load_images([out / "images" / "000000.png"])
    assert np.abs(image.numpy() - 0.5).max() <= 0.51 / 127.5
    assert main([*command, "--guidance.level", "0.5", "--label", "2", "--out", str(out)]) == 1
    assert "differs in guidance, wrappers" in capsys.readouterr().err
