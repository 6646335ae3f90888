"""Weights from elsewhere: official PSLD checkpoints, the published experiments, and the checkpoints of psld itself."""

from psld.pretrained.official import import_official, load_official
from psld.pretrained.presets import PRESETS, Preset, preset
from psld.pretrained.published import published_checkpoint, published_checkpoints

__all__ = [
    "PRESETS",
    "Preset",
    "import_official",
    "load_official",
    "preset",
    "published_checkpoint",
    "published_checkpoints",
]
