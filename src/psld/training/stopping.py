"""Stopping on request: a signal is noted, the step is finished, and the loop decides."""

from __future__ import annotations

import signal
import threading
from types import FrameType

__all__ = ["StopSignals", "ignore_stop_signals"]

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """While the context is open, SIGTERM and SIGINT are only noted; the previous handlers are back after it.

    Attributes:
        received: the number of the first signal that came, or 0.
    """

    def __init__(self):
        self.received = 0
        self._previous = {}

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids handlers
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = self.received or number


def ignore_stop_signals(_: int = 0) -> None:
    """For the processes that read data: Ctrl-C reaches them too, and the training process still needs its batch."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
