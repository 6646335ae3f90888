"""`psld likelihood`: bits per dimension of images under a trained run, with a standard error."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from psld.cli.configuration import instances
from psld.data import Digits, ImageData
from psld.files import write_json
from psld.likelihood import ExactTrace, Hutchinson, ProbabilityFlow, Start, bits_per_dimension, bound
from psld.likelihood.dequantisation import Dequantiser, LogitNormal, Uniform, fit, on_levels
from psld.model import ScoreModel
from psld.pretrained.published import with_place_for_results
from psld.processes import LinearProcess
from psld.runs import load
from psld.training import latest_checkpoint

__all__ = ["run"]

DESCRIPTION = """Bits per dimension of images under a trained run, by the probability-flow ODE: their mean and its
standard error over the images, printed, and written with the value of every image to a JSON file.

What is given is an upper bound (a lower bound on log p), over --draws draws of dequantisation, auxiliary variables and
perturbation. An image depends on its own seed (--seed, --seed + 1, …) and not on the batch size."""

EPILOG = """example: psld likelihood runs/digits --data psld.data.Digits --data.split heldout --num 100;
a learned dequantiser, trained on other images: psld likelihood runs/digits --data psld.data.Digits --data.split heldout
--dequantise variational --fit_on psld.data.Digits"""


def parser() -> ArgumentParser:
    """Options of `psld likelihood`."""
    options = ArgumentParser(prog="psld likelihood", description=DESCRIPTION)
    options.epilog = EPILOG
    options.add_argument("run", type=str, help="run, checkpoint or weights folder, or a published name")
    options.add_subclass_arguments(ImageData, "data", help="images to evaluate, e.g. psld.data.Digits")
    options.add_argument("--out", type=str, default=None, help="JSON file; likelihood.json in the run when not given")
    options.add_argument("--num", type=int, default=100, help="how many images, the first of the data")
    options.add_argument("--draws", type=int, default=1, help="draws an image; more than one give a tighter bound too")
    options.add_argument("--probes", type=int, default=1, help="probes an image for the trace; 0 for the exact trace")
    options.add_argument("--probe_law", type=Literal["rademacher", "gaussian"], default="rademacher", help="of them")
    options.add_argument("--rtol", type=float, default=1e-4, help="tolerance of the ODE, absolute and relative")
    options.add_argument("--t_min", type=float, default=1e-5, help="time at which the ODE starts")
    options.add_argument(
        "--start", type=Start, default="perturbed", help="perturbed to t_min, or the data taken for a state there"
    )
    options.add_argument(
        "--dequantise", type=Literal["uniform", "variational", "none"], default="uniform", help="noise within a level"
    )
    options.add_argument("--levels", type=int, default=None, help="values a pixel can have; 256, for Digits 17")
    options.add_subclass_arguments(ImageData, "fit_on", required=False, help="images for the variational dequantiser")
    options.add_argument("--fit_steps", type=int, default=500, help="training steps of the variational dequantiser")
    options.add_argument("--seed", type=int, default=0, help="seed of the first image")
    options.add_argument("--batch_size", type=int, default=64, help="images at a time")
    options.add_argument("--weights", type=Literal["ema", "online"], default="ema", help="averaged weights or the last")
    options.add_subclass_arguments(
        LinearProcess,
        "process",
        required=False,
        help="another process, for a run that predicts D(y; σ)",
    )
    options.add_argument("--device", type=str, default="cpu", help="cpu, cuda …")
    return options


def run(arguments: list[str]) -> int:
    """Evaluate, print and write; returns 0."""
    from tqdm import tqdm

    options = parser()
    config = options.parse_args(arguments)
    for name, least in (("num", 1), ("draws", 1), ("probes", 0), ("batch_size", 1), ("fit_steps", 1)):
        if config[name] < least:
            raise ValueError(f"--{name} must be at least {least}: got {config[name]}.")
    config.run = str(with_place_for_results(config.run, config.out))
    out = Path(config.out) if config.out else Path(config.run) / "likelihood.json"
    if out.exists():
        raise FileExistsError(f"{out} is there already: give another --out, or remove it.")
    parts = instances(options, config)
    model = load(config.run, config.weights, config.device, parts.get("process"))
    shape = model.known_shape()
    images = first_images(parts.data, config.num, shape)
    levels = config.levels or (17 if isinstance(parts.data, Digits) else 256)
    if config.dequantise != "none":
        require_levels(images, levels)
    if not 0.0 < config.t_min < model.process.T:
        raise ValueError(f"--t_min must lie between 0 and {model.process.T:g}: got {config.t_min}.")
    dequantiser = make_dequantiser(config, parts.get("fit_on"), model, shape, levels)
    trace = Hutchinson(config.probes, config.probe_law) if config.probes else ExactTrace()
    flow = ProbabilityFlow(model, trace, config.rtol, config.rtol)
    bits: dict[str, list[Tensor]] = {"bound": [], "importance": []}
    evaluations: list[Tensor] = []
    with tqdm(total=len(images), unit="img", disable=None, desc="likelihood") as bar:
        for first in range(0, len(images), config.batch_size):
            x = images[first : first + config.batch_size].to(config.device)
            seeds = range(config.seed + first, config.seed + first + len(x))
            found = bound(flow, x, config.t_min, seeds, config.draws, dequantiser, config.start)
            bits["bound"].append(bits_per_dimension(found.evidence, math.prod(shape)).cpu())
            bits["importance"].append(bits_per_dimension(found.importance, math.prod(shape)).cpu())
            evaluations.append(found.nfe)
            bar.update(len(x))
    result = {
        "bits_per_dimension": summary(torch.cat(bits["bound"])),
        "importance_weighted": summary(torch.cat(bits["importance"])) if config.draws > 1 else None,
        "nfe": float(torch.cat(evaluations).double().mean()) / config.draws,
        "settings": settings(config, model, levels),
        "bits_of_each_image": torch.cat(bits["bound"]).tolist(),
    }
    write_json(result, out)
    print(report(result), f"In {out}.", sep="\n")
    return 0


def first_images(data: ImageData, num: int, shape: tuple[int, ...]) -> Tensor:
    """The images to evaluate. Raises ValueError for another shape, or more than there are."""
    if tuple(data.image_shape) != shape:
        raise ValueError(f"the run makes images of shape {shape}, the data have {tuple(data.image_shape)}.")
    if num > len(data):
        raise ValueError(f"--num {num} is more than the {len(data)} images there are.")
    return data.batch(range(num))


def require_levels(images: Tensor, levels: int) -> None:
    """Raises ValueError where a pixel is between levels: then bits a dimension would mean nothing."""
    if not on_levels(images, levels):
        raise ValueError(
            f"the images are not on {levels} levels over [−1, 1], which dequantisation needs: give --levels, or "
            "--dequantise none for the density of the values as they are."
        )


def make_dequantiser(
    config, fit_on: ImageData | None, model: ScoreModel, shape: tuple[int, ...], levels: int
) -> Dequantiser | None:
    """As --dequantise says; a variational one is trained first, on other images than those that are evaluated."""
    from tqdm import tqdm

    if config.dequantise != "variational":
        if fit_on is not None:
            raise ValueError(f"--fit_on is for --dequantise variational: got {config.dequantise}.")
        return Uniform(levels) if config.dequantise == "uniform" else None
    if fit_on is None:
        raise ValueError("--dequantise variational is trained first: give --fit_on, such as the training split.")
    images = first_images(fit_on, len(fit_on), shape)
    require_levels(images, levels)
    torch.manual_seed(config.seed)
    dequantiser = LogitNormal(shape[0], levels).to(config.device)
    with tqdm(total=config.fit_steps, unit="step", disable=None, desc="dequantiser") as bar:
        return fit(
            dequantiser, model, images, config.t_min, config.fit_steps, seed=config.seed, watch=lambda _: bar.update()
        )


def summary(bits: Tensor) -> dict[str, float | None]:
    """Mean and standard error over images; no error of a single one."""
    error = float(bits.std()) / math.sqrt(len(bits)) if len(bits) > 1 else None
    return {"mean": float(bits.mean()), "standard_error": error}


def settings(config, model: ScoreModel, levels: int) -> dict[str, Any]:
    """What the numbers depend on."""
    names = ("num", "seed", "draws", "probes", "probe_law", "rtol", "t_min", "start", "dequantise", "weights")
    data = {name: config[name].as_dict() for name in ("data", "fit_on") if config.get(name)}
    fitted = {"fit_steps": config.fit_steps} if config.dequantise == "variational" else {}
    return {
        "checkpoint": str(latest_checkpoint(config.run)),
        "process": repr(model.process),
        "sigma_min": float(model.process.noise_scale(config.t_min)),
        "levels": None if config.dequantise == "none" else levels,
        **data,
        **{name: config[name] for name in names},
        **fitted,
    }


def report(result: dict[str, Any]) -> str:
    """The numbers, each with how it was measured."""

    def number(part: dict[str, float | None]) -> str:
        error = part["standard_error"]
        return f"{part['mean']:.4f}" + ("" if error is None else f" ± {error:.4f}")

    chosen = result["settings"]
    what = (
        "of the density, pixels taken as continuous"
        if chosen["dequantise"] == "none"
        else f"upper bound, {chosen['dequantise']} dequantisation of {chosen['levels']} levels"
    )
    trace = f"{chosen['probes']} {chosen['probe_law']} probes" if chosen["probes"] else "exact trace"
    lines = [
        f"{number(result['bits_per_dimension'])} bits/dim ({what}; mean and standard error over {chosen['num']} images)"
    ]
    if result["importance_weighted"]:
        lines.append(f"{number(result['importance_weighted'])} bits/dim (importance-weighted, {chosen['draws']} draws)")
    lines.append(
        f"{chosen['process']}, {chosen['start']} start at t = {chosen['t_min']:g}, {trace}, rtol {chosen['rtol']:g}, "
        f"{result['nfe']:.4g} network evaluations a draw."
    )
    return "\n".join(lines)
