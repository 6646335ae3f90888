"""What a sweep of `psld evaluate` leaves: its results as JSON, as tables, and as a plot of speed against quality."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from psld.comparison import draw_plot
from psld.files import atomic_file, write_json

__all__ = ["Point", "Sweep", "write_sweep"]


class Point(NamedTuple):
    """A result as the plot and the table of the sweep show it."""

    process: str
    family: str
    sampler: str
    budget: int
    nfe: float
    frechet: float
    frechet_floor: float
    precision: float
    recall: float
    confident: float
    confident_data: float
    seconds: float


class Sweep(NamedTuple):
    """All results of a sweep.

    Attributes:
        name: of the files.
        points: one a sampler and budget; NaN where a figure was not measured.
        distance: what the distance is called.
        against: what the data are called.
        compared: how many of what, and with how many.
        extractor: whose features.
    """

    name: str
    points: list[Point]
    distance: str
    against: str
    compared: str
    extractor: str


def write_sweep(sweep: Sweep, folder: Path) -> None:
    """NAME.json, NAME.md and NAME.png in the folder, and the tables on the terminal."""
    name, points = sweep.name, sweep.points
    rows = [{column: value for column, value in p._asdict().items() if value == value} for p in points]
    write_json(rows, folder / f"{name}.json")
    tables = _tables(sweep)
    with atomic_file(folder / f"{name}.md") as file:
        file.write(tables.encode())
    draw_plot(points, folder / f"{name}.png", f"{sweep.distance} to {sweep.against}")
    print(tables)
    print(f"{len(points)} results in {folder}. Look at {folder / f'{name}.png'}")


def _tables(sweep: Sweep) -> str:
    """Distances, the best of each budget in bold; how they were measured; and confident shares, of a classifier."""
    points, first = sweep.points, sweep.points[0]
    floor = f", floor {first.frechet_floor:.3g}" if first.frechet_floor == first.frechet_floor else ""
    best = {budget: min(p.frechet for p in points if p.budget == budget) for budget in {p.budget for p in points}}
    lines = _rows(points, lambda point: _cell(point.frechet, point.frechet == best[point.budget]))
    lines += ["", f"{sweep.distance}, {sweep.compared}{floor}; features: {sweep.extractor}.", ""]
    if first.confident == first.confident:
        lines += _rows(points, lambda point: f"{point.confident:.0%}")
        of_data = f"of the data {first.confident_data:.0%}"
        lines += ["", f"Share of samples of which the classifier is confident; {of_data}.", ""]
    return "\n".join(lines)


def _rows(points: list[Point], shown: Callable[[Point], str]) -> list[str]:
    """Samplers down, budgets across, in Markdown."""
    budgets = sorted({point.budget for point in points})
    lines = [f"| sampler | {' | '.join(f'NFE {budget}' for budget in budgets)} |", "| --- " * (len(budgets) + 1) + "|"]
    for sampler in dict.fromkeys(point.sampler for point in points):
        own = {point.budget: shown(point) for point in points if point.sampler == sampler}
        lines.append(f"| {sampler.replace('|', '/')} | {' | '.join(own.get(budget, '') for budget in budgets)} |")
    return lines


def _cell(value: float, best: bool) -> str:
    return f"**{value:.3g}**" if best else f"{value:.3g}"
