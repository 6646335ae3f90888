"""Samplers side by side: one model, many samplers and budgets, and how far each is from the law it should draw from.

Three figures a cell: the Fréchet distance to fresh draws, whose floor is that between two sets of draws; the energy
distance; and for deterministic samplers the RMS distance to the exact solution of the probability flow from the same
noise, which has no Monte Carlo noise in it.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from psld.evaluation import energy_distance, frechet_distance
from psld.files import atomic_file, write_json
from psld.processes import LinearProcess
from psld.samplers import (
    GDDIM,
    OBA,
    RK45,
    ROBA,
    RVV,
    SSCS,
    Ancestral,
    Conjugate,
    ConjugateOBA,
    ConjugateVerlet,
    DPMSolverPP,
    EulerMaruyama,
    Exponential,
    Heun,
    Langevin,
    PredictorCorrector,
    Projected,
    Sampler,
    SymplecticEuler,
    VelocityVerlet,
)
from psld.samplers.catalogue import entry_of, family_of
from psld.samplers.grids import Grid, ends
from psld.samplers.tuning import Judge, best_parameter
from psld.specs import Spec

__all__ = [
    "Cell",
    "Plotted",
    "Reference",
    "Row",
    "cells",
    "draw_plot",
    "markdown",
    "measure",
    "read_rows",
    "write_rows",
]

LAMBDAS = (-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)
TOLERANCES = tuple(10.0**e for e in (-5, -4, -3, -2, -1, 0, 1, 2, 3))


class Cell(NamedTuple):
    """A sampler on a grid within a budget of evaluations.

    Both are built late: some (`judged`) look for a parameter with a judge first, the others need none.

    Attributes:
        family, label: what tables and plots call it.
        nfe: the budget.
        sampler: the one that is built, or for `judged` cells that of which a parameter is looked for.
        grid: name of the grid.
        build: makes both.
        judged: whether `build` needs a judge.
    """

    family: str
    label: str
    nfe: int
    sampler: Sampler
    grid: str
    build: Callable[[Judge | None], tuple[Sampler, Grid]]
    judged: bool = False

    @property
    def digest(self) -> str:
        """What a cell of a process is known by: a hash of sampler, grid, budget, and whether a parameter is tuned."""
        known = {"sampler": self.sampler.spec, "grid": self.grid, "nfe": self.nfe, "judged": self.judged}
        return Spec("psld.comparison.Cell", known).digest


class Reference(NamedTuple):
    """What samples are held against: images of the law, the floors of both distances, and the exact solutions.

    judge: of the flow of the process; projected: of the flow in the statistic y, which `Projected` samplers follow.
    """

    images: Float[Tensor, "n *data"]
    frechet_floor: float
    energy_floor: float
    judge: Judge
    projected: Judge


class Row(NamedTuple):
    """One measured cell. nfe is the mean number of evaluations made, within the budget where that was possible.

    The digests are of the process's spec and of the cell: what a row is found again by.
    """

    process: str
    process_digest: str
    family: str
    cell: str
    sampler: str
    budget: int
    nfe: float
    frechet: float
    frechet_floor: float
    energy_distance: float
    energy_floor: float
    rms_to_exact: float | None
    samples: int
    built: str


def cells(process: LinearProcess, nfe: int) -> Iterator[Cell]:
    """What is compared for a process, the paper's samplers first."""

    def fixed(grid: str, *samplers: Sampler) -> Iterator[Cell]:
        for sampler in samplers:
            if entry_of(sampler).takes(process):
                build = partial(_on_grid, sampler, grid, process, nfe)
                yield Cell(family_of(sampler), f"{sampler!r}, {grid}", nfe, sampler, grid, build)

    def tuned(grid: str, name: str, make: Callable[[float], Sampler]) -> Iterator[Cell]:
        def build(judge: Judge | None) -> tuple[Sampler, Grid]:
            assert judge is not None
            times = make(0.0).grid(grid, process, nfe)
            return make(best_parameter(judge, make, times, LAMBDAS, refinements=2).best), times

        if entry_of(make(0.0)).takes(process):
            yield Cell(family_of(make(0.0)), f"{name}, best λ, {grid}", nfe, make(0.0), grid, build, judged=True)

    yield from fixed("paper-uniform", EulerMaruyama())
    yield from fixed("paper-quadratic", EulerMaruyama(), SSCS())
    tolerance = partial(rk45_within, nfe)
    yield Cell(family_of(RK45()), "RK45, tolerance for this NFE", nfe, RK45(), "ends", tolerance, judged=True)
    for name in ("log-snr", "quadratic", "edm-rho", "optimised"):
        yield from fixed(name, Exponential(order=2))
    yield from fixed("optimised", Exponential(order=1), Exponential(order=3), DPMSolverPP(), GDDIM(2), GDDIM(3))
    yield from fixed("optimised", PredictorCorrector(1), PredictorCorrector(2))
    yield from fixed("edm-rho", PredictorCorrector(2))
    solvers = (Exponential(order=2), Exponential(order=3), PredictorCorrector(2))
    yield from fixed("optimised", *map(Projected, solvers), Projected(PredictorCorrector(2), "mean"))
    yield from fixed("edm-rho", Projected(Heun()))
    yield from fixed("optimised", Projected(PredictorCorrector(2), "fresh"), Projected(Exponential(order=2, eta=1.0)))
    yield from fixed("edm-rho", Projected(Heun(churn=2.0)))
    yield from fixed("log-snr", Ancestral())
    yield from fixed("optimised", Ancestral(), Exponential(order=2, eta=0.3), Exponential(order=2, eta=1.0))
    yield from fixed("edm-rho", Exponential(order=2, eta=1.0), Langevin(PredictorCorrector(2)))
    yield from fixed("quadratic", Heun())
    for direction in ("identity", "ones"):
        yield from tuned("optimised", f"Conjugate {direction}", partial(Conjugate, direction=direction))
    yield from fixed("quadratic", SymplecticEuler(), VelocityVerlet(), RVV())
    yield from tuned("quadratic", "ConjugateVerlet", ConjugateVerlet)
    yield from fixed("quadratic", OBA(), ROBA(), ROBA(position_noise=0.5), ConjugateOBA())


