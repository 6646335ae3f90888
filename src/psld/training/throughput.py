"""What is said about a run that is slower than the machine could be."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable

import torch

__all__ = ["SlowTrainingWarning", "Slowdown", "warn_of_fighting_threads"]

FIGHTING = 2.0  # one thread this many times faster than all of them
BOUND = 10.0  # seconds that one thread may need, or it is not asked
SLOW, INTERVAL = 0.25, 10.0  # of the best speed seen; seconds that a speed is measured over


class SlowTrainingWarning(UserWarning):
    """A run is slower than the machine could be."""


def warn_of_fighting_threads(work: Callable[[], object]) -> None:
    """Times a piece of work on the processor with all threads and with one, and warns if one is twice as fast.

    Threads that share a step wait for the slowest of them, so a core that another program keeps busy stops them all.
    The number of threads is left as it was: results depend on it in their last bits, so it is the user's to choose.

    Args:
        work: called up to five times. Long work, which pays for its threads, is timed once.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        return
    together = _seconds(work)
    if threads * together > BOUND:
        return
    together = min(together, _seconds(work))
    torch.set_num_threads(1)
    try:
        alone = min(_seconds(work), _seconds(work))
    finally:
        torch.set_num_threads(threads)
    if together > FIGHTING * alone:
        warnings.warn(
            f"A batch takes the network {together:.2g} s with {threads} threads and {alone:.2g} s with one: another "
            "program keeps a core busy, or the network is too small to share. Set OMP_NUM_THREADS=1 for the command.",
            SlowTrainingWarning,
            stacklevel=3,
        )


class Slowdown:
    """Warns once when a run has become four times slower than it was.

    Args:
        images, seconds: where the run stands when the watch begins.
    """

    def __init__(self, images: int, seconds: float):
        self._since, self._best, self._said = (images, seconds), 0.0, False

    def see(self, images: int, seconds: float) -> None:
        """Takes how many images the run has seen by now, and its training time."""
        old_images, old_seconds = self._since
        if self._said or seconds - old_seconds < INTERVAL:
            return
        speed = (images - old_images) / (seconds - old_seconds)
        self._since, self._best = (images, seconds), max(self._best, speed)
        if speed < SLOW * self._best:
            self._said = True
            warnings.warn(
                f"Training has slowed from {self._best:.3g} to {speed:.3g} images per second: another program may have "
                "taken the cores (OMP_NUM_THREADS=1 then helps), the device or the disk.",
                SlowTrainingWarning,
                stacklevel=3,
            )


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
