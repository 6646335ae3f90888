"""Weights from elsewhere: official PSLD checkpoints, and the published experiments by name."""

from psld.pretrained.official import import_official, load_official
from psld.pretrained.presets import PRESETS, Preset, preset

__all__ = ["PRESETS", "Preset", "import_official", "load_official", "preset"]
