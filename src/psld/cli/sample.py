"""`psld sample`: images from a trained run, on one device or on many, and on from where a killed job stopped."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from jsonargparse import ArgumentParser
from torch import Tensor, nn

from psld.cli.arguments import add_label_arguments, add_sampling_arguments
from psld.cli.configuration import instances
from psld.distributed import launch
from psld.files import atomic_file, claim_folder
from psld.guidance.classifier_free import ClassifierFreeGuidance
from psld.guidance.classifier_guidance import ClassifierGuidance
from psld.model import Clamped, Model, ScoreModel
from psld.networks import Autocast
from psld.plots import save_grid
from psld.plots.pictures import from_bytes, load_images, save_image, to_bytes
from psld.pretrained.published import published_checkpoint, published_checkpoints
from psld.runs import load, load_classifier
from psld.samplers import Sampler, Samples
from psld.samplers.grids import Grid
from psld.training import latest_checkpoint

__all__ = [
    "Pictures",
    "accelerate",
    "generate",
    "guided",
    "own_share",
    "process_of",
    "provenance",
    "run",
]

DESCRIPTION = """Draw images from a trained run: OUT/grid.png, and OUT/images/000000.png … or OUT/samples.npz.

A sample depends on its own seed (--seed, --seed + 1, …) and neither on the batch size nor on the number of devices. The
same command again goes on with the images that are missing; with a larger --num it adds to them."""

EPILOG = """example: psld sample runs/demo --sampler EulerMaruyama --grid paper-quadratic --steps 50 --out runs/em;
one denoiser, another process: psld sample runs/denoiser --process psld.CLD --process.nu 4 --out runs/cld;
a class, of a run trained with labels: psld sample runs/digits --label 3 --guidance 2 --out runs/threes;
a class, of any run: psld sample runs/demo --label 3 --classifier runs/classifier --guidance 2 --out runs/threes;
a sampler with its own options: psld sample runs/demo --sampler RK45 --sampler.rtol 1e-4 --out runs/ode;
on four GPUs: psld sample runs/cifar --num 50000 --format npz --accelerator cuda --devices 4 --out runs/fid"""


def parser() -> ArgumentParser:
    """Options of `psld sample`."""
    options = ArgumentParser(prog="psld sample", description=DESCRIPTION)
    options.epilog = EPILOG
    options.add_argument("run", type=str, nargs="?", help="run, checkpoint or weights folder, or a published name")
    options.add_argument("--checkpoint", type=str | None, default=None, help="the same, as an option: psld-digits …")
    options.add_argument("--out", type=str, required=True, help="folder to write: new, or of the same command before")
    options.add_argument("--num", type=int, default=64, help="how many images")
    options.add_argument("--format", type=Literal["png", "npz"], default="png", help="a file an image, or one array")
    add_label_arguments(options, "class to draw, of a run trained with labels or by --classifier")
    options.add_argument(
        "--classifier",
        type=str | None,
        default=None,
        help="run of psld train-classifier, to guide a run without labels",
    )
    options.add_argument(
        "--temperature", type=float | None, default=None, help="that the logits of --classifier are divided by"
    )
    add_sampling_arguments(options)
    return options


def generate(
    sampler: Sampler,
    model: Model,
    shape: tuple[int, ...],
    grid: Grid,
    seeds: Sequence[int],
    batch_size: int,
    device: torch.device | str = "cpu",
) -> Iterator[Samples]:
    """Samples in batches, one a seed, from tables made once, with a progress bar on a terminal."""
    from tqdm import tqdm

    with tqdm(total=len(seeds), unit="img", disable=None, desc=type(sampler).__name__) as bar:
        for batch in sampler.batches(model, grid=grid, seeds=seeds, shape=shape, batch_size=batch_size, device=device):
            bar.update(len(batch.x))
            yield batch


def run(arguments: list[str]) -> int:
    """Sample what is missing; returns 0."""
    options = parser()
    config = options.parse_args(arguments)
    numbers = {name: config[name] for name in ("num", "batch_size", "steps", "devices", "nodes")}
    if min(numbers.values()) < 1:
        given = ", ".join(f"--{name} {value}" for name, value in numbers.items())
        raise ValueError(f"--num, --steps, --batch_size, --devices and --nodes must be at least 1: got {given}.")
    if (config.run is None) == (config.checkpoint is None):
        raise ValueError(
            f"say once what to sample from, as RUN or --checkpoint: got {config.run!r} and {config.checkpoint!r}. "
            f"Published checkpoints: {', '.join(published_checkpoints())}."
        )
    checkpoint = published_checkpoint(config.run or config.checkpoint)
    fabric = launch(config.accelerator, config.devices, config.nodes)
    out = Path(config.out)
    parts = instances(options, config)
    sampler = parts.sampler
    network = load(checkpoint, config.weights, str(fabric.device), parts.get("process"), config.trust)
    shape = network.known_shape()
    accelerate(network, config)
    model: Model = network
    if config.classifier is None:
        if config.temperature is not None:
            raise ValueError(f"--temperature {config.temperature} is of a classifier: give --classifier.")
        model = guided(model, config.label, config.guidance)
    else:
        model = guided_by_classifier(model, shape, config, str(fabric.device))
    grid = sampler.grid(config.grid, model.process, config.steps)
    if fabric.is_global_zero:
        settings = provenance(config, checkpoint, sampler, grid) | {"format": config.format}
        settings |= {name: config[name] for name in ("label", "guidance", "temperature")}
        settings["classifier"] = str(latest_checkpoint(config.classifier)) if config.classifier else None
        claim_folder(out, "sampling.json", settings, "samples")
    fabric.barrier()
    if config.clamp:
        model = Clamped(model)
    store = Pictures(out) if config.format == "png" else Arrays(out)
    missing = own_share(config.num, store.present(), fabric.global_rank, fabric.world_size)
    seeds = [config.seed + i for i in missing]
    nfe: list[Tensor] = []
    for start, batch in zip(
        range(0, len(missing), config.batch_size),
        generate(sampler, model, shape, grid, seeds, config.batch_size, fabric.device),
        strict=True,
    ):
        store.add(missing[start : start + config.batch_size], batch.x.float().clamp(-1, 1).cpu())
        nfe.append(batch.nfe)
    fabric.barrier()
    if fabric.is_global_zero:
        store.finish(config.num, config.seed)
        save_grid(store.first(min(100, config.num)), out / "grid.png")
        calls = f", {float(torch.cat(nfe).double().mean()):.4g} network evaluations each" if nfe else ""
        print(f"{config.num} images in {out}{calls}. Look at {out / 'grid.png'}")
    return 0


def accelerate(model: ScoreModel, config) -> None:
    """Gives a model the network that --precision and --compile ask for."""
    if config.precision != "32-true":
        dtype = torch.bfloat16 if config.precision == "bf16-mixed" else torch.float16
        model.network = Autocast(cast(nn.Module, model.network), dtype)
    if config.compile:
        model.network = torch.compile(model.network)


def guided(model: Model, label: int | None, guidance: float | None) -> Model:
    """The model guided to a class; the model itself where no label is given.

    Raises:
        ValueError: a scale without a label or not finite, a label out of range, or a model trained without labels.
    """
    if label is None:
        if guidance is not None:
            raise ValueError(f"--guidance {guidance} needs a class to guide to: give --label.")
        return model
    classes = model.classes
    if classes is None:
        raise ValueError(
            f"--label {label} is for runs trained with labels, and this one was not: leave --label out, train with "
            "classes and label_dropout (configs/digits-conditional.yaml), or give psld sample a --classifier."
        )
    if not 0 <= label < classes:
        raise ValueError(f"labels are 0 … {classes - 1}: got --label {label}.")
    scale = 1.0 if guidance is None else guidance
    if not math.isfinite(scale):
        raise ValueError(f"--guidance must be finite: got {scale}.")
    return ClassifierFreeGuidance(model, label, classes, scale)


def guided_by_classifier(model: Model, shape: tuple[int, ...], config, device: str) -> Model:
    """The model guided to --label by --classifier. A model with labels of its own is taken without.

    Raises:
        FileNotFoundError: there is no run.
        ValueError: no label, or one the classifier does not have; a run of a score model, of another process or of
            other images; a scale or a temperature out of range.
    """
    if config.label is None:
        raise ValueError(f"--classifier {config.classifier} needs a class to guide to: give --label.")
    classifier = load_classifier(config.classifier, device, config.trust)
    known = classifier.data_shape
    if known != shape:
        raise ValueError(
            f"{config.classifier} classifies images of {known[1]}×{known[2]} pixels and {known[0]} channel(s), and the "
            f"run draws {shape[1]}×{shape[2]} and {shape[0]}: train a classifier on images of its size."
        )
    scale, temperature = (1.0 if given is None else given for given in (config.guidance, config.temperature))
    return ClassifierGuidance(model, classifier.network, config.label, scale, temperature, classifier.process)


def own_share(count: int, present: set[int], rank: int, ranks: int) -> list[int]:
    """What a process has to draw of images 0 … count − 1: every `ranks`-th, where it is not there yet.

    Each process writes its own images only, so it does not matter when it looks which are there.
    """
    return [i for i in range(rank, count, ranks) if i not in present]


def provenance(config, checkpoint: Path, sampler: Sampler, grid: Grid) -> dict[str, Any]:
    """What the images depend on: not their number, not the devices, not how they are written."""
    return {
        "checkpoint": str(latest_checkpoint(checkpoint)),
        "weights": config.weights,
        "precision": None if config.precision == "32-true" else config.precision,  # folders of before have none
        "clamp": config.clamp,
        "sampler": repr(sampler),
        "process": process_of(config),
        "times": grid.times.tolist(),
        "final": grid.final,
        "seed": config.seed,
    }


def process_of(config) -> dict | None:
    """What --process said, with every argument; None for the run's own."""
    return config.process.as_dict() if config.get("process") else None


