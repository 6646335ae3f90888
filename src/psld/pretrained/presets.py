"""The published experiments, by name.

A file in configs/ is one whole experiment; presets that differ from it in a few values (another Γ, CLD, VP) name the
file and those values. `Preset.config()` is then the whole experiment again, which `psld presets NAME` prints.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from psld.files import read_yaml
from psld.networks import NCSNpp, NoiseClassifier
from psld.specs import build
from psld.specs.arguments import did_you_mean

__all__ = ["PRESETS", "Preset", "preset", "published_config", "published_configs"]

SCORE = ("process", "network", "predicts", "matching", "jitter")


@dataclass(frozen=True)
class Preset:
    """A published experiment.

    Attributes:
        file: name of the configuration it is made from, in configs/.
        changes: what differs from that file: dotted key → value.
        reported: FID and number of function evaluations in the paper; empty if it has none.
    """

    file: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    reported: str = ""

    @property
    def classifier(self) -> bool:
        """Whether the network is a noise-conditional classifier."""
        return self.file.endswith("-classifier")

    def config(self) -> dict[str, Any]:
        """The whole experiment, as read from YAML."""
        config = read_yaml(published_config(self.file))
        for key, value in self.changes.items():
            *path, last = key.split(".")
            section = config
            for name in path:
                section = section[name]
            section[last] = copy.deepcopy(value)
        return config

    def text(self) -> str:
        """The whole experiment as YAML; the file itself, with its comments, where nothing is changed."""
        if not self.changes:
            return published_config(self.file).read_text(encoding="utf-8")
        changed = ", ".join(f"{key} = {value}" for key, value in self.changes.items())
        return f"# configs/{self.file}.yaml with {changed}\n{yaml.safe_dump(self.config(), sort_keys=False)}"

    def model_config(self) -> dict[str, Any]:
        """What sampling needs of `config()`: process, network, the meaning of its output, and the shape of an image."""
        config = self.config()
        size = config["network"]["init_args"]["image_size"]
        return {key: config[key] for key in SCORE if key in config} | {"image_shape": [3, size, size]}

    def network(self) -> NCSNpp | NoiseClassifier:
        """The network, with initial weights."""
        built = build(self.config()["network"])
        assert isinstance(built, (NCSNpp, NoiseClassifier))
        return built


def _gamma(value: float) -> dict[str, Any]:
    return {"process.init_args.gamma": value}


CLD = {
    "process": {"class_path": "psld.CLD", "init_args": {"kappa": 0.04, "beta": 8.0}},
    "network.init_args.out_channels": 3,
}
"""Γ = 0: noise enters the momentum only, so only its ε is predicted."""

VP = {
    "process": {"class_path": "psld.VPSDE", "init_args": {"beta_min": 0.1, "beta_max": 20.0}},
    "network.init_args.in_channels": 3,
    "network.init_args.out_channels": 3,
    "jitter": 0.0,
}
CLASSIFIED_CLD = {"process": CLD["process"]}

PRESETS: dict[str, Preset] = {
    "cifar10-ablation-cld": Preset("cifar10-ablation", CLD, "FID 3.60 @ 1000"),
    "cifar10-ablation-0.005": Preset("cifar10-ablation", _gamma(0.005), "FID 3.34 @ 1000"),
    "cifar10-ablation-0.01": Preset("cifar10-ablation", {}, "FID 2.94 @ 1000"),
    "cifar10-ablation-0.02": Preset("cifar10-ablation", _gamma(0.02), "FID 2.80 @ 1000"),
    "cifar10-ablation-0.25": Preset("cifar10-ablation", _gamma(0.25), "FID 9.48 @ 1000"),
    "cifar10-ablation-vp": Preset("cifar10-ablation", VP, "FID@10k 5.51 @ 1000 (EM, quadratic)"),
    "cifar10-sota-cld": Preset("cifar10-sota", CLD, "FID 2.25 @ 312 (ODE), 2.23 (SSCS)"),
    "cifar10-sota-0.005": Preset("cifar10-sota", _gamma(0.005)),
    "cifar10-sota-0.01": Preset("cifar10-sota", {}, "FID 2.10 @ 246, 2.13 @ 159 (ODE)"),
    "cifar10-sota-0.02": Preset("cifar10-sota", _gamma(0.02), "FID 2.21 @ 1000 (SDE)"),
    "cifar10-sota-0.25": Preset("cifar10-sota", _gamma(0.25)),
    "celeba64-ablation-cld": Preset("celeba64-ablation", CLD),
    "celeba64-ablation-0.005": Preset("celeba64-ablation", _gamma(0.005)),
    "celeba64-ablation-0.01": Preset("celeba64-ablation"),
    "celeba64-ablation-0.02": Preset("celeba64-ablation", _gamma(0.02)),
    "celeba64-ablation-0.25": Preset("celeba64-ablation", _gamma(0.25)),
    "celeba64-sota-0.005": Preset("celeba64-sota", {}, "FID 2.01 @ 250 (EM, quadratic)"),
    "afhqv2-ablation-0.01": Preset("afhqv2-ablation"),
    "afhqv2-sota-cld": Preset("afhqv2-sota", CLD),
    "afhqv2-sota-0.01": Preset("afhqv2-sota"),
    "cifar10-classifier-cld": Preset("cifar10-classifier", CLASSIFIED_CLD),
    "cifar10-classifier-0.01": Preset("cifar10-classifier"),
    "afhqv2-classifier-0.01": Preset("afhqv2-classifier"),
}


def preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    if name not in PRESETS:
        advice = did_you_mean(difflib.get_close_matches(name, PRESETS, n=5, cutoff=0.5))
        raise ValueError(f"there is no preset {name!r}: psld presets lists the {len(PRESETS)} there are.{advice}")
    return PRESETS[name]


def published_configs() -> list[str]:
    """The names of the configurations that come with psld."""
    return sorted({path.stem for folder in _config_folders() for path in folder.glob("*.yaml")})


def published_config(name: str) -> Path:
    """The path of a configuration that comes with psld, by name ("digits").

    Raises:
        FileNotFoundError: there is none of that name; the message lists those there are.
    """
    for folder in _config_folders():
        if name in (path.stem for path in folder.glob("*.yaml")):
            return folder / f"{name}.yaml"
    advice = did_you_mean(difflib.get_close_matches(name, published_configs()))
    raise FileNotFoundError(f"no configuration {name!r} comes with psld: psld config lists those that do.{advice}")


def _config_folders() -> tuple[Path, ...]:
    package = Path(__file__).resolve().parent.parent
    return package / "configs", package.parent.parent / "configs"  # in a wheel; in a checkout
