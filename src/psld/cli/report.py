"""`psld report`: a trained run on one page."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Literal

from psld.cli.arguments import CommandParser, add_diverged_argument, built, command_parser
from psld.cli.kinds import Count, Evaluations, Seed, Several, Text
from psld.files import locked
from psld.model import Clamped
from psld.pretrained.published import with_place_for_results
from psld.report import ReportSettings, TrainedRun, require_place, run_folder, write_report
from psld.runs import load, load_data
from psld.samplers import Sampler
from psld.samplers.catalogue import CATALOGUE
from psld.samplers.defaults import default_sampler
from psld.samplers.grids import NAMES
from psld.training import latest_checkpoint

__all__ = ["run"]

DESCRIPTION = """Write one HTML file about a trained run: loss, samples beside data, nearest training images, denoising
step by step, paths through phase space, speed against quality, recipe, configuration, environment.

The file needs no network and no other file. The results of a sweep in the run folder (rows.json of psld bench,
sweep.json of psld evaluate) are plotted; without them the speed-quality plot is measured on a small budget, where the
data are scikit-learn's digits. On one CPU core a report on digits takes about a minute."""

EPILOG = """example: psld report runs/demo, and open runs/demo/report.html;
without measuring, elsewhere: psld report runs/demo --quick --out report.html --overwrite"""


def parser() -> CommandParser:
    """Options of `psld report`."""
    options = command_parser("report", DESCRIPTION, EPILOG)
    options.add_argument("run", type=Text, help="run, checkpoint or weights folder, or a published name")
    options.add_argument("--out", type=Text | None, default=None, help="file to write; RUN/report.html if not given")
    options.add_argument("--overwrite", action="store_true", help="replace the file if it is there")
    options.add_argument("--quick", action="store_true", help="do not measure speed against quality")
    options.add_subclass_arguments(
        Sampler,
        "sampler",
        required=False,
        help=f"of the samples and the film: {', '.join(entry.name for entry in CATALOGUE)}, or one of your own "
        "(default: as for psld sample)",
    )
    options.add_argument("--grid", type=Text, default="best", help=f"{', '.join(NAMES)}, or a .json file")
    options.add_argument("--steps", type=Evaluations, default=20, help="network evaluations a sample")
    options.add_argument("--num", type=Count, default=64, help="samples in the grid")
    options.add_argument("--seed", type=Seed, default=0, help="seed of the first sample")
    options.add_argument("--sweep", type=Text | None, default=None, help="rows of a sweep, a .json file")
    options.add_argument(
        "--budgets", type=list[Evaluations], default=[5, 10, 20], help="network evaluations of the speed-quality plot"
    )
    options.add_argument("--quality_num", type=Several, default=200, help="samples a point of it, where it is measured")
    options.add_argument("--searched", type=Count, default=10_000, help="training images searched for nearest ones")
    options.add_argument("--weights", type=Literal["ema", "online"], default="ema", help="averaged weights or the last")
    options.add_argument(
        "--clamp", type=bool, default=True, help="hold x̂₀ within [−1, 1]; false for the paper's convention"
    )
    add_diverged_argument(options)
    options.add_argument("--trust", action="store_true", help="run whatever code the folder names, not only psld's")
    options.add_argument("--device", type=Text, default="cpu", help="where samples are drawn: cpu, cuda, cuda:1 …")
    return options


def run(arguments: list[str]) -> int:
    """Draw, measure and write; returns 0."""
    config = parser().parse_args(arguments)
    folder = with_place_for_results(config.run, config.out)
    checkpoint = latest_checkpoint(folder)
    out = Path(config.out) if config.out else run_folder(checkpoint) / "report.html"
    require_place(out, config.overwrite)
    model = load(folder, config.weights, config.device, trust=config.trust)
    shape = model.known_shape()
    if config.clamp:
        model = Clamped(model)
    settings = ReportSettings(
        sampler=built(config, "sampler") or default_sampler(model, config.steps, config.grid),
        budgets=tuple(config.budgets),
        **{
            name: config[name]
            for name in ("grid", "steps", "num", "seed", "searched", "quality_num", "quick", "allow_diverged")
        },
        sweep=None if config.sweep is None else Path(config.sweep),
    )
    data, no_data = None, ""
    try:
        data = load_data(checkpoint, config.trust)
    except (OSError, ValueError, ImportError) as error:
        no_data = str(error)
        print(f"psld report: without data: {no_data}", file=sys.stderr)
    trained = TrainedRun(Path(config.run), checkpoint, config.weights, model, shape, data, no_data, config.device)
    with locked(out, "a report"):
        write_report(trained, out, settings, shlex.join(["psld", "report", *arguments]), config.overwrite)
    print(f"Look at {out} ({out.stat().st_size / 1e6:.1f} MB, one file).")
    return 0
