"""What `psld inpaint`, `restore` and `edit` share: pictures in, several draws of each out, a grid to compare them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float
from jsonargparse import ArgumentParser
from torch import Tensor

from psld.cli.arguments import add_sampling_arguments
from psld.cli.configuration import instances
from psld.cli.sample import Pictures, accelerate, own_share, provenance
from psld.data import ImageData
from psld.data.opening import holds_mnist, open_images
from psld.distributed import launch
from psld.files import claim_folder
from psld.inverse.operators import LinearOperator
from psld.inverse.posterior import DPS, MMPS, PiGDM, PosteriorGuidance
from psld.model import Clamped, Model, ScoreModel
from psld.plots.pictures import save_panels
from psld.pretrained.published import published_checkpoint
from psld.runs import load
from psld.samplers import FixedStepSampler, Projected, Sampler, Samples
from psld.samplers.grids import Grid

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = [
    "ENLARGED",
    "OWN",
    "Draw",
    "Job",
    "Outcome",
    "add_method_arguments",
    "add_picture_arguments",
    "conditional",
    "draw_missing",
    "fingerprint",
    "guided",
    "open_pictures",
    "opened",
    "read_pictures",
    "require_own_options",
    "rms",
    "size_of",
    "write_grid",
]

ROWS, ENLARGED = 16, 128  # of OUT/grid.png: how many pictures, and to how many pixels small ones are enlarged

Draw = Callable[[Sequence[int], Sequence[int]], Samples]
"""Draws for the pictures at some positions, one seed each."""

METHODS: dict[str, type[PosteriorGuidance]] = {"mmps": MMPS, "pigdm": PiGDM, "dps": DPS}
OWN = {"iterations": ("mmps", "iterations"), "data_std": ("pigdm", "data_std"), "zeta": ("dps", "step")}


def add_picture_arguments(options: ArgumentParser) -> None:
    """Run, pictures, OUT, draws, and what `psld sample` draws with."""
    options.add_argument("run", type=str, help="run, checkpoint or weights folder, or a published name")
    images = "an image, a folder of images, or data as for psld evaluate --against: digits, .npz …"
    options.add_argument("images", type=str, help=images)
    options.add_argument("--out", type=str, required=True, help="folder to write: new, or of the same command before")
    options.add_argument("--num", type=int | None, default=None, help="how many of the images, the first; or all")
    options.add_argument("--split", type=str | None, default=None, help="of digits and MNIST: train, heldout …")
    options.add_argument("--draws", type=int, default=4, help="draws of each image")
    add_sampling_arguments(options)


def add_method_arguments(options: ArgumentParser, degraded: str) -> None:
    """--degraded, with this help; what belongs to one method of posterior guidance each; and how draws are made."""
    options.add_argument("--degraded", type=bool, default=False, nargs="?", const=True, help=degraded)
    options.add_argument("--iterations", type=int | None, default=None, help="of mmps: of conjugate gradients (5)")
    options.add_argument("--data_std", type=float | None, default=None, help="of pigdm: std of a pixel (1)")
    options.add_argument("--zeta", type=float | None, default=None, help="of dps: ζ of the paper (1 / noise²)")
    options.set_defaults({"sampler": {"class_path": "Ancestral"}, "steps": 100})


def require_own_options(config, owners: Mapping[str, tuple[str, Sequence[str]]]) -> None:
    """Refuses an option that the chosen method or task has no use for.

    Args:
        config: of the command.
        owners: name of such an option → the option that chooses, and its values that use it; beside those of methods.

    Raises:
        ValueError: it was given beside another choice.
    """
    of_methods = {name: ("method", [method]) for name, (method, _) in OWN.items()}
    for name, (choice, values) in {**of_methods, **owners}.items():
        if config[name] is not None and config[choice] not in values:
            raise ValueError(f"--{name} is for --{choice} {' or '.join(values)}: leave it out for {config[choice]}.")


class Job(NamedTuple):
    """The parts of a run that pictures are drawn with."""

    fabric: Fabric
    checkpoint: Path
    sampler: Sampler
    model: ScoreModel
    shape: tuple[int, ...]


def opened(options: ArgumentParser, config) -> Job:
    """The run that a command names, on its device.

    Raises:
        ValueError: a number that makes no sense, or what `load_model` refuses.
    """
    names = ("draws", "batch_size", "steps", "devices", "nodes")
    numbers = {name: config[name] for name in names} | ({} if config.num is None else {"num": config.num})
    if min(numbers.values()) < 1:
        given = ", ".join(f"--{name} {value}" for name, value in numbers.items())
        raise ValueError(
            f"--num, --draws, --steps, --batch_size, --devices and --nodes must be at least 1: got {given}."
        )
    checkpoint = published_checkpoint(config.run)
    fabric = launch(config.accelerator, config.devices, config.nodes)
    parts = instances(options, config)
    model = load(checkpoint, config.weights, str(fabric.device), parts.get("process"))
    shape = model.known_shape()
    accelerate(model, config)
    return Job(fabric, checkpoint, parts.sampler, model, shape)


# -- pictures ----------------------------------------------------------------------------------------------------------


def read_pictures(config, shape: tuple[int, ...], what: str = "the run makes") -> Float[Tensor, "n C H W"]:
    """The images of a command, as --split and --num say.

    Raises:
        ValueError: another shape, or fewer than --num.
        FileNotFoundError: nothing is there.
    """
    images = open_pictures(config.images, config.split, shape, what)
    if config.num is not None and config.num > len(images):
        raise ValueError(f"--num {config.num} is more than the {len(images)} images in {config.images}.")
    return images.batch(range(config.num or len(images)))


def open_pictures(source: str, split: str | None, shape: tuple[int, ...], what: str = "the run makes") -> ImageData:
    """A file, a folder or a data set (`psld.data.opening.open_images`), of one shape.

    Args:
        source: what to open.
        split: of it, where it has some.
        shape: (C, H, W) that images must have.
        what: has that shape, for the message.

    Raises:
        ValueError: another shape.
        FileNotFoundError: nothing is there.
    """
    images = open_images(source, split, shape[-1] if holds_mnist(source) and shape[-1] in (28, 32) else None)
    if images.image_shape != tuple(shape):
        raise ValueError(
            f"{source} holds images of {size_of(images.image_shape)}, and {what} {size_of(shape)}: convert them first."
        )
    return images


def size_of(shape: Sequence[int]) -> str:
    """(1, 8, 8) as words."""
    channels, height, width = shape
    colours = {1: "grey", 3: "colour", 4: "colour with transparency"}
    return f"{height}×{width} {colours.get(channels, f'with {channels} channels')}"


# -- drawing -----------------------------------------------------------------------------------------------------------


def guided(config, model: Model, operator: LinearOperator, observation: Tensor) -> Model:
    """The model given a measurement, by the posterior guidance that --method names."""
    own = {argument: config[name] for name, (method, argument) in OWN.items() if method == config.method}
    given = {argument: value for argument, value in own.items() if value is not None}
    return METHODS[config.method](model, operator, observation, config.noise, **given)


def conditional(
    job: Job, config, given: Tensor, build: Callable[[Model, Tensor], tuple[Sampler, Model]]
) -> tuple[Sampler, Grid, Draw]:
    """Draws given one measurement a picture.

    Args:
        job: the opened run.
        config: of the command.
        given: (n, …), a row a picture.
        build: from the model and some rows, one a sample or one for all, to a sampler and the model it asks.

    Returns:
        The sampler, for the record; its grid; and how to draw. Tables are made here, once.
    """
    device, process = job.fabric.device, job.model.process
    sampler, _ = build(job.model, given[:1].to(device, torch.float64))
    grid = sampler.grid(config.grid, process, config.steps)
    plan, model = sampler.prepare(process, grid), job.model.tabulate(grid.times)

    def draw(positions: Sequence[int], seeds: Sequence[int]) -> Samples:
        rows = positions if len(set(positions)) > 1 else positions[:1]
        sampler, asked = build(model, given[list(rows)].to(device, torch.float64))
        asked = Clamped(asked) if config.clamp else asked
        return sampler.sample(asked, grid=plan, seeds=seeds, shape=job.shape, device=device)

    return sampler, grid, draw


class Outcome(NamedTuple):
    """All draws as they are in OUT/images, (n, draws, C, H, W), and mean evaluations of those drawn this time."""

    images: Tensor
    nfe: float | None

    @property
    def calls(self) -> str:
        """Evaluations, for a closing line."""
        return "" if self.nfe is None else f", {self.nfe:.4g} network evaluations each"


def draw_missing(
    job: Job, config, images: Tensor, sampler: Sampler, grid: Grid, draw: Draw, settings: Mapping[str, Any]
) -> Outcome | None:
    """Draws what is not in OUT/images yet, claims the folder first, and returns all of it (None but on the first rank).

    Draw d of image i has seed --seed + i · draws + d, whatever the batch size and the number of devices.

    Raises:
        FileExistsError: OUT holds something else, or draws of other settings.
        ValueError: a draw is not finite.
    """
    from tqdm import tqdm

    out, fabric, draws = Path(config.out), job.fabric, config.draws
    if fabric.is_global_zero:
        known = provenance(config, job.checkpoint, sampler, grid) | {"draws": draws, "images": fingerprint(images)}
        claim_folder(out, "sampling.json", known | dict(settings), "draws")
    fabric.barrier()
    store, total = Pictures(out, draws), len(images) * draws
    missing = own_share(total, store.present(), fabric.global_rank, fabric.world_size)
    nfe: list[Tensor] = []
    with tqdm(total=len(missing), unit="img", disable=None, desc=type(sampler).__name__) as bar:
        for batch in _batches(missing, config.batch_size, draws, _chooses_steps(job.sampler)):
            samples = draw([i // draws for i in batch], [config.seed + i for i in batch])
            _require_finite(samples.x, batch, draws)
            store.add(batch, samples.x.float().clamp(-1, 1).cpu())
            nfe.append(samples.nfe.cpu())
            bar.update(len(batch))
    fabric.barrier()
    if not fabric.is_global_zero:
        return None
    mean = float(torch.cat(nfe).double().mean()) if nfe else None
    return Outcome(store.first(total).unflatten(0, (-1, draws)), mean)


def _chooses_steps(sampler: Sampler) -> bool:
    return not isinstance(sampler.solver if isinstance(sampler, Projected) else sampler, FixedStepSampler)


def _batches(indices: Sequence[int], size: int, draws: int, apart: bool) -> Iterator[list[int]]:
    """`size` at a time. Apart: of one image only, for a solver that drops finished samples but not their pictures."""
    batch: list[int] = []
    for i in indices:
        if batch and (len(batch) == size or (apart and i // draws != batch[0] // draws)):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _require_finite(x: Tensor, batch: Sequence[int], draws: int) -> None:
    wrong = [i for i, image in zip(batch, x, strict=True) if not image.isfinite().all()]
    if wrong:
        image, draw = divmod(wrong[0], draws)
        raise ValueError(
            f"draw {draw} of image {image} is not finite ({len(wrong)} of {len(batch)} in this batch are not): the "
            "guidance is too strong for these steps. Give more --steps, another --method, or a larger --noise."
        )


def fingerprint(*tensors: Tensor) -> str:
    """A hash of values, to know the same pictures again."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


# -- results -----------------------------------------------------------------------------------------------------------


def rms(difference: Tensor) -> float:
    """Root of the mean square."""
    return float(difference.double().square().mean().sqrt())


def write_grid(path: Path, before: Mapping[str, Float[Tensor, "n C H W"]], draws: Float[Tensor, "n d C H W"]) -> None:
    """A row an image: what there was, in columns with titles, and its draws. The first only, small ones large."""
    scale = max(1, ENLARGED // max(draws.shape[-2:]))
    shape = draws.shape[2:]
    panels: dict[str, tuple[Tensor, int | None]] = {
        name: (_as_large(images[:ROWS], shape), 1) for name, images in before.items()
    }
    count = draws.shape[1]
    panels["draw" if count == 1 else f"{count} draws"] = (draws[:ROWS].flatten(0, 1), count)
    save_panels(panels, path, scale)


def _as_large(images: Tensor, shape: Sequence[int]) -> Tensor:
    """Fewer pixels as blocks, and grey in as many channels, to stand beside images of that shape."""
    channels, height, width = shape
    blocks = images.repeat_interleave(height // images.shape[-2], -2).repeat_interleave(width // images.shape[-1], -1)
    return blocks.expand(-1, channels, -1, -1)
