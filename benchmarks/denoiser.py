"""What a network should predict: ε, x̂₀, x̂₀ preconditioned for k variables, or D(y; σ), on digits.

    python benchmarks/denoiser.py --seconds 165 --seeds 3 --threads 2 --out runs/denoiser

The same U-Net (but for its channels), optimizer, training time and process, PSLD Γ = 0.01; samples with averaged
weights. Fréchet distance in the features of the digit classifier of `psld demo`, to the training images. Training
pauses at equal parts and is measured there, so that the steps to a given distance are known. On a machine with other
work give --steps in place of --seconds: a step costs all forms about the same. Every finished measurement is in
OUT/cells.json: the same command goes on after an interruption, and more seeds or forms are added.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import torch
from torch import nn

from psld import PSLD, EulerMaruyama, Exponential, Sampler, ScoreModel
from psld.comparison import Cell, DigitsReference, measure
from psld.data import Digits
from psld.files import write_json
from psld.kernels import Kernel
from psld.losses import HSM, Denoising, Objective
from psld.model import Predicts
from psld.networks import Preconditioned, PreconditionedState, UNet
from psld.training import TrainingSettings, latest_checkpoint, load_weights, train

PROCESS = PSLD(gamma=0.01)
SIGMA_DATA = 0.85  # root mean square of the digits in [−1, 1]
P_MEAN, P_STD = -1.2 + math.log(SIGMA_DATA / 0.5), 1.2
NFE = (5, 10, 20)
SHAPE = (1, 8, 8)


@dataclass(frozen=True)
class Form:
    """What the network predicts, how it is made and trained."""

    title: str
    predicts: Predicts
    network: Callable[[], nn.Module]
    loss: Objective


def unet(inputs: int, outputs: int) -> UNet:
    return UNet(inputs, outputs, 8, width=32, multipliers=(1, 1), blocks=1, attention_resolutions=(4,))


class WhitenedInOrder(PreconditionedState):
    """For comparison: x scaled, then what x does not tell of m. White too, but y is left for the network to find."""

    def coefficients(self, t):
        c = super().coefficients(t)
        kernel = self.process.marginal(torch.as_tensor(t, dtype=torch.float64, device="cpu").clamp(max=self.process.T))
        signal = kernel.mean_map[..., :1]
        return c._replace(
            inputs=Kernel(kernel.mean_map, kernel.covariance + SIGMA_DATA**2 * signal @ signal.mT).whitener
        )


EDM_LOSS = Denoising(SIGMA_DATA, P_MEAN, P_STD)
FORMS = {
    "eps": Form("ε (paper)", "eps", lambda: unet(2, 2), HSM()),
    "x0": Form("x̂₀", "x0", lambda: unet(2, 1), HSM()),
    "x0-preconditioned": Form(
        "x̂₀, preconditioned k×k, EDM's loss",
        "x0",
        lambda: PreconditionedState(unet(2, 1), PROCESS, SIGMA_DATA),
        EDM_LOSS,
    ),
    "x0-in-order": Form(
        "x̂₀, preconditioned, white in order",
        "x0",
        lambda: WhitenedInOrder(unet(2, 1), PROCESS, SIGMA_DATA),
        EDM_LOSS,
    ),
    "denoiser": Form("D(y; σ), EDM", "denoiser", lambda: Preconditioned(unet(1, 1), SIGMA_DATA), EDM_LOSS),
}

DEFAULT = ["eps", "x0", "x0-preconditioned", "denoiser"]


def samplings(full: bool) -> list[Cell]:
    """What is measured: at the end of training all, on the way one."""

    def cell(sampler: Sampler, grid: str, nfe: int, label: str) -> Cell:
        return Cell.of(sampler, grid, PROCESS, nfe, label=label)

    if not full:
        return [cell(Exponential(order=2), "optimised", 20, "multistep 20")]
    samplers = {"multistep": Exponential(order=2), "stochastic": Exponential(order=2, eta=1.0)}
    every = [cell(sampler, "optimised", nfe, f"{name} {nfe}") for name, sampler in samplers.items() for nfe in NFE]
    return [*every, cell(EulerMaruyama(), "paper-quadratic", 50, "Euler–Maruyama 50")]


def measured(model: ScoreModel, reference: DigitsReference, samples: int, device: str, full: bool) -> dict[str, dict]:
    """The result of each sampler, by its name."""
    found = [measure(cell, model, reference, range(samples), device=device) for cell in samplings(full)]
    return {result.sampler: asdict(result) for result in found}


def train_and_measure(
    name: str, seed: int, arguments: argparse.Namespace, reference: DigitsReference, cells: list[dict]
) -> None:
    """The stages of one run that are not in `cells` yet."""
    form, run = FORMS[name], arguments.out / "runs" / f"{name}-{seed}"
    torch.manual_seed(seed)
    network = form.network()
    done = {cell["stage"] for cell in cells if (cell["form"], cell["seed"]) == (name, seed)}
    for stage in range(1, arguments.stages + 1):
        if stage in done:
            continue
        settings = TrainingSettings(
            steps=10**7 if arguments.steps is None else round(arguments.steps * stage / arguments.stages),
            max_seconds=arguments.seconds * stage / arguments.stages if arguments.steps is None else None,
            batch_size=64,
            learning_rate=2e-3,
            warmup_steps=100,
            ema_decay=0.999,
            log_every=20,
            checkpoint_every=2000,
            accelerator=arguments.device,
            tensorboard=False,
            progress=False,
        )
        resume = (run / "checkpoints").is_dir() and any((run / "checkpoints").glob("step-*"))
        network.train().requires_grad_(True)
        train(
            ScoreModel(network, PROCESS, form.predicts, data_shape=SHAPE), Digits("train"), form.loss, settings, run,
            seed=seed, resume=resume, overwrite=not resume and run.exists(),
        )  # fmt: skip
        averaged = form.network()
        load_weights(run, averaged, "ema")
        averaged.to(arguments.device).eval().requires_grad_(False)
        model = ScoreModel(averaged, PROCESS, form.predicts, data_shape=SHAPE)
        cell = {
            "form": name,
            "seed": seed,
            "stage": stage,
            "steps": int(latest_checkpoint(run).name.removeprefix("step-")),
            "results": measured(model, reference, arguments.samples, arguments.device, stage == arguments.stages),
        }
        cells.append(cell)
        keep_cells(arguments.out, settings_of(arguments), cells)
        reached = cell["results"]["multistep 20"]["frechet"]
        print(f"{name}, seed {seed}, stage {stage}: {cell['steps']} steps, Fréchet {reached:.2f} at NFE 20", flush=True)


def settings_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What cells must share to stand in one table."""
    return {name: getattr(arguments, name) for name in ("seconds", "steps", "stages", "samples", "threads", "device")}


