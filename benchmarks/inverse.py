"""Inverse problems: which methods draw from the conditional law, and inpainting of digits.

    python benchmarks/inverse.py runs/inverse
    python benchmarks/inverse.py runs/inverse --part digits --count 120 --nfe 20 --methods replacement pigdm

Each cell is a JSON file in that folder, so the command goes on where it was stopped, and takes from another choice of
methods and networks what is there already; it prints the tables as it goes.

consistency: digits mixture with exact scores, whose law given a measurement is known in closed form. Energy distance
    between draws of a method and draws of that law, over its floor: that between two sets of draws of the law.
digits: the centre of held-out digits by the published networks. Fréchet distance of the completed images in the
    features of the digit classifier, error of the filled-in pixels, spread of several draws of one image, and the
    processor time of the cell.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from cells import cell

from psld.data import Digits
from psld.evaluation import energy_distance, frechet_distance
from psld.evaluation.features.bundled import bundled_classifier
from psld.exact import GaussianMixture
from psld.inverse.masks import named_mask
from psld.inverse.operators import LinearOperator, Mask, SuperResolution
from psld.inverse.posterior import DPS, MMPS, PiGDM
from psld.inverse.replacement import Replacement
from psld.model import Clamped, Model
from psld.processes import CLD, PSLD, VPSDE
from psld.runs import load
from psld.samplers import Ancestral, Exponential, Sampler
from psld.samplers.grids import log_snr

SHAPE = (1, 8, 8)
KNOWN = named_mask("center", SHAPE)
STD, NOISE = 0.2, 0.1  # of a component, of a measurement
DATA = GaussianMixture(Digits("train").images[:100].double(), STD)
DRAWS, OBSERVATIONS, NFE = 400, 4, 100
PROCESSES = {"VP": VPSDE(), "CLD": CLD(), "PSLD": PSLD()}
TASKS: dict[str, LinearOperator] = {"centre unknown": Mask(KNOWN), "4 × 4 averages": SuperResolution(2)}
Method = Callable[[Model, LinearOperator, torch.Tensor], tuple[Sampler, Model]]


def replaced(resamplings: int) -> Method:
    def build(model, operator, y):
        return Replacement(Ancestral(), operator.adjoint(y), KNOWN, resamplings), model

    return build


def guided(kind: Callable[..., Model], sampler: Sampler, **options) -> Method:
    return lambda model, operator, y: (sampler, kind(model, operator, y, **options))


METHODS: dict[str, tuple[Method, float]] = {
    "unconditional": (lambda model, operator, y: (Ancestral(), model), NOISE),
    "replacement": (replaced(1), 0.0),
    "replacement, 10 resamplings": (replaced(10), 0.0),
    "DPS, Bayes' weight": (guided(DPS, Ancestral(), noise=NOISE), NOISE),
    "DPS, ζ = 1": (guided(DPS, Ancestral(), noise=NOISE, step=1.0), NOISE),
    "DPS, ζ = 10": (guided(DPS, Ancestral(), noise=NOISE, step=10.0), NOISE),
    "ΠGDM": (guided(PiGDM, Ancestral(), noise=NOISE), NOISE),
    "MMPS": (guided(MMPS, Ancestral(), noise=NOISE, iterations=5), NOISE),
    "MMPS, probability flow": (guided(MMPS, Exponential(), noise=NOISE, iterations=5), NOISE),
}


def conditional(operator: LinearOperator, y: torch.Tensor, noise: float, n: int, seed: int) -> torch.Tensor:
    """n draws of x given y = A x + noise ξ: a component by Bayes' rule, then Matheron's rule within it."""
    source = torch.Generator().manual_seed(seed)
    variance, b = torch.tensor(STD**2, dtype=torch.float64), torch.tensor(noise**2, dtype=torch.float64)
    residual = y - operator.forward(DATA.means)
    logits = -0.5 * (residual * operator.solve(residual, variance, b)).flatten(1).sum(1)
    chosen = torch.multinomial(logits.softmax(0), n, replacement=True, generator=source)
    x = DATA.means[chosen] + STD * torch.randn(n, *SHAPE, dtype=torch.float64, generator=source)
    measured = operator.forward(x)
    measured = measured + noise * torch.randn(measured.shape, dtype=torch.float64, generator=source)
    return x + STD**2 * operator.adjoint(operator.solve(y - measured, variance, b))


def consistency(process: str, task: str, method: str) -> dict:
    """Mean energy distance over observations, with its floor."""
    operator, (build, noise) = TASKS[task], METHODS[method]
    grid = log_snr(PROCESSES[process], NFE, end=1e-3, final="none")
    model = DATA.model(PROCESSES[process])
    distances, floors = [], []
    for i in range(OBSERVATIONS):
        truth = DATA.sample(1, torch.Generator().manual_seed(1000 + i))
        y = operator.forward(truth)
        y = y + noise * torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2000 + i))
        target, again = (conditional(operator, y, noise, DRAWS, seed) for seed in (2 * i, 2 * i + 1))
        sampler, conditioned = build(model, operator, y)
        x = sampler.sample(conditioned, DRAWS, grid, shape=SHAPE).x
        distances.append(energy_distance(x, target) if x.isfinite().all() else float("inf"))
        floors.append(energy_distance(again, target))
    return {"distance": sum(distances) / OBSERVATIONS, "floor": sum(floors) / OBSERVATIONS}


class Filling(NamedTuple):
    """A way to fill in the centre: its title, how often each step is taken, and what it draws images like x with."""

    title: str
    resamplings: int
    build: Callable[[Model, torch.Tensor], tuple[Sampler, Model]]


FILLING = {
    "replacement": Filling("replacement", 1, lambda model, x: (Replacement(Ancestral(), x, KNOWN), Clamped(model))),
    "resampled": Filling(
        "replacement, 5 resamplings", 5, lambda model, x: (Replacement(Ancestral(), x, KNOWN, 5), Clamped(model))
    ),
    "pigdm": Filling("ΠGDM", 1, lambda model, x: (Ancestral(), Clamped(PiGDM(model, Mask(KNOWN), x[:, KNOWN], 0.05)))),
    "mmps": Filling("MMPS", 1, lambda model, x: (Ancestral(), Clamped(MMPS(model, Mask(KNOWN), x[:, KNOWN], 0.05, 3)))),
}
NETWORKS = ("vp-digits", "cld-digits", "psld-digits")
COPIES, TOGETHER = 8, 30  # draws of an image, images at a time


def digits(name: str, method: str, nfe: int, count: int) -> dict:
    """Fréchet distance to the training images, error and spread of filled-in pixels, known pixels unchanged."""
    model = load(name)
    train, x0 = Digits("train"), Digits("heldout").images[:count].double()
    repeated, (_, resamplings, build) = x0.repeat_interleave(COPIES, 0), FILLING[method]
    grid = log_snr(model.process, (nfe - 1) // resamplings + 1)
    tabulated, started = model.tabulate(grid.times), time.process_time()
    drawn = []
    for first in range(0, len(repeated), TOGETHER * COPIES):
        own = repeated[first : first + TOGETHER * COPIES]
        sampler, conditioned = build(tabulated, own)
        samples = sampler.sample(conditioned, len(own), grid, first, shape=SHAPE)
        drawn.append(samples.x.clamp(-1, 1))
    x, seconds = torch.cat(drawn), time.process_time() - started
    filled = torch.where(KNOWN, repeated, x)
    classifier, _ = bundled_classifier("digits")
    with torch.no_grad():
        features, reference = (classifier.features(images.float()) for images in (filled[::COPIES], train.images))
        floor = classifier.features(x0.float())
    unknown = filled[:, ~KNOWN].unflatten(0, (-1, COPIES))
    return {
        "frechet": frechet_distance(features, reference),
        "floor": frechet_distance(floor, reference),
        "error": float((unknown - x0[:, None, ~KNOWN]).square().mean().sqrt()),
        "spread": float(unknown.std(1).square().mean().sqrt()),
        "known": float((x - repeated)[:, KNOWN].abs().max()),
        "nfe": grid.steps * resamplings + 1,
        "processor_seconds": seconds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=["consistency", "digits"], help="one of the two; both unless given")
    parser.add_argument("--nfe", type=int, nargs="+", default=[20, 250], help="of digits")
    parser.add_argument("--count", type=int, default=360, help="of digits: how many held-out images, 2 … 360")
    parser.add_argument("--methods", nargs="+", choices=FILLING, default=list(FILLING), help="of digits")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=NETWORKS, help="of digits")
    options = parser.parse_args()
    if not 2 <= options.count <= 360 or min(options.nfe) < 6:
        parser.error(f"--count must be 2 … 360 and --nfe at least 6: got {options.count} and {options.nfe}")
    if options.part != "digits":
        print(f"| task | method | {' | '.join(PROCESSES)} |\n| --- | --- {'| --- ' * len(PROCESSES)}|")
        for task, operator in TASKS.items():
            for method in METHODS:
                if method.startswith("replacement") and not isinstance(operator, Mask):
                    continue
                row = []
                for process in PROCESSES:
                    name = "-".join(("consistency", process, task, method)).replace(" ", "_").replace("'", "")
                    found = cell(options.out, name, lambda p=process, t=task, m=method: consistency(p, t, m))
                    row.append(f"{found['distance']:.3g} ({found['distance'] / found['floor']:.1f})")
                print(f"| {task} | {method} | {' | '.join(row)} |", flush=True)
    if options.part != "consistency":
        titles = (
            "network",
            "method",
            "NFE",
            "Fréchet (floor)",
            "error",
            "spread of 8",
            "known pixels before they are put back, largest change",
        )
        print(f"\n| {' | '.join(titles)} | processor minutes |\n{'| --- ' * (len(titles) + 1)}|")
        for nfe in options.nfe:
            for network in options.networks:
                for method in options.methods:
                    name = f"digits-{network}-{method}-{nfe}-{options.count}".replace(" ", "_")
                    found = cell(options.out, name, lambda d=network, m=method, n=nfe: digits(d, m, n, options.count))
                    figures = f"{found['frechet']:.2f} ({found['floor']:.2f}) | {found['error']:.3f}"
                    print(
                        f"| {network} | {FILLING[method].title} | {found['nfe']} | {figures} | "
                        f"{found['spread']:.3f} | {found['known']:.2g} | {found['processor_seconds'] / 60:.1f} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
