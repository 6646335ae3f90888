"""Samples drawn into a folder, on one device or on many, and on from where a killed job stopped.

drawing = Drawing(psld.load("runs/faces"), sampler, grid, batch_size=64)
draw_samples("runs/faces-samples", drawing, 5_000)      # again: draws what is missing, and nothing that is there
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from psld.distributed import first_problem, launch, lists_of_all_ranks
from psld.files import claim_folder, locked
from psld.jobs.divergence import DivergedSeeds
from psld.jobs.provenance import provenance, tensor_sha256
from psld.jobs.stores import Arrays, Pictures, own_share
from psld.model import Model
from psld.samplers import DivergedWarning, FixedStepSampler, Projected, Sampler, Samples
from psld.samplers.divergence import listed, refusal, shown
from psld.samplers.grids import Grid
from psld.specs.arguments import checked_fields, seed_number, whole

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
        allow_diverged: whether samples that diverged are written as well, and named in OUT/diverged.json.
    """

    model: Model
    sampler: Sampler
    grid: Grid
    seed: int = 0
    batch_size: int = 256
    fabric: Fabric | None = None
    allow_diverged: bool = False

    def __post_init__(self) -> None:
        checked_fields(self)
        seed_number("seed", self.seed)
        whole("batch_size", self.batch_size)


@dataclass(frozen=True)
class Drawn:
    """Samples in a folder.

    Attributes:
        store: reads them.
        diverged: the seeds of those that diverged, where that is allowed.
        nfe: mean network evaluations of those drawn this time; None where all were there.
    """

    store: Pictures | Arrays
    nfe: float | None
    diverged: tuple[int, ...] = ()

    def first(self, count: int) -> Float[Tensor, "n C H W"]:
        """The first samples, as 8 bits have kept them, in [−1, 1]."""
        return self.store.first(count)

    def by_picture(self, count: int) -> Float[Tensor, "n d C H W"]:
        """The draws of each of the first pictures."""
        draws = self.store.draws
        return self.first(count * draws).unflatten(0, (-1, draws))

    @property
    def calls(self) -> str:
        """Evaluations, and how many diverged, for a closing line."""
        calls = "" if self.nfe is None else f", {self.nfe:.4g} network evaluations each"
        return f"{calls}; {len(self.diverged)} diverged ({listed(self.diverged)})" if self.diverged else calls


Show = Callable[[Drawn], None]
"""Writes what shows samples, beside them."""


def draw_samples(
    out: str | Path,
    drawing: Drawing,
    num: int,
    file_format: Literal["png", "npz"] = "png",
    settings: Mapping[str, Any] | None = None,
    show: Show | None = None,
) -> Drawn | None:
    """Draws those of `num` samples that are not in a folder yet: images/000000.png …, or samples.npz.

    Sample i has the seed `drawing.seed` + i, and depends neither on the batch size nor on the number of devices. Those
    that diverged are left out: that is an error once the others are there, or once a whole batch diverged.

    Args:
        out: the folder: new, or of the same drawing before.
        drawing: how.
        num: how many there are to be.
        file_format: a file per image, or one array.
        settings: what the samples depend on besides, to be recorded and compared.
        show: gets all of them on the first process while the folder is still locked, to write what shows them there.

    Returns:
        All of them; None on other processes than the first.

    Raises:
        FileExistsError: the folder holds something else, or samples of another model, sampler, grid or seed.
        FolderInUseError: another process writes there.
        SpecError: a part of the drawing does not record how it was made.
        DivergedError: samples diverged, which is not allowed; the message names their seeds.
    """
    out, device = Path(out), _fabric(drawing).device
    plan = drawing.sampler.prepare(drawing.model.process, drawing.grid)
    model = drawing.model.tabulate(drawing.grid.times)

    def draw(positions: Sequence[int], seeds: Sequence[int]) -> Samples:
        return drawing.sampler.sample(model, grid=plan, seeds=seeds, device=device)

    store = Pictures(out) if file_format == "png" else Arrays(out)
    return _drawn(out, drawing, draw, store, num, {"format": file_format, **(settings or {})}, "samples", show=show)


def draw_given(
    out: str | Path,
    drawing: Drawing,
    images: Float[Tensor, "n C H W"],
    draw: Draw,
    draws: int,
    settings: Mapping[str, Any],
    show: Show | None = None,
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
        show: as `draw_samples`.

    Returns:
        All of them, draws of a picture one after the other; None on other processes than the first.

    Raises:
        FileExistsError, FolderInUseError, SpecError, DivergedError: as `draw_samples`.
    """
    known = {**settings, "draws": draws, "images": tensor_sha256(images)}
    store = Pictures(Path(out), draws)
    apart = _chooses_steps(drawing.sampler)
    return _drawn(Path(out), drawing, draw, store, len(images) * draws, known, "draws", apart, show)


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
    show: Show | None = None,
) -> Drawn | None:
    from tqdm import tqdm

    fabric, draws = _fabric(drawing), store.draws
    with locked(out, held, fabric):
        own = provenance(drawing.model, drawing.sampler, drawing.grid, drawing.seed) if fabric.is_global_zero else {}
        claim(out, {**settings, **own}, held, fabric)
        missing = own_share(total, store.present(), fabric.global_rank, fabric.world_size)
        record = DivergedSeeds(out, fabric.global_rank)
        refused: list[int] = []
        nfe: list[Tensor] = []
        with tqdm(total=len(missing), unit="img", disable=None, desc=type(drawing.sampler).__name__) as bar:
            for batch in _batches(missing, drawing.batch_size, draws, apart):
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DivergedWarning)  # counted below
                    samples = draw([i // draws for i in batch], [drawing.seed + i for i in batch])
                wrong = [i for i, bad in zip(batch, samples.diverged.tolist(), strict=True) if bad]
                keep = [at for at, i in enumerate(batch) if drawing.allow_diverged or i not in wrong]
                if drawing.allow_diverged:
                    record.add(drawing.seed + i for i in wrong)  # before the images, so that none is there unnamed
                else:
                    refused += [drawing.seed + i for i in wrong]
                if keep:
                    store.add([batch[at] for at in keep], shown(samples.x[keep]).cpu())
                nfe.append(samples.nfe.cpu())
                bar.update(len(batch))
                if not keep:
                    break
        if refused := sorted(lists_of_all_ranks(fabric, refused)):
            first, kept = refused[0] - drawing.seed, f"They are not in {out}, the others are"
            told = f"{kept} (draw {first % draws} of image {first // draws} is the first)" if draws > 1 else kept
            raise refusal(refused, told)
        known = [seed for seed in record.seeds() if 0 <= seed - drawing.seed < total]
        fabric.barrier()  # all have read the record before it is written anew
        if fabric.is_global_zero:
            store.finish(drawing.seed)
            record.finish()
        if known and not drawing.allow_diverged:
            raise refusal(known, f"They are in {out} since an earlier command allowed it")
        if not fabric.is_global_zero:
            return None
        drawn = Drawn(store, float(torch.cat(nfe).double().mean()) if nfe else None, tuple(known))
        if show is not None:
            show(drawn)
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
