"""Fréchet distance against network evaluations: from a sweep in the run folder, or measured on a small budget."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from psld.data import Digits
from psld.model import Clamped, Model
from psld.processes import Process
from psld.report.drawing import draw_samples
from psld.samplers import SSCS, EulerMaruyama, PredictorCorrector, Sampler

__all__ = ["Point", "SpeedQuality", "find_sweep", "measure_digits", "read_sweep"]


class Point(NamedTuple):
    """One sampler at one budget."""

    sampler: str
    nfe: float
    frechet: float
    samples: int | None


class SpeedQuality(NamedTuple):
    """Points, the floor that two sets of real images have between them (None: not known), and how it was measured."""

    points: list[Point]
    floor: float | None
    how: list[str]


def find_sweep(run: Path) -> Path | None:
    """rows.json or sweep.json in the run folder or in a folder of it; the newest where there are several."""
    found = [path for name in ("rows.json", "sweep.json") for path in (*run.glob(name), *run.glob(f"*/{name}"))]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def read_sweep(path: Path) -> SpeedQuality:
    """The rows that `psld bench` writes: a list of objects with sampler, nfe and frechet; others are optional.

    Raises:
        ValueError: it is not JSON, or not such a list.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        points = [Point(_label(row), float(row["nfe"]), float(row["frechet"]), row.get("samples")) for row in rows]
        floors = {float(row["frechet_floor"]) for row in rows if row.get("frechet_floor") is not None}
    except (TypeError, KeyError, AttributeError, ValueError) as error:
        raise ValueError(
            f"{path} is not the result of a sweep (a list of objects with sampler, nfe, frechet): {error!r}."
        ) from error
    counts = sorted({point.samples for point in points if point.samples is not None})
    how = [f"Read from {path.name} in {path.parent.name}; nothing was measured anew."]
    if counts:
        how.append(f"Samples a point: {', '.join(map(str, counts))}.")
    shown = [p for p in points if math.isfinite(p.frechet) and p.frechet > 0 and p.nfe > 0]
    if len(shown) < len(points):
        how.append(f"{len(points) - len(shown)} points are left out: their distance is not a positive, finite number.")
    return SpeedQuality(shown, floors.pop() if len(floors) == 1 else None, how)


def _label(row: dict) -> str:
    process = row.get("process")
    return str(row["sampler"]) if process is None else f"{row['sampler']}, {process}"


def compared(process, chosen: tuple[Sampler, str]) -> list[tuple[Sampler, str]]:
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
    from psld.evaluation import classifier_accuracy, frechet_distance
    from psld.evaluation.features.bundled import bundled_classifier

    train, heldout = Digits("train"), Digits("heldout")
    classifier, _ = bundled_classifier("digits")
    accuracy = classifier_accuracy(classifier, heldout.images, heldout.labels)

    @torch.no_grad()
    def features(images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 64"]:
        return classifier.features(images)

    of_data = features(train.images)
    own = heldout.images[: min(samples, len(heldout))]
    points, left_out = [], []
    bare = model.model if isinstance(model, Clamped) else model
    for sampler, name in compared(model.process, chosen):
        published = isinstance(sampler, (EulerMaruyama, SSCS)) and name.startswith("paper")
        for nfe in budgets:
            label = f"{sampler!r}, {name}"
            try:
                grid = sampler.grid(name, model.process, nfe)
            except ValueError:
                left_out.append(f"{label} at NFE {nfe}")
                continue
            seeds = range(seed, seed + samples)
            images, calls = draw_samples(sampler, bare if published else model, train.image_shape, grid, seeds, device)
            distance = frechet_distance(features(images), of_data) if images.isfinite().all() else math.inf
            if math.isfinite(distance) and distance > 0:
                points.append(Point(label, calls, distance, samples))
            else:
                left_out.append(f"{label} at NFE {nfe}")
    how = [
        f"Fréchet distance (not FID) between {samples} samples a point, seeds {seed} to {seed + samples - 1}, and the "
        f"{len(train)} training digits, in the 64 features of the digit classifier in the package "
        f"({accuracy:.1%} right on {len(heldout)} held-out digits).",
        f"Floor: the same distance of {len(own)} held-out digits. Small sets lie further away than large ones, so "
        "compare points of one plot only.",
    ]
    if bare is not model:
        how.append("x̂₀ is held within [−1, 1], except for the paper's samplers, which run as published.")
    if left_out:
        how.append(f"Left out, no such grid or no finite distance: {'; '.join(left_out)}.")
    return SpeedQuality(points, frechet_distance(features(own), of_data), how)