class Pictures:
    """Samples as OUT/images/000000.png …, each there as soon as it is drawn.

    With several draws an image, sample i is draw i % draws of image i // draws, and its name says both: 000000-0.png.
    """

    def __init__(self, out: Path, draws: int = 1):
        self.folder, self.draws = out / "images", draws

    def path(self, i: int) -> Path:
        image, draw = divmod(i, self.draws)
        return self.folder / (f"{image:06d}.png" if self.draws == 1 else f"{image:06d}-{draw}.png")

    def present(self) -> set[int]:
        name = r"(\d{6,})()" if self.draws == 1 else r"(\d{6,})-(\d+)"
        found = (re.fullmatch(name, path.stem) for path in self.folder.glob("*.png"))
        return {int(match[1]) * self.draws + int(match[2] or 0) for match in found if match}

    def add(self, indices: Sequence[int], images: Tensor) -> None:
        for i, image in zip(indices, images, strict=True):
            save_image(image, self.path(i))

    def first(self, count: int) -> Tensor:
        return load_images([self.path(i) for i in range(count)])

    def finish(self, count: int, seed: int) -> None: ...


class Arrays:
    """Samples as OUT/samples.npz; until all are there, a file a batch in OUT/parts."""

    def __init__(self, out: Path):
        self.path, self.parts = out / "samples.npz", out / "parts"

    def present(self) -> set[int]:
        known = set(range(len(self._read(self.path)["images"]))) if self.path.exists() else set()
        return known.union(*(self._read(part)["indices"].tolist() for part in self.parts.glob("*.npz")))

    def add(self, indices: Sequence[int], images: Tensor) -> None:
        with atomic_file(self.parts / f"{indices[0]:06d}.npz") as file:
            np.savez_compressed(file, images=to_bytes(images), indices=np.asarray(indices))

    def first(self, count: int) -> Tensor:
        return from_bytes(self._read(self.path)["images"][:count])

    def finish(self, count: int, seed: int) -> None:
        """One array, in the order of the seeds; the parts go once it is written.

        Each image is there once: after a kill between the two, or two commands at once, some are in both or in two.
        """
        found = [self._read(part) for part in sorted(self.parts.glob("*.npz"))]
        if not found:
            if self.parts.is_dir():
                shutil.rmtree(self.parts)
            return
        pieces = [(part["indices"], part["images"]) for part in found]
        if self.path.exists():
            known = self._read(self.path)["images"]
            pieces.append((np.arange(len(known)), known))
        indices, first = np.unique(np.concatenate([piece[0] for piece in pieces]), return_index=True)
        images = np.concatenate([piece[1] for piece in pieces])[first]
        with atomic_file(self.path) as file:
            np.savez_compressed(file, images=images, seeds=seed + indices)
        shutil.rmtree(self.parts)

    @staticmethod
    def _read(path: Path) -> dict[str, np.ndarray]:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
