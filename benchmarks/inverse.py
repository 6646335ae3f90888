"""Inverse problems: which methods draw from the conditional law, and inpainting of digits.

    python benchmarks/inverse.py runs/inverse

Each cell is a JSON file in that folder, so the command goes on where it was stopped; at the end it prints the tables.

consistency: digits mixture with exact scores, whose law given a measurement is known in closed form. Energy distance
    between draws of a method and draws of that law, over its floor: that between two sets of draws of the law.
digits: the centre of held-out digits by the published networks. Fréchet distance of the completed images in the
    features of the digit classifier, error of the filled-in pixels, spread of several draws of one image.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from cells import cell

from psld.cli.configuration import load_model
from psld.data import Digits
from psld.evaluation import energy_distance, frechet_distance
from psld.evaluation.bundled import bundled_classifier
from psld.exact import GaussianMixture
from psld.grids import log_snr
from psld.guidance.masks import named_mask
from psld.guidance.operators import LinearOperator, Mask, SuperResolution
from psld.guidance.posterior import DPS, MMPS, PiGDM
from psld.guidance.replacement import Replacement
from psld.predictions import Clamped, ScoreModel
from psld.processes import CLD, PSLD, VPSDE
from psld.samplers import Ancestral, Exponential, Sampler

SHAPE = (1, 8, 8)
KNOWN = named_mask("center", SHAPE)
STD, NOISE = 0.2, 0.1  # of a component, of a measurement
DATA = GaussianMixture(Digits("train").images[:100].double(), STD)
DRAWS, OBSERVATIONS, NFE = 400, 4, 100
PROCESSES = {"VP": VPSDE(), "CLD": CLD(), "PSLD": PSLD()}
TASKS: dict[str, LinearOperator] = {"centre unknown": Mask(KNOWN), "4 × 4 averages": SuperResolution(2)}
Method = Callable[[ScoreModel, LinearOperator, torch.Tensor], tuple[Sampler, ScoreModel]]


def replaced(resamplings: int) -> Method:
    def build(model, operator, y):
        return Replacement(Ancestral(), operator.adjoint(y), KNOWN, resamplings), model

    return build


def guided(kind: Callable[..., ScoreModel], sampler: Sampler, **options) -> Method:
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
        x = sampler.sample(conditioned, SHAPE, grid, range(DRAWS)).x
        distances.append(energy_distance(x, target) if x.isfinite().all() else float("inf"))
        floors.append(energy_distance(again, target))
    return {"distance": sum(distances) / OBSERVATIONS, "floor": sum(floors) / OBSERVATIONS}


FILLING: dict[str, Callable[[ScoreModel, torch.Tensor], tuple[Sampler, ScoreModel]]] = {
    "replacement": lambda model, x: (Replacement(Ancestral(), x, KNOWN), Clamped(model)),
    "replacement, 5 resamplings": lambda model, x: (Replacement(Ancestral(), x, KNOWN, 5), Clamped(model)),
    "ΠGDM": lambda model, x: (Ancestral(), Clamped(PiGDM(model, Mask(KNOWN), x[:, KNOWN], 0.05))),
    "MMPS": lambda model, x: (Ancestral(), Clamped(MMPS(model, Mask(KNOWN), x[:, KNOWN], 0.05, 3))),
}
COPIES = 8


def digits(name: str, method: str, nfe: int, count: int) -> dict:
    """Fréchet distance to the training images, error and spread of filled-in pixels, known pixels unchanged."""
    model, _ = load_model(name)
    train, x0 = Digits("train"), Digits("heldout").images[:count].double()
    repeated = x0.repeat_interleave(COPIES, 0)
    resamplings = 5 if "5 resamplings" in method else 1
    grid = log_snr(model.process, (nfe - 1) // resamplings + 1)
    sampler, conditioned = FILLING[method](model, repeated)
    x = sampler.sample(conditioned, SHAPE, grid, range(len(repeated))).x.clamp(-1, 1)
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
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=["consistency", "digits"], help="one of the two; both unless given")
    parser.add_argument("--nfe", type=int, nargs="+", default=[20, 250])
    parser.add_argument("--count", type=int, default=360, help="held-out digits")
    options = parser.parse_args()
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
        print("\n| network | method | NFE | Fréchet (floor) | error | spread of 8 | known pixels, largest change |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for nfe in options.nfe:
            for network in ("vp-digits", "cld-digits", "psld-digits"):
                for method in FILLING:
                    name = f"digits-{network}-{method}-{nfe}-{options.count}".replace(" ", "_")
                    found = cell(options.out, name, lambda d=network, m=method, n=nfe: digits(d, m, n, options.count))
                    figures = f"{found['frechet']:.2f} ({found['floor']:.2f}) | {found['error']:.3f}"
                    print(
                        f"| {network} | {method} | {found['nfe']} | {figures} | {found['spread']:.3f} | "
                        f"{found['known']:.2g} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
