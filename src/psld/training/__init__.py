"""Training: a loop one can read, checkpoints that survive a kill, and resumption to the bit."""

from psld.training.checkpoint import CheckpointError, latest_checkpoint
from psld.training.ema import ExponentialMovingAverage
from psld.training.health import TrainingDiverged
from psld.training.loop import train
from psld.training.reading import load_weights
from psld.training.settings import TrainingSettings

__all__ = [
    "CheckpointError",
    "ExponentialMovingAverage",
    "TrainingDiverged",
    "TrainingSettings",
    "latest_checkpoint",
    "load_weights",
    "train",
]
