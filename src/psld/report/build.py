"""The report of a run: draw, measure, and write one HTML file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from psld.data import Digits, ImageData
from psld.evaluation.metrics.nearest import memorised_share, nearest
from psld.files import atomic_file, read_text
from psld.files.reading import CONFIGURATION_BYTES
from psld.model import Clamped, Model, ModelWrapper, ScoreModel
from psld.report import sections
from psld.report.drawing import STEPS, draw_film, draw_samples, phase_space_paths
from psld.report.environment import environment
from psld.report.html import page
from psld.report.sections import Section
from psld.report.speed_quality import SpeedQuality, find_sweep, measure_digits, read_sweep
from psld.report.training_log import read_loss
from psld.samplers import Exponential, Sampler
from psld.samplers.divergence import listed, refusal

__all__ = ["ReportSettings", "TrainedRun", "build_report", "require_place", "run_folder", "write_report"]


@dataclass(frozen=True)
class TrainedRun:
    """What a report is about.

    Attributes:
        path: as the user wrote it.
        checkpoint: the folder of the weights.
        weights: which of them, for the page.
        model: the score model, on `device`.
        image_shape: (C, H, W) with C = 1 or 3.
        data: the training images; None where they cannot be read.
        no_data: why not.
        device: of the model.
    """

    path: Path
    checkpoint: Path
    weights: str
    model: Model
    image_shape: tuple[int, ...]
    data: ImageData | None
    no_data: str = ""
    device: str = "cpu"


@dataclass(frozen=True)
class ReportSettings:
    """How much is drawn and measured.

    Attributes:
        sampler, grid, steps: of the samples and the film.
        num: samples in the grid.
        seed: of the first sample; the others follow.
        searched: training images searched for nearest ones, at most.
        budgets, quality_num: network evaluations and samples a point of the speed-quality plot, where it is measured.
        quick: leave that measurement out.
        sweep: its rows from this file; None looks in the run folder.
        allow_diverged: whether samples that diverged are shown, and counted; otherwise they are refused.

    Raises:
        ValueError: a number below its smallest.
        FileNotFoundError: there is no file `sweep`.
    """

    sampler: Sampler
    grid: str = "best"
    steps: int = 20
    num: int = 64
    seed: int = 0
    searched: int = 10_000
    budgets: tuple[int, ...] = (5, 10, 20)
    quality_num: int = 200
    quick: bool = False
    sweep: Path | None = None
    allow_diverged: bool = False

    def __post_init__(self):
        least = {"steps": (self.steps, 2), "num": (self.num, 1), "searched": (self.searched, 1)}
        least |= {"quality_num": (self.quality_num, 2), "budgets": (min(self.budgets, default=0), 2)}
        for name, (given, allowed) in least.items():
            if given < allowed:
                raise ValueError(f"{name} must be at least {allowed}: got {given}.")
        if self.sweep is not None and not self.sweep.is_file():
            raise FileNotFoundError(f"there is no file {self.sweep}: give the .json file with the rows of a sweep.")


def run_folder(checkpoint: Path) -> Path:
    """Where metrics.csv and results stand: above RUN/checkpoints/step-…, else the folder of the weights."""
    parent = checkpoint.parent
    return parent.parent if parent.name == "checkpoints" else checkpoint


def require_place(out: Path, overwrite: bool) -> None:
    """Refuses to write over something.

    Raises:
        FileExistsError: there is a file and no overwrite, or there is something else than a file.
    """
    if out.is_dir():
        raise FileExistsError(f"{out} is a folder: give the file to write, for example {out / 'report.html'}.")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} is there already: replace it with --overwrite, or give another --out.")


def write_report(run: TrainedRun, out: Path, settings: ReportSettings, command: str, overwrite: bool = False) -> None:
    """Writes the page in one piece; see `build_report`. Raises FileExistsError as `require_place`, before any work."""
    require_place(out, overwrite)
    content = build_report(run, settings, command)
    with atomic_file(out) as file:
        file.write(content.encode("utf-8"))


def build_report(run: TrainedRun, settings: ReportSettings, command: str) -> str:
    """The HTML of a report: one file without a reference to any other.

    Args:
        run: the model and its surroundings.
        settings: how much is drawn and measured.
        command: how the report was asked for; it stands beside the numbers.

    Raises:
        ValueError: the images do not have 1, 3 or 4 channels, the sampler does not take the steps on the grid, the
            metrics or the sweep are not readable as such.
        DivergedError: samples diverged, and that is not allowed.
    """
    if len(run.image_shape) != 3 or run.image_shape[0] not in (1, 3, 4):
        raise ValueError(f"a report shows images of 1, 3 or 4 channels, (C, H, W): the run has {run.image_shape}.")
    started, folder = time.monotonic(), run_folder(run.checkpoint)
    settings.sampler.grid(settings.grid, run.model.process, settings.steps, run.model.spectrum)
    curve = read_loss(folder / "metrics.csv")
    sweep = settings.sweep or find_sweep(folder)
    rows = None if sweep is None else read_sweep(sweep)
    parts = [
        _overview(run, command),
        sections.loss_curve(curve)
        if curve is not None and curve.loss
        else sections.missing("loss", "Training loss", f"There is no log of the training in {folder}."),
        *_pictures(run, settings),
        _speed_quality(run, settings, rows),
        sections.recipe(run.model.process, ["The same as psld recipe with this process: computed, not sampled."]),
        _configuration(run.checkpoint),
    ]
    seconds = time.monotonic() - started
    parts.append(
        sections.values(
            "environment",
            "Environment",
            environment(run.device) | {"command": command, "time to make this page": f"{seconds:.0f} s"},
        )
    )
    return page(
        f"Report of {run.path.name or run.path.resolve().name}",
        f"{run.model.process!r}, {run.checkpoint.name}.",
        [(part.name, part.title, part.content) for part in parts],
        {name: value for part in parts for name, value in part.data.items()},
    )


def _overview(run: TrainedRun, command: str) -> Section:
    model = run.model
    while isinstance(model, ModelWrapper):
        model = model.model
    network, predicts = (model.network, model.predicts) if isinstance(model, ScoreModel) else (model, "x0")
    count = sum(p.numel() for p in network.parameters()) if isinstance(network, torch.nn.Module) else 0
    known = {
        "run": run.path,
        "checkpoint": f"{run.checkpoint.name}, {run.weights}",
        "process": repr(run.model.process),
        "network": f"{type(network).__name__}, {count:,} parameters, predicts {predicts}",
        "images": " × ".join(map(str, run.image_shape)),
        "data": run.no_data if run.data is None else f"{type(run.data).__name__}, {len(run.data):,} images",
        "made by": command,
    }
    return sections.values("run", "Run", known)


def _pictures(run: TrainedRun, settings: ReportSettings) -> list[Section]:
    """Samples, nearest images, film and paths."""
    sampler, process, shape = settings.sampler, run.model.process, run.image_shape
    grid = sampler.grid(settings.grid, process, settings.steps, run.model.spectrum)
    seeds = range(settings.seed, settings.seed + settings.num)
    images, nfe, wrong = draw_samples(sampler, run.model, shape, grid, seeds, run.device)
    if wrong and not settings.allow_diverged:
        raise refusal(wrong, "No report is written")
    clamped = "held within [−1, 1]" if isinstance(run.model, Clamped) else "not clamped"
    setting = f"{sampler!r}, grid {settings.grid}, {nfe:.4g} network evaluations a sample, x̂₀ {clamped}"
    how = [f"{settings.num} samples: {setting}; seeds {seeds[0]} to {seeds[-1]}, all of them shown, none chosen."]
    if wrong:
        how.append(
            f"{len(wrong)} of them diverged ({listed(wrong)}): not finite, or far outside what the process allows."
        )
    chosen = _some(run.data, settings.num, settings.seed)
    if run.data is not None:
        how.append(f"Data: {settings.num} of {len(run.data)} training images, drawn with seed {settings.seed}.")
    parts = [sections.samples_beside_data(images, chosen, how), _nearest(run, settings, images)]

    few = range(settings.seed, settings.seed + 4)
    film = draw_film(sampler, run.model, shape, grid, few, device=run.device)
    seen = setting
    if film is None:
        stand_in = Exponential()
        steps = stand_in.grid("log-snr", process, 20)
        film = draw_film(stand_in, run.model, shape, steps, few, device=run.device)
        seen = (
            f"{stand_in!r}, grid log-snr, 20 network evaluations, since {sampler!r} has no steps that all samples share"
        )
    assert film is not None
    parts.append(
        sections.film_strip(film, [f"{seen}; seeds {few[0]} to {few[-1]}. Pixels outside [−1, 1] are cut for display."])
    )

    start = images if chosen is None else chosen
    count = min(3, len(start))
    own = range(settings.seed, settings.seed + count)
    paths = phase_space_paths(run.model, start[:count], own, run.device)
    origin = "samples, since the data cannot be read" if chosen is None else "training images"
    how = [
        f"Forward: two pixels of {count} {origin}, exact transitions over {STEPS} equal steps of time.",
        f"Reverse: the same pixels of {count} samples, EulerMaruyama, grid quadratic, {STEPS} network evaluations.",
        f"Seeds {own[0]} to {own[-1]}. The small picture is the position of the first image or sample.",
    ]
    return [*parts, sections.phase_space(paths, process, how)]


def _some(data: ImageData | None, count: int, seed: int) -> Float[Tensor, "n C H W"] | None:
    """Images drawn without replacement."""
    if data is None:
        return None
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return data.batch(order[:count].tolist())


def _nearest(run: TrainedRun, settings: ReportSettings, images: Float[Tensor, "n C H W"]) -> Section:
    if run.data is None:
        return sections.missing("nearest", "Nearest training images", f"The data cannot be read: {run.no_data}")
    searched = run.data.batch(list(range(min(settings.searched, len(run.data)))))
    found = nearest(images, searched)
    how = [
        f"Euclidean distance between all pixels, in [−1, 1], of each of {len(images)} samples (seeds from "
        f"{settings.seed}) and {len(searched)} of {len(run.data)} training images."
    ]
    memory = None
    if isinstance(run.data, Digits) and len(run.data) == len(searched) == len(Digits("train")):
        heldout = Digits("heldout").images
        memory = memorised_share(images, searched, heldout)
        how.append(f"Typical distance: the median over {len(heldout)} held-out digits.")
    return sections.nearest_images(images, searched, found, memory, settings.seed, how)


def _speed_quality(run: TrainedRun, settings: ReportSettings, rows: SpeedQuality | None) -> Section:
    title = ("speed-quality", "Speed against quality")
    if rows is None and settings.quick:
        return sections.missing(*title, "Left out, as --quick asked for, and the run folder holds no sweep.")
    if rows is None and not isinstance(run.data, Digits):
        return sections.missing(
            *title,
            "There is no sweep in the run folder, and the data are not the digits that a sweep is measured on here. "
            "Give the rows of one with --sweep.",
        )
    if rows is None:
        chosen = (settings.sampler, settings.grid)
        rows = measure_digits(run.model, chosen, settings.budgets, settings.quality_num, settings.seed, run.device)
    if not rows.points:
        return sections.missing(*title, "No point has a positive, finite distance.")
    return sections.speed_quality(rows)


def _configuration(checkpoint: Path) -> Section:
    return sections.configuration(read_text(checkpoint / "config.yaml", CONFIGURATION_BYTES), checkpoint.name)
