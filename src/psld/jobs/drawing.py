"""Samples drawn into a folder, on one device or on many, and on from where a killed job stopped.

drawing = Drawing(psld.load("runs/faces"), sampler, grid, batch_size=64)
draw_samples("runs/faces-samples", drawing, 5_000)      # again: draws what is missing, and nothing that is there
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from psld.distributed import first_problem, launch
from psld.files import claim_folder, locked
from psld.jobs.provenance import provenance, tensor_sha256
from psld.jobs.stores import Arrays, Pictures, own_share
from psld.model import Model
from psld.samplers import FixedStepSampler, Projected, Sampler, Samples
from psld.samplers.grids import Grid

if TYPE_CHECKING:
    from lightning.fabric import Fabric

__all__ = ["Draw", "Drawing", "Drawn", "draw_given", "draw_samples"]

SETTINGS = "sampling.json"
"""The file of a folder of samples that says what they depend on."""

Draw = Callable[[Sequence[int], Sequence[int]], Samples]
"""Draws for the pictures at some positions, one seed each."""


@dataclass(frozen=True)
class Drawing:
    """How samples are drawn, however many.

    Attributes:
        model: any, of known `data_shape`, guided and clamped as samples are to be.
        sampler: any.
        grid: its times.
        seed: of the first sample; the others follow.
        batch_size: samples at a time, on each device.
        fabric: the processes that draw together (`psld.distributed.launch`), the model on the device of each; None for
            this one alone, on a CPU.
    """

    model: Model
    sampler: Sampler
    grid: Grid
    seed: int = 0
    batch_size: int = 256
    fabric: Fabric | None = None


@dataclass(frozen=True)
class Drawn:
    """Samples in a folder.

    Attributes:
        store: reads them.
        nfe: mean network evaluations of those drawn this time; None where all were there.
    """

    store: Pictures | Arrays
    nfe: float | None

    def first(self, count: int) -> Float[Tensor, "n C H W"]:
        """The first samples, as 8 bits have kept them, in [−1, 1]."""
        return self.store.first(count)

    def by_picture(self, count: int) -> Float[Tensor, "n d C H W"]:
        """The draws of each of the first pictures."""
        draws = self.store.draws
        return self.first(count * draws).unflatten(0, (-1, draws))

    @property
    def calls(self) -> str:
        """Evaluations, for a closing line."""
        return "" if self.nfe is None else f", {self.nfe:.4g} network evaluations each"


Shown = Callable[[Drawn], None]
"""Writes what shows samples, beside them."""


def draw_samples(
    out: str | Path,
    drawing: Drawing,
    num: int,
    file_format: Literal["png", "npz"] = "png",
    settings: Mapping[str, Any] | None = None,
    shown: Shown | None = None,
) -> Drawn | None:
    """Draws those of `num` samples that are not in a folder yet: images/000000.png …, or samples.npz.

    Sample i has the seed `drawing.seed` + i, and depends neither on the batch size nor on the number of devices.

    Args:
        out: the folder: new, or of the same drawing before.
        drawing: how.
        num: how many there are to be.
        file_format: a file per image, or one array.
        settings: what the samples depend on besides, to be recorded and compared.
        shown: gets all of them on the first process while the folder is still locked, to write what shows them there.

    Returns:
        All of them; None on other processes than the first.

    Raises:
        FileExistsError: the folder holds something else, or samples of another model, sampler, grid or seed.
        FolderInUseError: another process writes there.
        SpecError: a part of the drawing does not record how it was made.
        ValueError: a sample is not finite.
    """
    out, device = Path(out), _fabric(drawing).device
    plan = drawing.sampler.prepare(drawing.model.process, drawing.grid)
    model = drawing.model.tabulate(drawing.grid.times)

    def draw(positions: Sequence[int], seeds: Sequence[int]) -> Samples:
        return drawing.sampler.sample(model, grid=plan, seeds=seeds, device=device)

    store = Pictures(out) if file_format == "png" else Arrays(out)
    return _drawn(out, drawing, draw, store, num, {"format": file_format, **(settings or {})}, "samples", shown=shown)


def draw_given(
    out: str | Path,
    drawing: Drawing,
    images: Float[Tensor, "n C H W"],
    draw: Draw,
    draws: int,
    settings: Mapping[str, Any],
    shown: Shown | None = None,
) -> Drawn | None:
    """Draws for pictures, several each, that are not in a folder yet: images/000000-0.png … (picture, draw).

    Draw d of picture i has the seed `drawing.seed` + i · draws + d.

    Args:
        out: the folder: new, or of the same drawing before.
        drawing: how; its model is the one before it is told of the pictures.
        images: the pictures, which are compared by their content.
        draw: makes them, as `conditional` does.
        draws: of each picture.
        settings: what the draws depend on besides, to be recorded and compared.
        shown: as `draw_samples`.

    Returns:
        All of them, draws of a picture one after the other; None on other processes than the first.

    Raises:
        FileExistsError, FolderInUseError, SpecError, ValueError: as `draw_samples`.
    """
    known = {**settings, "draws": draws, "images": tensor_sha256(images)}
    store = Pictures(Path(out), draws)
    apart = _chooses_steps(drawing.sampler)
    return _drawn(Path(out), drawing, draw, store, len(images) * draws, known, "draws", apart, shown)


def claim(out: Path, settings: Mapping[str, Any], held: str, fabric: Fabric) -> None:
    """`psld.files.claim_folder` on the first process; a refusal is that of all.

    Raises:
        FileExistsError: the folder holds something else.
    """
    refusal: OSError | None = None
    if fabric.is_global_zero:
        try:
            claim_folder(out, SETTINGS, json.loads(json.dumps(settings)), held)  # tuples as they are read back
        except OSError as error:
            refusal = error
    if problem := first_problem(fabric, "" if refusal is None else str(refusal)):
        raise refusal or FileExistsError(problem)


def _drawn(
    out: Path,
    drawing: Drawing,
    draw: Draw,
    store: Pictures | Arrays,
    total: int,
    settings: Mapping[str, Any],
    held: str,
    apart: bool = False,
    shown: Shown | None = None,
) -> Drawn | None:
    from tqdm import tqdm

    fabric, draws = _fabric(drawing), store.draws
    with locked(out, held, fabric):
        own = provenance(drawing.model, drawing.sampler, drawing.grid, drawing.seed) if fabric.is_global_zero else {}
        claim(out, {**settings, **own}, held, fabric)
        missing = own_share(total, store.present(), fabric.global_rank, fabric.world_size)
        nfe: list[Tensor] = []
        with tqdm(total=len(missing), unit="img", disable=None, desc=type(drawing.sampler).__name__) as bar:
            for batch in _batches(missing, drawing.batch_size, draws, apart):
                samples = draw([i // draws for i in batch], [drawing.seed + i for i in batch])
                _require_finite(samples.x, batch, draws)
                store.add(batch, samples.x.float().clamp(-1, 1).cpu())
                nfe.append(samples.nfe.cpu())
                bar.update(len(batch))
        fabric.barrier()
        if not fabric.is_global_zero:
            return None
        store.finish(drawing.seed)
        drawn = Drawn(store, float(torch.cat(nfe).double().mean()) if nfe else None)
        if shown is not None:
            shown(drawn)
        return drawn


def _fabric(drawing: Drawing) -> Fabric:
    return drawing.fabric or launch("cpu", 1, 1)


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


def _require_finite(x: Float[Tensor, "n C H W"], batch: Sequence[int], draws: int) -> None:
    wrong = [i for i, image in zip(batch, x, strict=True) if not image.isfinite().all()]
    if wrong:
        image, draw = divmod(wrong[0], draws)
        raise ValueError(
            f"draw {draw} of image {image} is not finite ({len(wrong)} of {len(batch)} in this batch are not): take "
            "more steps, weaker guidance, or a larger noise of the measurement."
        )
