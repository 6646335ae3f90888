"""The loss of a run, from its metrics.csv."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import NamedTuple

__all__ = ["LossCurve", "read_loss"]

POINTS = 400
"""More than a page can show side by side."""


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
        ValueError: the file has no columns `step` and `loss`, or a row is not numbers (a torn last one is left out).
    """
    if not path.is_file():
        return None
    text = path.read_text(encoding="utf-8")
    rows = list(csv.DictReader(text[: text.rfind("\n") + 1].splitlines()))
    if not rows:
        return None
    if not {"step", "loss"} <= set(rows[0]):
        raise ValueError(f"{path} has columns {', '.join(map(str, rows[0]))}; a log of a run has step and loss.")
    try:
        table = [(int(row["step"]), float(row["loss"])) for row in rows]
        images, seconds = int(rows[-1].get("images") or 0), float(rows[-1].get("seconds") or 0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a log of a run: {error}.") from error
    finite = [(step, loss) for step, loss in table if math.isfinite(loss)]
    group = max(1, math.ceil(len(finite) / points))
    cut = [finite[i : i + group] for i in range(0, len(finite), group)]
    loss = [sum(value for _, value in part) / len(part) for part in cut]
    steps = [part[-1][0] for part in cut]
    return LossCurve(steps, loss, running_mean(loss), group, len(table), len(table) - len(finite), images, seconds)


def running_mean(values: list[float], keep: float = 0.9) -> list[float]:
    """Exponentially weighted means of what came so far; weights sum to one from the first value on."""
    means, total, weight = [], 0.0, 0.0
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        means.append(total / weight)
    return means