def _on_grid(
    sampler: Sampler, grid: str, process: LinearProcess, nfe: int, judge: Judge | None
) -> tuple[Sampler, Grid]:
    return sampler, sampler.grid(grid, process, nfe)


def rk45_within(nfe: int, judge: Judge | None) -> tuple[Sampler, Grid]:
    """RK45 with the smallest tolerance that keeps the mean number of evaluations within the budget, or the loosest."""
    assert judge is not None
    times = ends(judge.model.process)
    candidates = [RK45(tolerance, tolerance) for tolerance in TOLERANCES]
    for sampler in candidates:
        few = sampler.sample(judge.model, grid=times, seeds=judge.seeds[:32], shape=judge.shape)
        if float(few.nfe.double().mean()) <= nfe:
            return sampler, times
    return candidates[-1], times


def measure(cell: Cell, reference: Reference, samples: int, batch_size: int = 500, device: str = "cpu") -> Row:
    """Sample one cell, with seeds 0, 1, …, and compare."""
    judge = reference.judge
    sampler, grid = cell.build(judge)
    drawn = sampler.batches(judge.model, samples, grid, shape=judge.shape, batch_size=batch_size, device=device)
    batches = list(drawn)
    images = torch.cat([batch.x for batch in batches]).cpu()
    exact = reference.projected if isinstance(sampler, Projected) else judge
    return Row(
        process=repr(judge.model.process),
        process_digest=judge.model.process.spec.digest,
        family=cell.family,
        cell=cell.digest,
        sampler=cell.label,
        budget=cell.nfe,
        nfe=float(torch.cat([batch.nfe for batch in batches]).double().mean()),
        frechet=frechet_distance(images.flatten(1), reference.images.flatten(1)),
        frechet_floor=reference.frechet_floor,
        energy_distance=energy_distance(images, reference.images),
        energy_floor=reference.energy_floor,
        rms_to_exact=None if sampler.stochastic else exact.compare(images[: len(exact.images)]).rms,
        samples=samples,
        built=repr(sampler),
    )


def write_rows(rows: Iterable[Row], folder: Path) -> None:
    """rows.json and rows.csv, each in one piece."""
    known = [row._asdict() for row in rows]
    write_json(known, folder / "rows.json")
    text = io.StringIO()
    table = csv.DictWriter(text, Row._fields)
    table.writeheader()
    table.writerows(known)
    with atomic_file(folder / "rows.csv") as file:
        file.write(text.getvalue().encode())


