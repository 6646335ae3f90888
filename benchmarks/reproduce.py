"""PSLD, CLD and VP on digits, networks of one form: trained, sampled, measured, and written as published checkpoints.

    python benchmarks/reproduce.py --seeds 3 --out runs/reproduce --publish

Every process trains configs/digits-preconditioned.yaml for the same number of steps. Fréchet distance in the features
of the digit classifier of `psld demo`, to the training images. Published samplers run as published, the others with x̂₀
held within [−1, 1]. OUT/cells.json keeps what is finished: the same command goes on, and more seeds or NFE are added.
--publish writes the first seed of each process into the package, with a card of its own numbers. With --published the
first seed is the checkpoint that is in the package already: not trained again, only measured.
"""

from __future__ import annotations

import argparse
import platform
import sys
from datetime import date
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
from denoiser import SHAPE, Judge, figure, keep_cells, known_cells
from publishing import publish, trained

from psld import RK45, SSCS, Clamped, EulerMaruyama, Exponential, PredictorCorrector, Projected, Sampler
from psld.runs import load

CONFIG = "digits-preconditioned.yaml"
PROCESSES = {
    "psld": ["--process", "psld.PSLD", "--process.gamma", "0.01"],
    "cld": ["--process", "psld.CLD"],
    "vp": ["--process", "psld.VPSDE", "--network.network.in_channels", "1"],
}
PUBLISHED: dict[str, tuple[Sampler, str]] = {
    "Euler–Maruyama, quadratic": (EulerMaruyama(), "paper-quadratic"),
    "SSCS, quadratic": (SSCS(), "paper-quadratic"),
}
OURS: dict[str, tuple[Sampler, str]] = {
    "multistep": (Exponential(order=2), "optimised"),
    "multistep, η = 1": (Exponential(order=2, eta=1.0), "optimised"),
    "predictor–corrector": (PredictorCorrector(predictor=2), "optimised"),
    "projected": (Projected(PredictorCorrector(predictor=2)), "optimised"),
}
TOLERANCES = (1e-2, 1e-4)
ABOUT = (
    "{} on scikit-learn's handwritten digits (1,437 training images of 8×8), averaged weights of configs/"
    f"{CONFIG}, seed 0. For tests, teaching and comparing samplers; it makes small grey digits and nothing else."
)


def trained_run(name: str, seed: int, arguments: argparse.Namespace) -> Path:
    """The run of a process and a seed, trained to its end."""
    steps = ["--training.steps", str(arguments.steps), "--training.max_seconds", "null"]
    return trained(CONFIG, arguments.out / f"{name}-{seed}", [*PROCESSES[name], "--seed", str(seed), *steps])


def measure(
    run: Path | str, name: str, seed: int, cells: list[dict], arguments: argparse.Namespace, judge: Judge
) -> None:
    """The cells of a run that are not there yet."""
    network = load(run)
    done = {(cell["sampler"], cell["budget"]) for cell in cells if (cell["process"], cell["seed"]) == (name, seed)}
    wanted: list[tuple[str, str, Sampler, str, int]] = []
    for title, (sampler, grid) in (PUBLISHED | OURS).items():
        many = arguments.many if title in PUBLISHED and seed == 0 else []
        wanted += [(title, str(nfe), sampler, grid, nfe) for nfe in (*arguments.nfe, *many)]
    wanted += [("RK45", f"{tol:g}", RK45(rtol=tol, atol=tol), "paper-uniform", 2) for tol in TOLERANCES]
    for title, budget, sampler, grid_name, nfe in wanted:
        if (title, budget) in done:
            continue
        model = Clamped(network) if title in OURS else network
        grid = sampler.grid(grid_name, model.process, nfe)
        drawn = list(sampler.batches(model, arguments.samples, grid, shape=SHAPE, batch_size=500))
        images = torch.cat([batch.x for batch in drawn]).float().clamp(-1, 1)
        calls = float(torch.cat([batch.nfe for batch in drawn]).double().mean())
        cells.append({"process": name, "seed": seed, "sampler": title, "budget": budget, "nfe": calls} | judge(images))
        keep_cells(arguments.out, settings_of(arguments), cells)
        print(f"{name}, seed {seed}, {title}, {budget}: {cells[-1]['frechet']:.2f}", flush=True)