def known_cells(out: Path, settings: dict[str, Any]) -> list[dict]:
    """What an earlier run of the command left in OUT/cells.json; other settings are refused."""
    path = out / "cells.json"
    if not path.exists():
        return []
    known = json.loads(path.read_text(encoding="utf-8"))
    if known["settings"] != settings:
        raise SystemExit(f"{path} has cells of other settings, {known['settings']}: give another --out.")
    return known["cells"]


def keep_cells(out: Path, settings: dict[str, Any], cells: list[dict]) -> None:
    """Writes OUT/cells.json, whole or not at all."""
    write_json({"settings": settings, "cells": cells}, out / "cells.json")


def steps_to(target: float, stages: list[dict]) -> float | None:
    """Training steps at which a run's distance at NFE 20 first came down to the target, linear between stages."""
    points = [(cell["steps"], cell["results"]["multistep 20"]["frechet"]) for cell in stages]
    before = None
    for step, distance in points:
        if distance <= target:
            if before is None:
                return step
            return before[0] + (step - before[0]) * (before[1] - target) / (before[1] - distance)
        before = (step, distance)
    return None


def figure(values: list[float], digits: int = 2) -> str:
    if not values:
        return "–"
    spread = f" ± {stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}f}{spread}"


def table(cells: list[dict], stages: int, reference: DigitsReference) -> str:
    """Means over seeds ± their standard deviation, in Markdown."""
    final = [cell for cell in cells if cell["stage"] == stages]
    columns = [cell.label for cell in samplings(full=True)]
    of_eps = [c["results"]["multistep 20"]["frechet"] for c in final if c["form"] == "eps"]
    target = mean(of_eps) if of_eps else None
    assert reference.floor is not None  # it has one
    equal = reference.equal_sizes(reference.floor.moments.count)
    head = [f"Fréchet, {name}" for name in columns]
    head = ["form", "parameters", "seeds", "steps", *head, "confident, NFE 20", f"steps to ε's {target or 0:.2f}"]
    lines = [
        f"Floor ({equal.images} held-out images): {equal.floor:.2f}, confident share {reference.floor.confident:.1%}; "
        f"the classifier is right on {reference.accuracy:.1%} of them. {torch.get_num_threads()} threads, "
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}.",
        "",
        f"| {' | '.join(head)} |",
        "| --- " * len(head) + "|",
    ]
    for name in dict.fromkeys(cell["form"] for cell in final):
        own = [cell for cell in final if cell["form"] == name]
        parameters = sum(p.numel() for p in FORMS[name].network().parameters())
        distances = [figure([cell["results"][column]["frechet"] for cell in own]) for column in columns]
        confident = figure([100 * cell["results"]["multistep 20"]["confident"] for cell in own], 1)
        steps = figure([float(cell["steps"]) for cell in own], 0)
        reached = []
        if target is not None:
            for seed in [cell["seed"] for cell in own]:
                run = sorted((c for c in cells if (c["form"], c["seed"]) == (name, seed)), key=lambda c: c["stage"])
                reached.append(steps_to(target, run))
        there = [step for step in reached if step is not None]
        reach = figure(there, 0) + (f" ({len(there)} of {len(reached)})" if len(there) < len(reached) else "")
        row = [FORMS[name].title, f"{parameters:,}", str(len(own)), steps, *distances, f"{confident} %", reach]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(lines)


def main() -> None:
    """Train and measure what is not there yet, then print the table."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=165.0, help="training time of a run")
    options.add_argument("--steps", type=int, help="training steps of a run, in place of --seconds")
    options.add_argument("--seeds", type=int, default=3, help="runs of each form")
    options.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of torch")
    options.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where networks run")
    options.add_argument("--stages", type=int, default=6, help="measurements on the way, equally spaced in time")
    options.add_argument("--samples", type=int, default=2000, help="images a measurement")
    options.add_argument("--forms", nargs="+", choices=list(FORMS), default=DEFAULT, help="which")
    options.add_argument("--out", type=Path, default=Path("runs/denoiser"), help="folder of runs and cells.json")
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    cells = known_cells(arguments.out, settings_of(arguments))
    reference = DigitsReference()
    for seed in range(arguments.seeds):  # all forms of a seed, then the next: an early stop still compares
        for name in arguments.forms:
            train_and_measure(name, seed, arguments, reference, cells)
    print(table(cells, arguments.stages, reference))


if __name__ == "__main__":
    main()