def read_rows(folder: Path) -> list[Row]:
    """What an earlier run measured; nothing where there is none."""
    path = folder / "rows.json"
    return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []


def markdown(rows: list[Row]) -> str:
    """A table a process: samplers down, budgets across, Fréchet distance and, in brackets, RMS to the exact flow."""
    lines = []
    for process in dict.fromkeys(row.process for row in rows):
        own = [row for row in rows if row.process == process]
        budgets = sorted({row.budget for row in own})
        floor, energy = own[0].frechet_floor, own[0].energy_floor
        lines += [f"### {process}", "", f"Floors: Fréchet distance {floor:.3f}, energy distance {energy:.4f}.", ""]
        lines += [
            f"| family | sampler | {' | '.join(f'NFE {budget}' for budget in budgets)} |",
            "| --- | --- " + "| --- " * len(budgets) + "|",
        ]
        for family, sampler in dict.fromkeys((row.family, row.sampler) for row in own):
            found = {row.budget: row for row in own if row.sampler == sampler}
            texts = [_figures(found[budget]) if budget in found else "" for budget in budgets]
            lines.append(f"| {family} | {sampler.replace('|', '/')} | {' | '.join(texts)} |")
        lines.append("")
    return "\n".join(lines)


def _figures(row: Row) -> str:
    rms = "" if row.rms_to_exact is None else f" ({_short(row.rms_to_exact)})"
    calls = "" if abs(row.nfe - row.budget) < 1 else f" at {row.nfe:.4g}"
    return f"{_short(row.frechet)}{rms}{calls}"


def _short(value: float) -> str:
    return f"{value:.3g}" if 1e-4 <= value < 1000 else f"{value:.1e}"


@runtime_checkable
class Plotted(Protocol):
    """What a point of the plot is drawn from; a `Row` is one. frechet_floor may be NaN: not known."""

    @property
    def process(self) -> str: ...
    @property
    def family(self) -> str: ...
    @property
    def sampler(self) -> str: ...
    @property
    def budget(self) -> int: ...
    @property
    def nfe(self) -> float: ...
    @property
    def frechet(self) -> float: ...
    @property
    def frechet_floor(self) -> float: ...


def draw_plot(rows: Sequence[Plotted], path: Path, distance: str = "Fréchet distance to fresh draws") -> None:
    """Fréchet distance against evaluations, a panel a process: the best of each family, the paper's one by one."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    processes = list(dict.fromkeys(row.process for row in rows))
    figure = Figure(figsize=(max(7.5, 4.6 * len(processes)), 4.6), layout="constrained")
    panels = figure.subplots(1, len(processes), sharey=True, squeeze=False)[0]
    labels = list(dict.fromkeys(row.sampler if row.family == "paper" else row.family for row in rows))
    colours = {label: colormaps["tab20"](2 * i % 20 + (i >= 10)) for i, label in enumerate(labels)}
    for axes, process in zip(panels, processes, strict=True):
        own = [row for row in rows if row.process == process]
        for label in labels:
            best: dict[int, Plotted] = {}
            for row in own:
                if (row.sampler if row.family == "paper" else row.family) == label and np.isfinite(row.frechet):
                    known = best.get(row.budget)
                    best[row.budget] = row if known is None or row.frechet < known.frechet else known
            points = sorted((row.nfe, row.frechet) for row in best.values())
            paper = any(row.family == "paper" and row.sampler == label for row in own)
            if points:
                style = ":" if paper else "-"
                name = label if paper else f"{label}, best"
                axes.plot(*zip(*points, strict=True), style, marker="o", ms=3.5, color=colours[label], label=name)
        floor = own[0].frechet_floor
        axes.set(title=process, xlabel="network evaluations", xscale="log", yscale="log")
        if np.isfinite(floor):
            axes.axhline(floor, color="0.3", lw=1, ls="--")
            axes.annotate("floor", (0.01, floor), xycoords=("axes fraction", "data"), va="top", fontsize=8)
            axes.set_ylim(0.6 * floor, 200 * floor)
        ticks = sorted({row.budget for row in own})
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    panels[0].set_ylabel(distance)
    figure.legend(
        *_legend(panels), loc="outside lower center", ncols=min(4, 2 * len(processes)), fontsize=8, frameon=False
    )
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=130)


def _legend(panels) -> tuple[list, list]:
    entries: dict = {}
    for axes in panels:
        for line, name in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, line)
    return list(entries.values()), list(entries)
