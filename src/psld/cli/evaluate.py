"""`psld evaluate`: how good the samples of a run, or images that are there already, are; and speed against quality."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from psld.cli.configuration import instances
from psld.cli.measuring import add_extractor_arguments, chosen_extractor, statistics_of
from psld.cli.sample import (
    accelerate,
    add_label_arguments,
    add_sampling_arguments,
    generate,
    guided,
    own_share,
    provenance,
)
from psld.cli.sweep import Point, Sweep, write_sweep
from psld.comparison import Cell, cells
from psld.data import ImageData
from psld.data.one_class import OneClass
from psld.data.opening import holds_mnist, open_images
from psld.distributed import launch, of_all_ranks
from psld.evaluation.features import FeatureExtractor
from psld.evaluation.metrics.quality import Protocol, compare, frechet_between
from psld.evaluation.statistics import ImageStatistics, Measurement, is_statistics, measured
from psld.files import file_sha256, write_json
from psld.model import Clamped, Model
from psld.pretrained.published import with_place_for_results
from psld.processes import LinearProcess
from psld.runs import load
from psld.samplers import Sampler
from psld.samplers.grids import Grid
from psld.training import latest_checkpoint
from psld.training.checkpoint import has_checkpoint, weight_files

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["run"]

DESCRIPTION = """Judge the samples of a run, or images that are there already, by a data set: Fréchet distance (FID with
Inception's features), kernel distance (KID), precision, recall, density, coverage, classifier score (Inception Score).

Samples are drawn a batch at a time and not kept. Each result is a JSON file in RUN/evaluation, named by a hash of the
weights and of every setting; what is there is not computed again. --sweep goes over samplers and budgets and draws a
plot; a killed sweep goes on where it was when the same command is given again. With --label, samples of that class are
judged by data of that class, which need labels; without, a run trained with labels is told none."""

EPILOG = """example: psld evaluate runs/demo --against digits --sampler PredictorCorrector --grid optimised --steps 10;
a protocol, against statistics of psld stats: psld evaluate runs/cifar --against cifar10.npz --protocol 50k
--extractor inception --extractor_weights pt_inception.pth; held-out images instead of samples, which gives the floor:
psld evaluate digits --split heldout --against digits; speed against quality: psld evaluate runs/demo --against digits
--floor digits --floor_split heldout --sweep --nfe 5 10 20 --only Projected paper-quadratic; one class of a run trained
with labels: psld evaluate psld-digits-conditional --label 3 --guidance 2 --against digits --out runs/threes"""

PROTOCOLS = {"10k": 10_000, "50k": 50_000}


def parser() -> ArgumentParser:
    """Options of `psld evaluate`."""
    options = ArgumentParser(prog="psld evaluate", description=DESCRIPTION)
    options.epilog = EPILOG
    options.add_argument("run", type=str, help="run, checkpoint, published name; or images, as for --against")
    options.add_argument(
        "--against",
        type=str,
        required=True,
        help="statistics of psld stats; or a folder of images, .npz, a folder of MNIST's IDX files, digits",
    )
    options.add_argument("--against_split", type=str | None, default=None, help="of digits and MNIST: train, …")
    options.add_argument("--split", type=str | None, default=None, help="the same, where RUN is digits or MNIST")
    options.add_argument(
        "--floor", type=str | None, default=None, help="held-out data or statistics: samples at their best"
    )
    options.add_argument("--floor_split", type=str | None, default=None, help="of digits and MNIST: heldout, …")
    options.add_argument(
        "--protocol", type=Literal["10k", "50k"] | None, default=None, help="10,000 or 50,000 samples, exactly"
    )
    options.add_argument("--num", type=int | None, default=None, help="how many samples (10000; of images, all)")
    options.add_argument("--out", type=str | None, default=None, help="folder of the results; default RUN/evaluation")
    add_label_arguments(options, "class to judge by data of that class, of a run trained with labels, or of images")
    options.add_argument("--sweep", type=bool, default=False, nargs="?", const=True, help="samplers × --nfe")
    options.add_argument("--nfe", type=int, nargs="+", default=[5, 10, 20, 50], help="of --sweep: evaluations a sample")
    options.add_argument("--only", type=str, nargs="+", default=[], help="of --sweep: samplers whose name holds one")
    add_extractor_arguments(options)
    add_sampling_arguments(options)
    return options


def run(arguments: list[str]) -> int:
    """Evaluate what is not evaluated yet; returns 0."""
    options = parser()
    config = options.parse_args(arguments)
    _check(config)
    fabric = launch(config.accelerator, config.devices, config.nodes)
    checkpoint = with_place_for_results(config.run, config.out)
    if has_checkpoint(checkpoint):
        return _evaluate_run(options, config, checkpoint, fabric)
    if config.sweep:
        latest_checkpoint(checkpoint)  # says that there is none, and where there are some
    return _evaluate_images(config, fabric)


def _check(config) -> None:
    """Refuses what makes no sense together."""
    if config.protocol is not None:
        if config.num not in (None, PROTOCOLS[config.protocol]):
            raise ValueError(f"--protocol {config.protocol} fixes the number of samples: leave out --num {config.num}.")
        config.num = PROTOCOLS[config.protocol]
    numbers = {name: config[name] for name in ("batch_size", "steps", "devices", "nodes")}
    if min(numbers.values()) < 1 or (config.num is not None and config.num < 2) or config.keep < 0:
        raise ValueError(
            "--num must be at least 2, --keep at least 0, --steps, --batch_size, --devices and --nodes at least 1: got "
            f"--num {config.num}, --keep {config.keep}, {', '.join(f'--{n} {v}' for n, v in numbers.items())}."
        )
    if min(config.nfe) < 3:
        raise ValueError(f"--nfe must be at least 3: got {config.nfe}.")
    for option in ("against", "floor") if config.label is not None else ():
        if config[option] is not None and is_statistics(config[option]):
            raise ValueError(
                f"--label {config.label} needs the images behind {config[option]}, with their labels: statistics "
                f"do not say which class an image is of. Give the data themselves to --{option}."
            )


# -- what samples are judged by ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reference:
    """The data, how features are made, and the floor: the distance from the data to other data of the same law."""

    extractor: FeatureExtractor
    data: ImageStatistics
    floor: float | None
    floor_source: str
    protocol: Protocol

    @property
    def identity(self) -> dict[str, Any]:
        """What a result depends on, of all this; rounded, since sums depend on threads in their last digits."""
        moments = self.data.moments
        digest = {"mean": f"{float(moments.mean.sum()):.6g}", "scatter": f"{float(moments.scatter.trace()):.6g}"}
        kept = len(self.data.features)
        return {"data": digest | {"images": moments.count, "kept": kept}, "extractor": self.extractor.identity}


def _reference(config, shape: tuple[int, ...], fabric: Fabric) -> Reference:
    """Measures the data, or reads their statistics; refuses what does not fit before anything is drawn."""
    extractor = chosen_extractor(config, shape, fabric)
    data = _known_or_measured(config, config.against, config.against_split, shape, extractor, fabric)
    floor, floor_source = None, ""
    if config.floor is not None:
        held = _known_or_measured(config, config.floor, config.floor_split, shape, extractor, fabric)
        floor, floor_source = frechet_between(held, data), held.source
    return Reference(extractor, data, floor, floor_source, Protocol(keep=config.keep))


def _known_or_measured(
    config, source: str, split: str | None, shape: tuple[int, ...], extractor: FeatureExtractor, fabric: Fabric
) -> ImageStatistics:
    if is_statistics(source):
        known = ImageStatistics.load(source)
        known.require_comparable(Measurement(extractor.identity, extractor.convention, tuple(shape)))
        return known
    size = shape[-1] if shape in ((1, 28, 28), (1, 32, 32)) else None  # MNIST comes with a border or without
    images, name = _opened(config, source, split, size)
    if images.image_shape != tuple(shape):
        raise ValueError(f"{source} holds images of shape {images.image_shape}, and {config.run} of {tuple(shape)}.")
    return statistics_of(images, len(images), extractor, config, fabric, name)


def _opened(config, source: str, split: str | None, size: int | None) -> tuple[ImageData, str]:
    """Images, of --label only where it is given, and what they are called; `size` matters for MNIST's files."""
    name = f"{source} ({split})" if split else source
    images = open_images(source, split, size if holds_mnist(source) else None, labelled=config.label is not None)
    if config.label is None:
        return images, name
    chosen = OneClass(images, config.label, name)
    return chosen, f"{name}, {chosen.description}"


# -- images that are there ---------------------------------------------------------------------------------------------


def _evaluate_images(config, fabric: Fabric) -> int:
    """One result, of images in place of samples."""
    if config.guidance is not None:
        raise ValueError(
            f"--guidance {config.guidance} is for samples of a run, and {config.run} is none: leave it out."
        )
    against = ImageStatistics.load(config.against) if is_statistics(config.against) else None
    size = against.measurement.image_shape[-1] if against else None
    images, name = _opened(config, config.run, config.split, size)
    count = config.num or len(images)
    if len(images) < count:
        raise ValueError(f"{name} holds {len(images)} images, and {count} are asked for.")
    reference = _reference(config, images.image_shape, fabric)
    started = time.perf_counter()
    samples = statistics_of(images, count, reference.extractor, config, fabric, name)
    if fabric.is_global_zero:
        result = _result(samples, reference, config) | {"seconds": time.perf_counter() - started}
        path = Path(config.run)
        beside = Path("runs") if config.run == "digits" else path.parent if path.is_file() else path
        folder = Path(config.out) if config.out else beside / "evaluation"
        key = _key({"source": name, "count": count} | reference.identity)
        write_json(result, folder / f"images-{key}.json")
        print(_text(result))
        print(f"Written to {folder / f'images-{key}.json'}.")
    return 0


# -- samples of a run --------------------------------------------------------------------------------------------------


class Drawing(NamedTuple):
    """A sampler and a grid, with what a plot says of them."""

    family: str
    label: str
    budget: int
    sampler: Sampler
    grid: Grid


def _evaluate_run(options: ArgumentParser, config, checkpoint: Path, fabric: Fabric) -> int:
    parts = instances(options, config)
    model = load(checkpoint, config.weights, str(fabric.device), parts.get("process"))
    shape = model.known_shape()
    accelerate(model, config)
    judged = guided(model, config.label, config.guidance)
    if config.label is not None and config.guidance is None:
        config.guidance = 1.0  # said or not, it is the same result
    if config.clamp:
        judged = Clamped(judged)
    drawings = list(_drawings(config, parts.sampler, model.process))
    reference = _reference(config, tuple(shape), fabric)
    folder = Path(config.out) if config.out else checkpoint / "evaluation"
    weights = weight_files(latest_checkpoint(checkpoint), config.weights)
    results = []
    for drawing in drawings:
        settings = _settings(config, drawing, weights, reference)
        path = folder / f"{type(drawing.sampler).__name__}-{drawing.budget}-{_key(settings)}.json"
        fabric.barrier()  # all look before one of them writes
        known = path.is_file()
        fabric.barrier()
        if known:
            result = json.loads(path.read_text(encoding="utf-8"))
        else:
            result = _evaluated(judged, tuple(shape), drawing, reference, config, fabric) | {"settings": settings}
            if fabric.is_global_zero:
                write_json(result, path)
        results.append(result)
        if fabric.is_global_zero and not config.sweep:
            print(_text(result))
            print(f"{'Known already: see' if known else 'Written to'} {path}.")
    if fabric.is_global_zero and config.sweep:
        write_sweep(_sweep(config, drawings, results, repr(model.process), reference), folder)
    return 0


def _drawings(config, sampler: Sampler, process: LinearProcess) -> Iterator[Drawing]:
    """The one of the options, or those of the sweep, built before anything is drawn."""
    if not config.sweep:
        label = f"{sampler!r}, {config.grid}"
        yield Drawing("", label, config.steps, sampler, sampler.grid(config.grid, process, config.steps))
        return
    wanted = [cell for nfe in config.nfe for cell in cells(process, nfe) if _in_sweep(cell, config.only)]
    if not wanted:
        names = sorted({cell.label for cell in cells(process, config.nfe[0]) if not cell.judged})
        raise ValueError(f"--only {' '.join(config.only)} fits no sampler. Samplers: {'; '.join(names)}.")
    for cell in wanted:
        yield Drawing(cell.family, cell.label, cell.nfe, *cell.build(None))


def _in_sweep(cell: Cell, only: list[str]) -> bool:
    return not cell.judged and (not only or any(part in cell.label for part in only))


def _settings(config, drawing: Drawing, weights: list[Path], reference: Reference) -> dict[str, Any]:
    """All that a result depends on; of the weights their hash, wherever the folder is."""
    known = provenance(config, weights[0].parent, drawing.sampler, drawing.grid)
    own = {"checkpoint": file_sha256(*weights), "num": config.num or PROTOCOLS["10k"]}
    told = {} if config.label is None else {"label": config.label, "guidance": config.guidance}
    return known | own | told | reference.identity


def _told(config) -> str:
    """What the network is told, to be added to what samples are called."""
    return "" if config.label is None else f", class {config.label}, guidance {config.guidance:g}"


def _evaluated(
    model: Model, shape: tuple[int, ...], drawing: Drawing, reference: Reference, config, fabric: Fabric
) -> dict[str, Any]:
    """Draws samples, a batch at a time, and judges them."""
    count = config.num or PROTOCOLS["10k"]
    own = own_share(count, set(), fabric.global_rank, fabric.world_size)
    calls, started = torch.zeros(2, dtype=torch.float64), time.perf_counter()

    def images() -> Iterator[Tensor]:
        seeds = [config.seed + i for i in own]
        batches = generate(drawing.sampler, model, shape, drawing.grid, seeds, config.batch_size, fabric.device)
        for batch in batches:
            calls.add_(torch.tensor([float(batch.nfe.double().sum()), len(batch.x)], dtype=torch.float64))
            yield batch.x.float()

    name = f"{config.run}, {drawing.label}{_told(config)}"
    samples = measured(images(), own, count, reference.extractor, config.keep, fabric, name)
    total = of_all_ranks(fabric, calls).sum(0)
    seconds = time.perf_counter() - started
    result = _result(samples, reference, config)
    return result | {"nfe": float(total[0] / total[1]), "seconds": seconds, "processes": fabric.world_size}


# -- results -----------------------------------------------------------------------------------------------------------


def _result(samples: ImageStatistics, reference: Reference, config) -> dict[str, Any]:
    extractor = reference.extractor
    result = {"protocol": config.protocol, "distance": extractor.distance}
    result |= compare(samples, reference.data, extractor.distance, reference.protocol)
    if reference.floor is not None:
        result["floor"] = {"source": reference.floor_source, extractor.distance: reference.floor}
    return result


def _key(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _text(result: dict[str, Any]) -> str:
    """Every figure a line, and how it was measured."""
    lines = []
    for name, value in result["figures"].items():
        shown = f"{value['mean']:.5g} ± {value['std']:.2g}" if isinstance(value, dict) else f"{value:.5g}"
        lines.append(f"{name:<32} {shown}")
    if "floor" in result:
        floor = result["floor"]
        lines.append(f"{'floor of ' + result['distance']:<32} {floor[result['distance']]:.5g}  ({floor['source']})")
    samples, data = result["samples"], result["data"]
    lines += [
        f"samples: {samples['images']} of {samples['source']}",
        f"data: {data['images']} of {data['source']}",
        f"features: {result['extractor']}",
        f"pixels: {result['convention']}",
    ]
    if "nfe" in result:
        speed = samples["images"] / result["seconds"]
        lines.append(
            f"{result['nfe']:.4g} network evaluations a sample, {result['seconds']:.1f} s, {speed:.0f} a second"
        )
    return "\n".join(lines)


def _sweep(config, drawings: list[Drawing], results: list[dict[str, Any]], process: str, reference: Reference) -> Sweep:
    """The results of a sweep, all there, under the name of its class where it has one."""
    missing, distance = float("nan"), reference.extractor.distance
    floor = missing if reference.floor is None else reference.floor
    points = []
    for drawing, result in zip(drawings, results, strict=True):
        figures = result["figures"]
        names = ("precision", "recall", "confident share of samples", "confident share of data")
        precision, recall, confident, of_data = (figures.get(name, missing) for name in names)
        drawn = (process, drawing.family, drawing.label, drawing.budget, result["nfe"])
        shares = (precision, recall, confident, of_data)
        points.append(Point(*drawn, figures[distance], floor, *shares, result["seconds"]))
    first, against = results[0], reference.data.source or "the data"
    drawn, known = first["samples"]["images"], first["data"]["images"]
    compared = f"{drawn} samples of {config.run}{_told(config)} against {known} images of {against}"
    name = "sweep" if config.label is None else f"sweep-class-{config.label}-guidance-{config.guidance:g}"
    return Sweep(name, points, distance, against, compared, first["extractor"])
