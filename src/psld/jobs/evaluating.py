"""Judging the samples of a model, or images that are there, by data: each result a file, none computed twice.

A result is known by the specs of sampler and process, the content of the weights, the data and every setting, so it is
found again wherever the folder of the run is, and never taken for another one.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from psld.comparison.cells import Cell
from psld.comparison.drawing import draw
from psld.comparison.references import DataReference
from psld.comparison.results import SweepResult, write_results
from psld.comparison.tables import latex_table, markdown_table
from psld.data import ImageData
from psld.distributed import lists_of_all_ranks, of_all_ranks
from psld.evaluation.features import FeatureExtractor
from psld.evaluation.statistics import ImageStatistics, measured
from psld.files import UnreadableFileError, atomic_file, read_json, remove_unfinished, write_json
from psld.model import Model
from psld.plots.speed_quality import plot_speed_quality
from psld.samplers import Sampler
from psld.samplers.divergence import listed, shown
from psld.samplers.grids import Grid

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = [
    "Evaluated",
    "Subject",
    "evaluate",
    "evaluate_images",
    "random_choice",
    "read_result",
    "statistics_of",
    "summary",
    "write_sweep",
]


@dataclass(frozen=True)
class Subject:
    """The model whose samples are judged, as it is sampled.

    Attributes:
        model: guided and clamped as asked, on the device of the process.
        name: what people call it.
        told: what samples are called after their sampler, of a class ", class 3, guidance 2".
        identity: what tells it from others: the hash of its weights, whether it is clamped, its label …
        num: how many samples.
        seed: of the first one.
        batch_size: samples at a time, on each device.
    """

    model: Model
    name: str
    told: str = ""
    identity: Mapping[str, Any] = field(default_factory=dict)
    num: int = 10_000
    seed: int = 0
    batch_size: int = 256


class Evaluated(NamedTuple):
    """A result as its file holds it, that file, whether it was there already, and the result as a row of a sweep."""

    result: dict[str, Any]
    path: Path
    known: bool
    row: SweepResult


def evaluate(
    subject: Subject, cells: Sequence[Cell], reference: DataReference, folder: Path, fabric: Fabric
) -> Iterator[Evaluated]:
    """Judges the samples of each cell, of all processes together; those whose file is there are read.

    Samples that diverged are judged with the others, as `psld sample --allow_diverged` writes them, and the result has
    their seeds as "diverged": what becomes of them is for the caller to say.

    Args:
        subject: what is judged.
        cells: samplers, grids and budgets; none that look for a parameter.
        reference: what it is judged by.
        folder: of the results, locked by the caller (`psld.files.locked`).
        fabric: of the processes, each of which draws a share.

    Raises:
        ValueError: a grid that cannot be made, before anything is drawn.
        UnreadableFileError: a file of a result that is there holds something else.
    """
    process = subject.model.process
    if fabric.is_global_zero:
        remove_unfinished(folder)
    for cell, (sampler, grid) in [(cell, cell.build(None)) for cell in cells]:
        settings = _settings(subject, sampler, grid, reference)
        path = folder / f"{type(sampler).__name__}-{cell.nfe}-{_key(settings)}.json"
        fabric.barrier()  # all look before one of them writes
        known = path.is_file()
        fabric.barrier()
        if known:
            result: dict[str, Any] = read_result(path, reference.extractor.distance)
        else:
            result = _drawn_and_judged(subject, cell, sampler, grid, reference, fabric) | {"settings": settings}
        if fabric.is_global_zero and not known:
            write_json(result, path)
        row = SweepResult(
            process=repr(process),
            family=cell.family,
            sampler=cell.label,
            budget=cell.nfe,
            nfe=result["nfe"],
            samples=result["samples"]["images"],
            seconds=result["seconds"],
            spec=sampler.spec.config(),
            key=cell.key(process),
            **reference.figures_of(result),  # pyright: ignore[reportArgumentType]: there is a distance
        )
        yield Evaluated(result, path, known, row)


def read_result(path: Path, distance: str) -> dict[str, Any]:
    """The file of a result.

    Args:
        path: as `evaluate` writes it.
        distance: what the distance must be called.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: it holds something else.
    """
    result = read_json(path, nan=True)
    figures, sets = result.get("figures"), [result.get("samples"), result.get("data")]
    problem = ""
    if not isinstance(figures, dict) or not _is_number(figures.get(distance)):
        problem = f"an object 'figures' with the number {distance!r}"
    elif not all(_is_number(n) or _is_spread(n) for n in figures.values()):
        problem = "figures that are numbers, or objects with mean and std"
    elif not all(isinstance(a, dict) and type(a.get("images")) is int and _all(a, _is_text, "source") for a in sets):
        problem = "objects 'samples' and 'data' with images and source"
    elif not _all(result, _is_number, "nfe", "seconds") or not _all(result, _is_text, "extractor", "convention"):
        problem = "the numbers nfe and seconds and the texts extractor and convention"
    if problem:
        raise UnreadableFileError(f"{path} is not a result: it must hold {problem}. Delete it, or measure again.")
    return result


def _all(known: Mapping[str, Any], check: Callable[[Any], bool], *names: str) -> bool:
    return all(check(known.get(name)) for name in names)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_spread(value: object) -> bool:
    return isinstance(value, dict) and _all(value, _is_number, "mean", "std")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _settings(subject: Subject, sampler: Sampler, grid: Grid, reference: DataReference) -> dict[str, Any]:
    """All that a result depends on."""
    return {
        **subject.identity,
        "process": subject.model.process.spec.config(),
        "sampler": sampler.spec.config(),
        "times": grid.times.tolist(),
        "final": grid.final,
        "num": subject.num,
        "seed": subject.seed,
        **reference.identity,
    }


def _key(settings: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _drawn_and_judged(
    subject: Subject, cell: Cell, sampler: Sampler, grid: Grid, reference: DataReference, fabric: Fabric
) -> dict[str, Any]:
    own = range(fabric.global_rank, subject.num, fabric.world_size)
    calls, started = torch.zeros(2, dtype=torch.float64), time.perf_counter()
    wrong: list[int] = []
    model, shape = subject.model, subject.model.known_shape()

    def images() -> Iterator[Tensor]:
        seeds = [subject.seed + i for i in own]
        for batch in draw(sampler, model, shape, grid, seeds, subject.batch_size, fabric.device, progress=True):
            calls.add_(torch.tensor([float(batch.nfe.double().sum()), len(batch.x)], dtype=torch.float64))
            wrong.extend(seed for seed, bad in zip(batch.seeds, batch.diverged.tolist(), strict=True) if bad)
            yield shown(batch.x)

    source = f"{subject.name}, {cell.label}{subject.told}"
    samples = reference.statistics(images(), own, subject.num, fabric, source)
    total = of_all_ranks(fabric, calls).sum(0)
    seconds = time.perf_counter() - started
    made = {"nfe": float(total[0] / total[1]), "seconds": seconds, "processes": fabric.world_size}
    made["diverged"] = sorted(lists_of_all_ranks(fabric, wrong))  # their seeds
    return reference.compared(samples) | made


def evaluate_images(
    data: ImageData,
    name: str,
    chosen: Sequence[int],
    batch_size: int,
    reference: DataReference,
    folder: Path,
    fabric: Fabric,
) -> tuple[dict[str, Any], Path]:
    """Judges the chosen images of data in place of samples; the result, and its file."""
    started = time.perf_counter()
    samples = statistics_of(data, chosen, reference.extractor, reference.keep, batch_size, fabric, name)
    result = reference.compared(samples) | {"seconds": time.perf_counter() - started}
    digest = hashlib.sha256(json.dumps(list(chosen)).encode()).hexdigest()
    path = folder / f"images-{_key({'source': data.fingerprint(), 'chosen': digest} | reference.identity)}.json"
    if fabric.is_global_zero:
        remove_unfinished(folder)
        write_json(result, path)
    return result, path


def random_choice(size: int, count: int, seed: int) -> Sequence[int]:
    """So many of 0 … size − 1, in order, drawn by a seed: the first ones of a folder are often of one class."""
    if count >= size:
        return range(size)
    return torch.randperm(size, generator=torch.Generator().manual_seed(seed))[:count].sort().values.tolist()


def statistics_of(
    data: ImageData,
    chosen: Sequence[int],
    extractor: FeatureExtractor,
    keep: int,
    batch_size: int,
    fabric: Fabric,
    source: str,
) -> ImageStatistics:
    """Statistics of the chosen images of data; each process reads every so many-th."""
    from tqdm import tqdm

    own = range(fabric.global_rank, len(chosen), fabric.world_size)

    def batches() -> Iterator[Tensor]:
        with tqdm(total=len(own), unit="img", disable=None, desc=source) as bar:
            for start in range(0, len(own), batch_size):
                batch = data.batch([chosen[position] for position in own[start : start + batch_size]])
                yield batch.to(fabric.device)
                bar.update(len(batch))

    return measured(batches(), own, len(chosen), extractor, keep, fabric, source)


# -- for people --------------------------------------------------------------------------------------------------------


def summary(result: Mapping[str, Any]) -> str:
    """Every figure of a result a line, how sure the distance is, its floor, and how it was measured."""
    lines, distance = [], result["distance"]
    wide = max(32, *(len(name) + 1 for name in result["figures"]))
    for name, value in result["figures"].items():
        shown = f"{value['mean']:.5g} ± {value['std']:.2g}" if isinstance(value, dict) else f"{value:.5g}"
        lines.append(f"{name:<{wide}} {shown}{_certainty(result, name) if name == distance else ''}")
        if name == distance:
            lines += _floor(result, wide)
    samples, data = result["samples"], result["data"]
    lines += [
        f"samples: {samples['images']} of {samples['source']}",
        f"data: {data['images']} of {data['source']}",
        f"features: {result['extractor']}",
        f"pixels: {result['convention']}",
    ]
    if result.get("diverged"):
        lines.append(f"diverged: {len(result['diverged'])} of {samples['images']} ({listed(result['diverged'])})")
    if "nfe" in result:
        speed = samples["images"] / result["seconds"]
        lines.append(
            f"{result['nfe']:.4g} network evaluations a sample, {result['seconds']:.1f} s, {speed:.0f} a second"
        )
    return "\n".join(lines)


def _certainty(result: Mapping[str, Any], distance: str) -> str:
    interval = result.get("interval", {})
    if distance not in interval:
        return f"  (no interval: {interval['unavailable']})" if interval else ""
    low, high = interval[distance]
    return f"  (95 %: {low:.5g} … {high:.5g}, for {result['samples']['images']} samples)"


def _floor(result: Mapping[str, Any], wide: int) -> list[str]:
    """The floor beside the distance of as many samples, both from the same images."""
    floor, distance = result.get("floor", {}), result["distance"]
    if distance not in floor:
        return [f"{'its floor':<{wide}} none: {floor['unavailable']}"] if floor else []
    spread = "" if floor["std"] is None else f" ± {floor['std']:.2g}"
    made = f"{floor['images']} real images against {floor['against']}: {floor['source']}"
    times = "" if floor["ratio"] is None else f": {floor['ratio']:.3g} × the floor"
    return [
        f"{'its floor':<{wide}} {floor[distance]:.5g}{spread}  ({made})",
        f"{'of as many samples':<{wide}} {floor['samples']:.5g}{times}",
    ]


def write_sweep(
    subject: Subject, results: Sequence[Evaluated], reference: DataReference, folder: Path, name: str
) -> str:
    """NAME.json, .csv, .md, .tex and .png of a sweep in a folder; returns the tables in Markdown."""
    rows, first = [evaluated.row for evaluated in results], results[0].result
    against = reference.data.source or "the data"
    compared = f"{first['samples']['images']} samples of {subject.name}{subject.told}"
    compared += f" against {first['data']['images']} images of {against}"
    caption = f"{first['distance']}, {compared}{_how_sure(rows)}; features: {first['extractor']}."
    tables = _tables(rows, caption)
    for kind in ("json", "csv"):
        write_results(rows, folder / f"{name}.{kind}")
    for kind, text in (("md", tables), ("tex", latex_table(rows, _shown(rows, r"\textbf{{{}}}", "--"), caption))):
        with atomic_file(folder / f"{name}.{kind}") as file:
            file.write(text.encode())
    plot_speed_quality(rows, folder / f"{name}.png", f"{first['distance']} to {against}")
    return tables


def _how_sure(rows: Sequence[SweepResult]) -> str:
    """What the brackets mean, and the floor, of as many images as it is of."""
    sure = " (95 % interval in brackets)" if any(row.frechet_low is not None for row in rows) else ""
    floor, images = rows[0].frechet_floor, rows[0].floor_images
    if floor is None:
        return sure
    ratios = [row.times_floor for row in rows if row.times_floor is not None]
    best = f", at which size the best is {min(ratios):.3g} × that" if ratios else ""
    return f"{sure}, floor {floor:.3g} for {images} images{best}"


def _shown(rows: Sequence[SweepResult], bold: str, to: str) -> Callable[[SweepResult], str]:
    """What stands in a cell: the distance, the best of each budget in bold, and its interval."""
    best = {budget: min(r.frechet for r in rows if r.budget == budget) for budget in {r.budget for r in rows}}

    def shown(row: SweepResult) -> str:
        value = f"{row.frechet:.3g}"
        value = bold.format(value) if row.frechet == best[row.budget] else value
        if row.frechet_low is None or row.frechet_high is None:
            return value
        return f"{value} ({row.frechet_low:.3g}{to}{row.frechet_high:.3g})"

    return shown


def _tables(rows: Sequence[SweepResult], caption: str) -> str:
    """Distances, the best of each budget in bold; how they were measured; and confident shares, of a classifier."""
    lines = [*markdown_table(rows, _shown(rows, "**{}**", "–")), "", caption, ""]
    if rows[0].confident_data is not None:
        lines += [*markdown_table(rows, lambda row: f"{row.confident:.0%}"), ""]
        of_data = f"of the data {rows[0].confident_data:.0%}"
        lines += [f"Share of samples of which the classifier is confident; {of_data}.", ""]
    return "\n".join(lines)
