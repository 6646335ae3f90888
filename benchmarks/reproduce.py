"""PSLD, CLD and VP on digits, networks of one form: trained, sampled, measured, and written as published checkpoints.

    python benchmarks/reproduce.py --seeds 3 --out runs/reproduce --publish

Every process trains configs/digits-preconditioned.yaml for the same number of steps. Fréchet distance in the features
of the digit classifier of `psld demo`, to the training images. Published samplers run as published, the others with x̂₀
held within [−1, 1]. OUT/results keeps what is finished: the same command goes on, and more seeds or NFE are added.
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
from denoiser import figure
from publishing import publish, trained

from psld import RK45, SSCS, Clamped, EulerMaruyama, Exponential, PredictorCorrector, Projected, Sampler
from psld.comparison import Cell, DigitsReference, SweepResult, measure, read_results, write_results
from psld.files import claim_folder
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


def measured(
    run: Path | str, name: str, seed: int, arguments: argparse.Namespace, reference: DigitsReference
) -> list[SweepResult]:
    """The results of a run, those that are not there yet measured first."""
    network, folder = load(run), arguments.out / "results" / f"{name}-{seed}"
    claim_folder(folder, "settings.json", {"steps": arguments.steps, "samples": arguments.samples}, "results")
    rows = read_results(folder / "rows.json")
    process, many = network.process, arguments.many if seed == 0 else []
    wanted: list[tuple[Cell, bool]] = []
    for title, (sampler, grid) in (PUBLISHED | OURS).items():
        budgets = [*arguments.nfe, *(many if title in PUBLISHED else [])]
        wanted += [(Cell.of(sampler, grid, process, nfe, label=title), title in OURS) for nfe in budgets]
    for tol in TOLERANCES:
        wanted.append((Cell.of(RK45(rtol=tol, atol=tol), "paper-uniform", process, 2, label=rk45(tol)), False))
    for cell, clamped in wanted:
        if cell.key(process) in {row.key for row in rows}:
            continue
        rows.append(measure(cell, Clamped(network) if clamped else network, reference, range(arguments.samples)))
        write_results(rows, folder / "rows.json")
        print(f"{name}, seed {seed}, {cell.label}, {cell.nfe}: {rows[-1].frechet:.2f}", flush=True)
    return rows


def rk45(tolerance: float) -> str:
    """What tables call it."""
    return f"RK45, tolerance {tolerance:g}"


def table(found: dict[tuple[str, int], list[SweepResult]], nfe: list[int]) -> str:
    """Mean Fréchet distance over seeds ± its standard deviation, in Markdown."""
    head = ["process", "sampler", *(f"NFE {n}" for n in nfe)]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for name in dict.fromkeys(process for process, _ in found):
        own = [row for (process, _), rows in found.items() if process == name for row in rows]
        for title in PUBLISHED | OURS:
            values = [[row.frechet for row in own if (row.sampler, row.budget) == (title, n)] for n in nfe]
            lines.append(f"| {' | '.join([name, title, *(figure(v) for v in values)])} |")
        runs = []
        for tol in TOLERANCES:
            solved = [row for row in own if row.sampler == rk45(tol)]
            if solved:
                calls = sum(row.nfe for row in solved) / len(solved)
                runs.append(f"{figure([row.frechet for row in solved])} at {calls:.0f} (tolerance {tol:g})")
        lines.append(f"| {name} | RK45 | {'; '.join(runs)} |" + " |" * (len(nfe) - 1))
    return "\n".join(lines)


def machine(reference: DigitsReference, seeds: int, arguments: argparse.Namespace) -> str:
    """What the numbers were measured with."""
    equal = reference.equal_sizes(arguments.samples)
    return (
        f"Fréchet distance of {arguments.samples} images to the training images, in features of a digit classifier "
        f"({reference.accuracy:.1%} right on held-out images); floor, of {equal.images} held-out images: "
        f"{equal.floor:.2f}. "
        f"{arguments.steps} training steps, {seeds} seed(s). {platform.machine()}, torch {torch.__version__}, "
        f"{date.today()}."
    )


def card(rows: list[SweepResult], arguments: argparse.Namespace, reference: DigitsReference) -> list[str]:
    """How seed 0 of a process was measured, and what came out."""
    return [
        machine(reference, 1, arguments),
        "",
        "| sampler | budget | NFE | Fréchet distance | confident share |",
        "| --- | --- | --- | --- | --- |",
        *(
            f"| {row.sampler} | {'–' if row.sampler.startswith('RK45') else row.budget} | {row.nfe:.0f} | "
            f"{row.frechet:.2f} | {row.confident:.1%} |"
            for row in rows
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
    options.add_argument("--out", type=Path, default=Path("runs/reproduce"), help="folder of runs and results")
    options.add_argument("--publish", action="store_true", help="write the checkpoints of seed 0 into the package")
    options.add_argument("--published", action="store_true", help="seed 0 is what the package has")
    arguments = options.parse_args()
    reference = DigitsReference()
    found: dict[tuple[str, int], list[SweepResult]] = {}
    for seed in range(arguments.seeds):
        for name in arguments.processes:
            run = None if seed == 0 and arguments.published else trained_run(name, seed, arguments)
            rows = found[name, seed] = measured(run or f"{name}-digits", name, seed, arguments, reference)
            if seed == 0 and arguments.publish:
                about = ABOUT.format(PROCESSES[name][1])
                publish(f"{name}-digits", run, about, card(rows, arguments, reference), "make reproduce")
    print(f"\n{machine(reference, arguments.seeds, arguments)}\n\n{table(found, [*arguments.nfe, *arguments.many])}")


if __name__ == "__main__":
    main()
