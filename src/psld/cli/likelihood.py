"""`psld likelihood`: bits per dimension of images under a trained run, with a standard error."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor

from psld.cli.arguments import CommandParser, add_data_argument, add_run_argument, built, command_parser, open_data
from psld.cli.kinds import Count, Number, Positive, Seed, Several, Text
from psld.data import Digits, ImageData
from psld.files import file_sha256, locked, write_json
from psld.likelihood import Start
from psld.likelihood.images import LikelihoodSettings, chosen_dequantiser, image_bits, summary
from psld.pretrained.published import with_place_for_results
from psld.processes import LinearProcess
from psld.runs import load
from psld.training import latest_checkpoint
from psld.training.checkpoint import weight_files

__all__ = ["run"]

DESCRIPTION = """Bits per dimension of images under a trained run, by the probability-flow ODE: their mean and its
standard error over the images, printed, and written with the value of every image to a JSON file.

What is given is an upper bound (a lower bound on log p), over --draws draws of dequantisation, auxiliary variables and
perturbation. An image depends on its own seed (--seed, --seed + 1, …) and, up to the rounding of the network,
not on the batch size."""

EPILOG = """example: psld likelihood runs/digits --data Digits --data.split heldout --num 100;
a learned dequantiser, trained on other images: psld likelihood runs/digits --data Digits --data.split heldout
--dequantise variational --fit_on Digits"""


def parser() -> CommandParser:
    """Options of `psld likelihood`."""
    options = command_parser("likelihood", DESCRIPTION, EPILOG)
    add_run_argument(options)
    add_data_argument(options, "--data", "images to evaluate", required=True)
    options.add_argument("--out", type=Text, default=None, help="JSON file; likelihood.json in the run when not given")
    options.add_argument("--num", type=Count, default=100, help="how many images, the first of the data")
    options.add_argument(
        "--draws", type=Count, default=1, help="draws per image; more than one give a tighter bound too"
    )
    options.add_argument(
        "--probes", type=Number, default=1, help="probes per image for the trace; 0 for the exact trace"
    )
    options.add_argument(
        "--probe_law", type=Literal["rademacher", "gaussian"], default="rademacher", help="law of the probes"
    )
    options.add_argument("--rtol", type=Positive, default=1e-4, help="tolerance of the ODE, absolute and relative")
    options.add_argument("--t_min", type=Positive, default=1e-5, help="time at which the ODE starts")
    options.add_argument(
        "--start", type=Start, default="perturbed", help="perturbed to t_min, or the data taken for a state there"
    )
    options.add_argument(
        "--dequantise", type=Literal["uniform", "variational", "none"], default="uniform", help="noise within a level"
    )
    options.add_argument("--levels", type=Several, default=None, help="values a pixel can have; 256, for Digits 17")
    add_data_argument(options, "--fit_on", "images for the variational dequantiser")
    options.add_argument("--fit_steps", type=Count, default=500, help="training steps of the variational dequantiser")
    options.add_argument("--seed", type=Seed, default=0, help="seed of the first image")
    options.add_argument("--batch_size", type=Count, default=64, help="images at a time")
    options.add_argument("--weights", type=Literal["ema", "online"], default="ema", help="averaged weights or the last")
    options.add_subclass_arguments(
        LinearProcess, "process", required=False, help="another process, for a run that predicts D(y; σ)"
    )
    options.add_argument("--trust", action="store_true", help="run whatever code the folder names, not only psld's")
    options.add_argument("--device", type=Text, default="cpu", help="cpu, cuda …")
    return options


def run(arguments: list[str]) -> int:
    """Evaluate, print and write; returns 0."""
    config = parser().parse_args(arguments)
    for name in ("num", "fit_steps"):
        if config[name] < 1:
            raise ValueError(f"--{name} must be at least 1: got {config[name]}.")
    names = ("draws", "probes", "probe_law", "rtol", "t_min", "start", "seed", "batch_size")
    settings = LikelihoodSettings(**{name: config[name] for name in names})
    folder = with_place_for_results(config.run, config.out)
    out = Path(config.out) if config.out else folder / "likelihood.json"
    with locked(out, "likelihoods"):
        if out.exists():
            raise FileExistsError(f"{out} is there already: give another --out, or remove it.")
        model = load(folder, config.weights, config.device, built(config, "process"), config.trust)
        shape = model.known_shape()
        data = open_data(config.data)
        images = first_images(data, config.num, shape)
        others = None if config.fit_on is None else open_data(config.fit_on)
        fit_on = None if others is None else first_images(others, len(others), shape)
        levels = config.levels or (17 if isinstance(data, Digits) else 256)
        dequantiser = chosen_dequantiser(
            config.dequantise, levels, model, settings, images, fit_on, config.fit_steps, config.device
        )
        found = image_bits(model, images, settings, dequantiser, config.device)
        checkpoint = latest_checkpoint(folder)
        result = found.result(config.draws) | {
            "settings": {
                "checkpoint": str(checkpoint),
                "weights_sha256": file_sha256(*weight_files(checkpoint, config.weights)),
                "process": repr(model.process),
                "process_spec": model.process.spec.config(),
                "sigma_min": float(model.process.noise_scale(config.t_min)),
                "levels": None if config.dequantise == "none" else levels,
                "data": data.spec.config(),
                **({} if others is None else {"fit_on": others.spec.config(), "fit_steps": config.fit_steps}),
                **{name: config[name] for name in ("num", "dequantise", "weights", *names)},
            }
        }
        write_json(result, out)
    print(summary(result), f"In {out}.", sep="\n")
    return 0


def first_images(data: ImageData, num: int, shape: tuple[int, ...]) -> Tensor:
    """The images to evaluate. Raises ValueError for another shape, or more than there are."""
    if tuple(data.image_shape) != shape:
        raise ValueError(f"the run makes images of shape {shape}, the data have {tuple(data.image_shape)}.")
    if num > len(data):
        raise ValueError(f"--num {num} is more than the {len(data)} images there are.")
    return data.batch(range(num))
