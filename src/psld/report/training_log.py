"""The loss of a run, from its metrics.csv."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

from psld.files import UnreadableFileError, read_table
from psld.files.reading import said

__all__ = ["LossCurve", "read_loss"]

POINTS = 400
"""More than a page can show side by side."""

DIGITS = 18
"""Of a step or a count of images, so that it is an integer of 64 bits."""


class LossCurve(NamedTuple):
    """A loss against steps, thinned.

    Attributes:
        steps, loss: each point is the mean of `rows_a_point` rows of the log, and stands at the last of them.
        smooth: running mean of the loss, with weight 0.9 on the past.
        rows_a_point: how many rows were averaged into one point.
        rows: rows read; left_out: rows whose loss is not finite.
        images, seconds: seen and spent at the last row.
    """

    steps: list[int]
    loss: list[float]
    smooth: list[float]
    rows_a_point: int
    rows: int
    left_out: int
    images: int
    seconds: float


def read_loss(path: Path, points: int = POINTS) -> LossCurve | None:
    """The curve of a metrics.csv; None where there is no file or no row in it.

    Raises:
        UnreadableFileError: it is no CSV, has no columns `step` and `loss`, or a row is not numbers (a torn last
            one is left out).
    """
    if not path.exists():
        return None
    rows = read_table(path, torn=True)
    if not rows:
        return None
    if not {"step", "loss"} <= set(rows[0]):
        columns = ", ".join(name[:50] for name in list(rows[0])[:10])
        raise UnreadableFileError(f"{path} has columns {columns}; a log of a run has step and loss. Give another run.")
    try:
        table = [(_count(row["step"]), float(row["loss"])) for row in rows]
        images, seconds = _count(rows[-1].get("images") or "0"), float(rows[-1].get("seconds") or 0)
        if not math.isfinite(seconds):
            raise ValueError("its seconds are not finite")
    except ValueError as error:
        raise UnreadableFileError(f"{path} is not a log of a run: {said(error)}. Delete or repair it.") from error
    finite = [(step, loss) for step, loss in table if math.isfinite(loss)]
    group = max(1, math.ceil(len(finite) / points))
    cut = [finite[i : i + group] for i in range(0, len(finite), group)]
    loss = [sum(value for _, value in part) / len(part) for part in cut]
    steps = [part[-1][0] for part in cut]
    return LossCurve(steps, loss, running_mean(loss), group, len(table), len(table) - len(finite), images, seconds)


def _count(text: str) -> int:
    if not (text.isdecimal() and len(text) <= DIGITS):
        raise ValueError(f"{text[:40]!r} is not a whole number of at most {DIGITS} digits")
    return int(text)


def running_mean(values: list[float], keep: float = 0.9) -> list[float]:
    """Exponentially weighted means of what came so far; weights sum to one from the first value on."""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        means.append(total / weight)
    return means
