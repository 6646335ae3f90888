"""What `psld demo` shows of a run on digits: pictures, and four samplers measured side by side.

The network is the one that won over three seeds (benchmarks/denoiser.py): D(y; σ), which every process can use.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from psld.comparison import Cell, DigitsReference, SweepResult, measure
from psld.data import Digits
from psld.evaluation import memorised_share
from psld.files import write_json
from psld.model import Clamped, ScoreModel
from psld.plots import save_beside, save_grid, save_phase_space
from psld.report.drawing import phase_space_paths
from psld.samplers import SSCS, EulerMaruyama, Exponential, PredictorCorrector

__all__ = ["NFE", "SAMPLES", "demonstrate", "has_learned", "summary"]

NFE = 20
SAMPLES = 2000
LEARNED = 3.0  # times the floor


def demonstrate(network: ScoreModel, folder: Path, training_seconds: float) -> dict[str, Any]:
    """Draws, measures, and writes samples.png, data_and_samples.png, phase_space.png and report.json into a folder."""
    process, reference = network.process, DigitsReference()
    clamped = Clamped(network)  # for samplers of few steps; the published ones run as published
    few, paper = f"NFE {NFE}", "Euler–Maruyama, quadratic grid, NFE 50 (the paper's)"
    chosen = [
        (Exponential(order=2, eta=1.0), "optimised", NFE, f"exponential, η = 1, optimised grid, {few}", clamped),
        (PredictorCorrector(predictor=2), "optimised", NFE, f"predictor–corrector, optimised grid, {few}", clamped),
        (SSCS(), "quadratic", NFE, f"SSCS, quadratic grid, {few}", network),
        (EulerMaruyama(), "paper-quadratic", 50, paper, network),
    ]
    cells = [(Cell.of(sampler, grid, process, nfe, label=label), model) for sampler, grid, nfe, label, model in chosen]
    drawn: dict[str, list[Tensor]] = {cell.label: [] for cell, _ in cells}
    results = [measure(cell, model, reference, range(SAMPLES), see=drawn[cell.label].append) for cell, model in cells]
    images = {label: torch.cat(batches).float().clamp(-1, 1) for label, batches in drawn.items()}
    report = _report(reference, results, images)
    report["seconds"] = {"training": training_seconds, "sampling": sum(result.seconds or 0.0 for result in results)}

    first, heldout = next(iter(images.values())), Digits("heldout").images
    save_grid(first[:100], folder / "samples.png")
    save_beside(heldout[:49], first[:49], folder / "data_and_samples.png")
    paths = phase_space_paths(clamped, heldout[:3], range(3))
    save_phase_space(
        paths.forward,
        paths.reverse,
        paths.times,
        folder / "phase_space.png",
        reverse_times=paths.reverse_times,
        stationary=process.prior_covariance,
    )
    write_json(report, folder / "report.json")
    return report


def _report(reference: DigitsReference, results: list[SweepResult], images: Mapping[str, Tensor]) -> dict[str, Any]:
    """Fréchet distances, confident shares and memorising, with their floors."""
    train, heldout = Digits("train").images, Digits("heldout").images
    assert reference.floor is not None  # it has one
    equal = reference.equal_sizes(SAMPLES)
    return {
        "classifier accuracy on held-out digits": reference.accuracy,
        "Fréchet distance floor (held-out against training images)": equal.floor,
        "images of the floor": equal.images,
        "confident share of held-out images": reference.floor.confident,
        "samplers": {
            result.sampler: {
                "Fréchet distance": result.frechet,
                "times the floor, of as many samples": float("inf")
                if result.times_floor is None
                else result.times_floor,
                "confident share": result.confident,
                "share closer to a training image than the median held-out image": memorised_share(
                    images[result.sampler], train, heldout
                ).samples,
            }
            for result in results
        },
    }


def has_learned(report: Mapping[str, Any]) -> bool:
    """Whether the images of the best sampler are within three times the floor; those of noise are forty times it."""
    return min(row["times the floor, of as many samples"] for row in report["samplers"].values()) <= LEARNED


def summary(report: Mapping[str, Any]) -> str:
    """The measured numbers as a table."""
    floor = report["Fréchet distance floor (held-out against training images)"]
    lines = [
        f"training {report['seconds']['training']:.0f} s, sampling {report['seconds']['sampling']:.0f} s",
        f"judge: a digit classifier, {report['classifier accuracy on held-out digits']:.1%} right on held-out digits; "
        f"Fréchet distance in its features, of {SAMPLES} samples; floor {floor:.2f}, of "
        f"{report['images of the floor']} held-out images; × floor is of as many samples",
        f"{'sampler':<54}{'Fréchet':>8}{'× floor':>9}{'confident':>11}{'near copy':>11}",
    ]
    for name, row in report["samplers"].items():
        distance, times, confident, near = row.values()
        lines.append(f"{name:<54}{distance:>8.2f}{times:>9.2f}{confident:>11.1%}{near:>11.1%}")
    real = report["confident share of held-out images"]
    lines.append(f"{'real held-out images':<54}{floor:>8.2f}{1:>9.2f}{real:>11.1%}{0.5:>11.1%}")
    return "\n".join(lines)