def settings_of(arguments: argparse.Namespace) -> dict[str, int]:
    """What cells must share to stand in one table."""
    return {"steps": arguments.steps, "samples": arguments.samples}


def table(cells: list[dict], nfe: list[int]) -> str:
    """Mean Fréchet distance over seeds ± its standard deviation, in Markdown."""
    head = ["process", "sampler", *(f"NFE {n}" for n in nfe)]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for name in PROCESSES:
        for title in PUBLISHED | OURS:
            values = [
                [c["frechet"] for c in cells if (c["process"], c["sampler"], c["budget"]) == (name, title, str(n))]
                for n in nfe
            ]
            lines.append(f"| {' | '.join([name, title, *(figure(v) for v in values)])} |")
        found = [
            [c for c in cells if (c["process"], c["sampler"], c["budget"]) == (name, "RK45", f"{tol:g}")]
            for tol in TOLERANCES
        ]
        runs = [
            f"{figure([c['frechet'] for c in own])} at {sum(c['nfe'] for c in own) / len(own):.0f} (tolerance {tol:g})"
            for tol, own in zip(TOLERANCES, found, strict=True)
            if own
        ]
        lines.append(f"| {name} | RK45 | {'; '.join(runs)} |" + " |" * (len(nfe) - 1))
    return "\n".join(lines)


def machine(judge: Judge, cells: list[dict], arguments: argparse.Namespace) -> str:
    """What the numbers were measured with."""
    seeds = len({cell["seed"] for cell in cells})
    return (
        f"Fréchet distance of {arguments.samples} images to the training images, in features of a digit classifier "
        f"({judge.accuracy:.1%} right on held-out images); floor, held-out images: {judge.floor['frechet']:.2f}. "
        f"{arguments.steps} training steps, {seeds} seed(s). {platform.machine()}, torch {torch.__version__}, "
        f"{date.today()}."
    )


def card(cells: list[dict], name: str, arguments: argparse.Namespace, judge: Judge) -> list[str]:
    """How seed 0 of a process was measured, and what came out."""
    own = [cell for cell in cells if (cell["process"], cell["seed"]) == (name, 0)]
    return [
        machine(judge, own, arguments),
        "",
        "| sampler | budget | NFE | Fréchet distance | confident share |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {c['sampler']} | {c['budget']} | {c['nfe']:.0f} | {c['frechet']:.2f} | {c['confident']:.1%} |"
            for c in own
        ),
    ]


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--steps", type=int, default=2500, help="training steps of a run")
    options.add_argument("--seeds", type=int, default=3, help="runs of each process")
    options.add_argument("--samples", type=int, default=1000, help="images a cell")
    options.add_argument("--nfe", type=int, nargs="+", default=[5, 10, 20, 50], help="budgets")
    options.add_argument("--many", type=int, nargs="*", default=[], help="budgets of published samplers, first seed")
    options.add_argument("--processes", nargs="+", choices=list(PROCESSES), default=list(PROCESSES), help="which")
    options.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="folder of runs and cells.json")
    options.add_argument("--publish", action="store_true", help="write the checkpoints of seed 0 into the package")
    options.add_argument("--published", action="store_true", help="seed 0 is what the package has")
    arguments = options.parse_args()
    cells = known_cells(arguments.out, settings_of(arguments))
    judge = Judge()
    for seed in range(arguments.seeds):
        for name in arguments.processes:
            run = None if seed == 0 and arguments.published else trained_run(name, seed, arguments)
            measure(run or f"{name}-digits", name, seed, cells, arguments, judge)
            if seed == 0 and arguments.publish:
                about, lines = ABOUT.format(PROCESSES[name][1]), card(cells, name, arguments, judge)
                publish(f"{name}-digits", run, about, lines, "make reproduce")
    print(f"\n{machine(judge, cells, arguments)}\n\n{table(cells, [*arguments.nfe, *arguments.many])}")


if __name__ == "__main__":
    main()
