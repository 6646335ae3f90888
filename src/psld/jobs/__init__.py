"""Long work on a run that goes on where it was stopped: what the commands call."""

from psld.jobs.drawing import Drawing, Drawn, draw_given, draw_samples
from psld.jobs.given import conditional, degraded
from psld.jobs.interpolation import interpolate
from psld.jobs.provenance import provenance, tensor_sha256, weights_sha256
from psld.jobs.results import rms, write_grid
from psld.jobs.stores import Arrays, Pictures, own_share

__all__ = [
    "Arrays",
    "Drawing",
    "Drawn",
    "Pictures",
    "conditional",
    "degraded",
    "draw_given",
    "draw_samples",
    "interpolate",
    "own_share",
    "provenance",
    "rms",
    "tensor_sha256",
    "weights_sha256",
    "write_grid",
]
