"""Fréchet distance against network evaluations: from a sweep in the run folder, or measured on a small budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from psld.comparison import Cell, DigitsReference, SweepResult, measure, read_results
from psld.data import Digits
from psld.model import Clamped, Model
from psld.processes import LinearProcess, Process
from psld.samplers import SSCS, EulerMaruyama, PredictorCorrector, Sampler

__all__ = ["SpeedQuality", "find_sweep", "measure_digits", "read_sweep"]


class SpeedQuality(NamedTuple):
    """Points, the floor (of as many real images as there are samples; None: not known), and how it was measured."""

    points: list[SweepResult]
    floor: float | None
    how: list[str]


def find_sweep(run: Path) -> Path | None:
    """rows.json or sweep.json in the run folder or in a folder of it; the newest where there are several."""
    found = [path for name in ("rows.json", "sweep.json") for path in (*run.glob(name), *run.glob(f"*/{name}"))]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def read_sweep(path: Path) -> SpeedQuality:
    """The results of a sweep of `psld bench` or `psld evaluate`, as JSON or CSV.

    Raises:
        ValueError: it is neither.
    """
    rows = read_results(path)
    floors = {row.floor_at_this_size for row in rows if row.floor_at_this_size is not None}
    counts = sorted({row.samples for row in rows if row.samples is not None})
    how = [f"Read from {path.name} in {path.parent.name}; nothing was measured anew."]
    if counts:
        how.append(f"Samples a point: {', '.join(map(str, counts))}.")
    shown = [replace(row, sampler=_label(row)) for row in rows if _is_shown(row)]
    if len(shown) < len(rows):
        how.append(f"{len(rows) - len(shown)} points are left out: their distance is not a positive, finite number.")
    return SpeedQuality(shown, floors.pop() if len(floors) == 1 else None, how)


def _label(row: SweepResult) -> str:
    return f"{row.sampler}, {row.process}" if row.process else row.sampler


def _is_shown(row: SweepResult) -> bool:
    return math.isfinite(row.frechet) and row.frechet > 0 and row.nfe > 0


def compared(process: LinearProcess, chosen: tuple[Sampler, str]) -> list[tuple[Sampler, str]]:
    """The chosen sampler with its grid, then the paper's and a predictor–corrector, each once."""
    samplers: list[tuple[Sampler, str]] = [chosen, (PredictorCorrector(predictor=2), "log-snr")]
    samplers.append((EulerMaruyama(), "paper-quadratic"))
    if isinstance(process, Process) and process.k > 1:
        samplers.append((SSCS(), "paper-quadratic"))
    return list(dict.fromkeys(samplers))


def measure_digits(
    model: Model,
    chosen: tuple[Sampler, str],
    budgets: Sequence[int],
    samples: int,
    seed: int,
    device: str = "cpu",
) -> SpeedQuality:
    """Fréchet distances to the training digits in the features of the digit classifier in the package.

    The paper's samplers run as published, without the clamp, if `model` is `Clamped`. A sampler that cannot take a
    budget on its grid is left out there, and `how` says so.
    """
    reference = DigitsReference(heldout=samples)
    assert reference.floor is not None  # it has one
    points, left_out = [], []
    bare = model.model if isinstance(model, Clamped) else model
    for sampler, name in compared(model.process, chosen):
        published = isinstance(sampler, (EulerMaruyama, SSCS)) and name.startswith("paper")
        for nfe in budgets:
            cell = Cell.of(sampler, name, model.process, nfe, spectrum=model.spectrum)
            try:
                cell.build(None)
            except ValueError:
                left_out.append(f"{cell.label} at NFE {nfe}")
                continue
            seeds = range(seed, seed + samples)
            found = measure(cell, bare if published else model, reference, seeds, device=device)
            if _is_shown(found):
                points.append(found)
            else:
                left_out.append(f"{cell.label} at NFE {nfe}")
    held, data, floor = reference.floor.moments.count, reference.data.moments.count, reference.floor_at(samples)
    how = [
        f"Fréchet distance (not FID) between {samples} samples a point, seeds {seed} to {seed + samples - 1}, and the "
        f"{data} training digits, in the 64 features of the digit classifier in the package "
        f"({reference.accuracy:.1%} right on {len(Digits('heldout'))} held-out digits).",
        f"Floor: the same distance of {samples} held-out digits. Small sets lie further away than large ones, so "
        "compare points of one plot only."
        if floor is not None
        else f"No floor: there are {held} held-out digits, and a floor must be of as many images as there are samples.",
    ]
    if bare is not model:
        how.append("x̂₀ is held within [−1, 1], except for the paper's samplers, which run as published.")
    if left_out:
        how.append(f"Left out, no such grid or no finite distance: {'; '.join(left_out)}.")
    return SpeedQuality(points, floor, how)
