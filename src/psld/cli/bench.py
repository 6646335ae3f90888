"""`psld bench samplers`: every sampler against every other, on exact scores or on a trained network."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

from jsonargparse import Namespace

from psld.cli.arguments import CommandParser, command_parser
from psld.cli.kinds import Evaluations, Several, Text
from psld.comparison import best_of_each, process_tables
from psld.comparison.sweeping import exact_reference, known_law, sweep
from psld.data import Digits
from psld.distributed import available_device
from psld.files import atomic_file, claim_folder, file_sha256, locked
from psld.model import Clamped, Model
from psld.plots.speed_quality import plot_speed_quality
from psld.pretrained.published import published_checkpoint
from psld.processes import CLD, PSLD, VPSDE, HigherOrderLangevin, LinearProcess
from psld.runs import load
from psld.training import latest_checkpoint
from psld.training.checkpoint import weight_files

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


def parser() -> CommandParser:
    """Options of `psld bench`."""
    options = command_parser("bench", DESCRIPTION, EPILOG)
    options.add_argument("what", choices=["samplers"], help="what is compared")
    options.add_argument("--out", type=Text, required=True, help="folder for the results")
    options.add_argument("--data", type=Literal["digits", "ring"], default="digits", help="digits, or a 2-D mixture")
    options.add_argument(
        "--nfe", type=Evaluations, nargs="+", default=[5, 10, 20], help="network evaluations per sample"
    )
    options.add_argument("--num", type=Several, default=2000, help="samples of each cell")
    options.add_argument("--exact", type=Several, default=256, help="of those compared with the exact flow")
    options.add_argument(
        "--processes", type=ProcessName, nargs="+", default=list(PROCESSES)[:4], help="processes to compare"
    )
    options.add_argument("--only", type=Text, nargs="+", default=[], help="samplers whose name holds one of these")
    options.add_argument("--checkpoint", type=Text, default=None, help="run of digits, in place of --processes")
    options.add_argument("--clamp", type=bool, default=True, help="hold x̂₀ of a trained network within [−1, 1]")
    options.add_argument("--trust", action="store_true", help="run whatever code the folder of --checkpoint names")
    options.add_argument("--device", type=Text, default="cpu", help="cpu, cuda …")
    return options


def run(arguments: list[str]) -> int:
    """Measure what is not measured yet; returns 0."""
    config = parser().parse_args(arguments)
    if min(config.nfe) < 3 or config.num < 2 or not 2 <= config.exact <= config.num:
        raise ValueError(
            "--nfe must be at least 3, --num at least 2 and --exact between 2 and --num: "
            f"got {config.nfe}, {config.num}, {config.exact}."
        )
    available_device(config.device)
    out, law = Path(config.out), None
    settings = {name: config[name] for name in ("data", "num", "exact", "clamp")}
    if config.checkpoint is None:
        law = known_law(config.data)
        models: list[Model] = [law.model(PROCESSES[name]) for name in config.processes]
    else:
        models = [_trained(config)]
        weights = weight_files(latest_checkpoint(published_checkpoint(config.checkpoint)), "ema")
        settings["weights"] = file_sha256(*weights)
    with locked(out, "results"):
        claim_folder(out, "settings.json", settings, "results")
        reference = partial(exact_reference, law=law, samples=config.num, exact=config.exact, folder=out / "exact")
        rows = sweep(models, reference, config.nfe, config.only, config.num, out, config.device)
        plot_speed_quality(rows, out / "frechet.png")
        with atomic_file(out / "table.md") as file:
            file.write(process_tables(rows).encode())
    print(best_of_each(rows))
    print(f"{len(rows)} cells in {out / 'table.md'}, rows.csv and rows.json. Look at {out / 'frechet.png'}")
    return 0


def _trained(config: Namespace) -> Model:
    model = load(config.checkpoint, device=config.device, trust=config.trust)
    shape = model.known_shape()
    if shape != Digits("heldout").image_shape:
        raise ValueError(
            f"--checkpoint is held against the digits, (1, 8, 8), and {config.checkpoint} makes images of {shape}. "
            "For other data: psld evaluate RUN --against DATA --sweep."
        )
    return Clamped(model) if config.clamp else model
