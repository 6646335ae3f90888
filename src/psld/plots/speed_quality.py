"""Speed against quality: distances of samplers against network evaluations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from psld.comparison.results import SweepResult
from psld.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_speed_quality"]


def plot_speed_quality(
    results: Sequence[SweepResult], path: Path, distance: str = "Fréchet distance to fresh draws"
) -> None:
    """Fréchet distance against evaluations, a panel a process: the best of each family, the paper's one by one."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    processes = list(dict.fromkeys(result.process for result in results))
    figure = Figure(figsize=(max(7.5, 4.6 * len(processes)), 4.6), layout="constrained")
    panels = figure.subplots(1, len(processes), sharey=True, squeeze=False)[0]
    labels = list(dict.fromkeys(_curve(result) for result in results))
    colours = {label: colormaps["tab20"](2 * i % 20 + (i >= 10)) for i, label in enumerate(labels)}
    for axes, process in zip(panels, processes, strict=True):
        own = [result for result in results if result.process == process]
        for label in labels:
            best: dict[int, SweepResult] = {}
            for result in own:
                if _curve(result) == label and math.isfinite(result.frechet):
                    known = best.get(result.budget)
                    best[result.budget] = result if known is None or result.frechet < known.frechet else known
            points = sorted((result.nfe, result.frechet) for result in best.values())
            paper = any(result.family == "paper" and result.sampler == label for result in own)
            if points:
                style = ":" if paper else "-"
                name = label if paper else f"{label}, best"
                axes.plot(*zip(*points, strict=True), style, marker="o", ms=3.5, color=colours[label], label=name)
        floor = own[0].floor_at_this_size
        axes.set(title=process, xlabel="network evaluations", xscale="log", yscale="log")
        if floor is not None:
            axes.axhline(floor, color="0.3", lw=1, ls="--")
            axes.annotate("floor", (0.01, floor), xycoords=("axes fraction", "data"), va="top", fontsize=8)
            axes.set_ylim(0.6 * floor, 200 * floor)
        ticks = sorted({result.budget for result in own})
        axes.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
        axes.minorticks_off()
        axes.grid(alpha=0.25)
    panels[0].set_ylabel(distance)
    figure.legend(
        *_legend(panels), loc="outside lower center", ncols=min(4, 2 * len(processes)), fontsize=8, frameon=False
    )
    with atomic_file(path) as file:
        figure.savefig(file, format="png", dpi=130)


def _curve(result: SweepResult) -> str:
    return result.sampler if result.family == "paper" else result.family


def _legend(panels: Sequence[Axes]) -> tuple[list, list]:
    entries: dict = {}
    for axes in panels:
        for line, name in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(name, line)
    return list(entries.values()), list(entries)
