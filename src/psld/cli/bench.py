"""`psld bench samplers`: every sampler against every other, on exact scores or on a trained network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jsonargparse import ArgumentParser

from psld.comparison import Reference, cells, draw_plot, markdown, measure, read_rows, write_rows
from psld.data import Digits
from psld.evaluation import energy_distance, frechet_distance
from psld.exact import Empirical, GaussianMixture
from psld.files import atomic_file, claim_folder
from psld.model import Clamped, Model
from psld.processes import CLD, PSLD, VPSDE, HigherOrderLangevin, LinearProcess
from psld.runs import load
from psld.samplers.tuning import Judge

__all__ = ["run"]

DESCRIPTION = """Compare samplers: processes × samplers × evaluations, on exact scores of known data or, with
--checkpoint, on a trained network against held-out images. OUT gets rows.json, rows.csv, table.md and frechet.png.

An interrupted run goes on where it was when the same command is given again."""

EPILOG = """example: psld bench samplers --data digits --nfe 5 10 20 --num 2000 --out runs/bench;
one family only: psld bench samplers --processes PSLD-0.01 --only Projected paper-quadratic --out runs/few"""

ProcessName = Literal["VP", "CLD", "PSLD-0.01", "PSLD-0.25", "order-3"]
PROCESSES: dict[str, LinearProcess] = {
    "VP": VPSDE(),
    "CLD": CLD(),
    "PSLD-0.01": PSLD(gamma=0.01),
    "PSLD-0.25": PSLD(gamma=0.25),
    "order-3": HigherOrderLangevin(order=3),
}
COMPONENT_STD = 0.05


def parser() -> ArgumentParser:
    """Options of `psld bench`."""
    options = ArgumentParser(prog="psld bench", description=DESCRIPTION)
    options.epilog = EPILOG
    options.add_argument("what", choices=["samplers"], help="what is compared")
    options.add_argument("--out", type=str, required=True, help="folder for the results")
    options.add_argument("--data", type=Literal["digits", "ring"], default="digits", help="digits, or a 2-D mixture")
    options.add_argument("--nfe", type=int, nargs="+", default=[5, 10, 20], help="evaluations a sample")
    options.add_argument("--num", type=int, default=2000, help="samples a cell")
    options.add_argument("--exact", type=int, default=256, help="of those compared with the exact flow")
    options.add_argument(
        "--processes", type=ProcessName, nargs="+", default=["VP", "CLD", "PSLD-0.01", "PSLD-0.25"], help="which"
    )
    options.add_argument("--only", type=str, nargs="+", default=[], help="samplers whose name holds one of these")
    options.add_argument("--checkpoint", type=str, default=None, help="run of digits, in place of --processes")
    options.add_argument("--clamp", type=bool, default=True, help="hold x̂₀ of a trained network within [−1, 1]")
    options.add_argument("--device", type=str, default="cpu", help="cpu, cuda …")
    return options


def run(arguments: list[str]) -> int:
    """Measure what is not measured yet; returns 0."""
    from tqdm import tqdm

    config = parser().parse_args(arguments)
    if min(config.nfe) < 3 or config.num < 2 or not 2 <= config.exact <= config.num:
        raise ValueError(
            "--nfe must be at least 3, --num at least 2 and --exact between 2 and --num: "
            f"got {config.nfe}, {config.num}, {config.exact}."
        )
    out = Path(config.out)
    settings = {name: config[name] for name in ("data", "num", "exact", "checkpoint", "clamp")}
    claim_folder(out, "settings.json", settings, "results")
    rows = read_rows(out)
    done = {(row.process_digest, row.cell) for row in rows}
    for model, shape in models(config):
        wanted = [
            cell
            for nfe in config.nfe
            for cell in cells(model.process, nfe)
            if (model.process.spec.digest, cell.digest) not in done
            and (not config.only or any(part in cell.label for part in config.only))
        ]
        if not wanted:
            continue
        reference = make_reference(model, shape, config, out)
        with tqdm(wanted, desc=repr(model.process), unit="cell", disable=None) as bar:
            for cell in bar:
                bar.set_postfix_str(f"{cell.label}, NFE {cell.nfe}")
                rows.append(measure(cell, reference, config.num, device=config.device))
                write_rows(rows, out)
        draw_plot(rows, out / "frechet.png")
    with atomic_file(out / "table.md") as file:
        file.write(markdown(rows).encode())
    print(summary(rows))
    print(f"{len(rows)} cells in {out / 'table.md'}, rows.csv and rows.json. Look at {out / 'frechet.png'}")
    return 0


def known_data(name: str) -> GaussianMixture:
    """The digits as a mixture, or eight small Gaussians on a circle."""
    if name == "digits":
        return Empirical(Digits("all").images.double(), COMPONENT_STD)
    angles = torch.arange(8, dtype=torch.float64) * torch.pi / 4
    return GaussianMixture(torch.stack([angles.cos(), angles.sin()], 1), COMPONENT_STD)


def models(config) -> Iterator[tuple[Model, tuple[int, ...]]]:
    """Exact models of each process, or the one trained model."""
    if config.checkpoint is not None:
        model = load(config.checkpoint, device=config.device)
        shape = model.known_shape()
        if shape != Digits("heldout").image_shape:
            raise ValueError(
                f"--checkpoint is held against the digits, (1, 8, 8), and {config.checkpoint} makes images of {shape}. "
                "For other data: psld evaluate RUN --against DATA --sweep."
            )
        yield Clamped(model) if config.clamp else model, shape
        return
    known = known_data(config.data)
    for name in config.processes:
        yield known.model(PROCESSES[name]), known.data_shape


def make_reference(model: Model, shape: tuple[int, ...], config, out: Path) -> Reference:
    """Images to compare with, the floors between two sets of them, and the exact solutions, kept in OUT."""
    if config.checkpoint is not None:
        images = Digits("train").images.double()
        pairs = [(Digits("heldout").images.double(), images)]
    else:
        known, generator = known_data(config.data), torch.Generator().manual_seed(0)
        draws = [known.sample(config.num, generator) for _ in range(10)]
        images, pairs = draws[0], list(zip(draws[::2], draws[1::2], strict=True))
    tolerance = 1e-7 if config.checkpoint is None else 1e-4
    judges = [_judge(model, shape, range(config.exact), tolerance, projected, out) for projected in (False, True)]
    return Reference(
        images,
        sum(frechet_distance(a.flatten(1), b.flatten(1)) for a, b in pairs) / len(pairs),
        sum(energy_distance(a, b) for a, b in pairs) / len(pairs),
        *judges,
    )


def _judge(model: Model, shape: tuple[int, ...], seeds: range, tolerance: float, projected: bool, out: Path) -> Judge:
    """A judge whose solutions are kept in OUT."""
    path = out / "exact" / f"{model.process.spec.digest[:16]}{'-projected' if projected else ''}.npy"
    known = torch.from_numpy(np.load(path, allow_pickle=False)) if path.exists() else None
    judge = Judge(model, shape, seeds, tolerance=tolerance, projected=projected, images=known)
    if known is None:
        with atomic_file(path) as file:
            np.save(file, judge.images.numpy())
    return judge


def summary(rows) -> str:
    """The best sampler of each process and budget, in Fréchet distance, beside the paper's best."""
    lines = [f"{'process':<30}{'NFE':>4}  {'Fréchet':>8}{'paper':>9}{'floor':>7}  best sampler"]
    for process in dict.fromkeys(row.process for row in rows):
        for budget in sorted({row.budget for row in rows}):
            own = [row for row in rows if (row.process, row.budget) == (process, budget) and row.nfe <= budget]
            if not own:
                continue
            best = min(own, key=lambda row: row.frechet)
            paper = min((row.frechet for row in own if row.family == "paper"), default=float("nan"))
            figures = f"{best.frechet:>8.3f}{paper:>9.3f}{best.frechet_floor:>7.3f}"
            lines.append(f"{process:<30}{budget:>4}  {figures}  {best.sampler}")
    return "\n".join(lines)
