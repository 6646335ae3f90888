"""The MNIST checkpoints: PSLD's ε, and one σ-denoiser sampled as PSLD, CLD and VP; trained, measured, published.

    python benchmarks/reproduce_mnist.py --root data/mnist --out runs/reproduce-mnist --publish

ROOT is a folder with MNIST's training files. Trains configs/mnist.yaml and configs/mnist-denoiser.yaml for --seconds
(or --steps) each, the last fifth at a quarter of the learning rate, one seed, then lets `psld evaluate` judge samples
of both, drawn in --precision too. What is finished is not done again; with more --seconds a finished run goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from datetime import date
from pathlib import Path

import torch
import yaml

sys.path.insert(0, str(Path(__file__).parent))
from publishing import CONFIGS as FOLDER
from publishing import publish, trained

from psld.cli import main as psld
from psld.comparison import SweepResult, read_results
from psld.training import latest_checkpoint

CONFIGS = {"psld-mnist": "mnist.yaml", "mnist-denoiser": "mnist-denoiser.yaml"}
PROCESSES = {
    "PSLD": ["--process", "psld.PSLD", "--process.gamma", "0.01"],
    "CLD": ["--process", "psld.CLD"],
    "VP": ["--process", "psld.VPSDE"],
}
ABOUT = {
    "psld-mnist": "PSLD, Γ = 0.01, with the paper's ε network, on the first 50,000 images of MNIST's training file, "
    "padded to 32×32. Averaged weights of configs/mnist.yaml, seed 0.",
    "mnist-denoiser": "One denoiser D(y; σ) that serves every process, on the first 50,000 images of MNIST's training "
    "file, padded to 32×32. Averaged weights of configs/mnist-denoiser.yaml, seed 0. Another process: "
    "`psld sample mnist-denoiser --process psld.CLD --out runs/cld`.",
}
PUBLISHED = ["EulerMaruyama(), paper-quadratic", "SSCS(), paper-quadratic"]
OURS = [
    "Exponential(order=2), optimised",
    "Exponential(order=2, eta=1), optimised",
    "PredictorCorrector(predictor=2), optimised",
    "Projected(PredictorCorrector(predictor=2), 'once'), optimised",
]
TOLERANCE = "0.01"  # of RK45
PAPER = 100  # evaluations of Euler–Maruyama that ten of the others are compared with


def trained_run(name: str, arguments: argparse.Namespace) -> Path:
    """The run of a checkpoint, with the drop of its learning rate."""
    settings = ["--data.root", str(arguments.root), "--training.precision", arguments.precision]
    run = arguments.out / name
    rate = yaml.safe_load((FOLDER / CONFIGS[name]).read_text(encoding="utf-8"))["training"]["learning_rate"]
    for share, learning_rate in ((0.8, rate), (1.0, rate / 4)):
        end = ["--training.max_seconds", str(share * arguments.seconds)]
        if arguments.steps is not None:
            end = ["--training.steps", str(round(share * arguments.steps)), "--training.max_seconds", "null"]
        trained(CONFIGS[name], run, [*settings, *end, "--training.learning_rate", str(learning_rate)])
    return run


def statistics(split: str, arguments: argparse.Namespace) -> str:
    """The file of those of a split of MNIST, measured once."""
    file = arguments.out / f"{split}.npz"
    data = ["MNIST", "--data.root", str(arguments.root), "--data.split", split, "--data.image_size", "32"]
    measure = ["stats", *data, "--out", str(file)]
    if not file.is_file() and psld(measure) != 0:
        raise SystemExit(f"{arguments.root} could not be measured.")
    return str(file)


def evaluated(run: Path, process: str, out: Path, options: list[str], arguments: argparse.Namespace) -> Path:
    """The folder of the results of `psld evaluate` with these options; a network of one process has no choice."""
    chosen = PROCESSES[process] if run.name == "mnist-denoiser" else []
    against = ["--against", statistics("train", arguments), "--floor", statistics("heldout", arguments)]
    drawn = ["--num", str(arguments.samples), "--precision", arguments.precision]
    if psld(["evaluate", str(run), *chosen, *against, *drawn, *options, "--out", str(out)]) != 0:
        raise SystemExit(f"evaluation of {run} failed.")
    return out


def sweep(
    run: Path, process: str, samplers: list[str], nfe: list[int], arguments: argparse.Namespace
) -> list[SweepResult]:
    """Samplers × NFE; x̂₀ is clamped for samplers of ours alone."""
    ours = samplers[0] in OURS
    out = arguments.out / "results" / "-".join([run.name, process, "ours" if ours else "published", *map(str, nfe)])
    options = ["--sweep", "--nfe", *map(str, nfe), "--only", *samplers, "--clamp", str(ours).lower()]
    folder = evaluated(run, process, out, options, arguments)
    return read_results(folder / "sweep.json")


def adaptive(run: Path, process: str, arguments: argparse.Namespace) -> str:
    """Of RK45: Fréchet distance, confident share and what it took."""
    out = arguments.out / "results" / f"{run.name}-{process}-RK45-{latest_checkpoint(run).name}"
    options = ["--sampler", "RK45", "--sampler.rtol", TOLERANCE, "--sampler.atol", TOLERANCE, "--steps", "2"]
    folder = evaluated(run, process, out, [*options, "--grid", "paper-uniform", "--clamp", "false"], arguments)
    (file,) = folder.glob("RK45-*.json")
    found = json.loads(file.read_text(encoding="utf-8"))
    figures = found["figures"]
    return f"{figures[found['distance']]:.2f} ({figures['confident share of samples']:.0%}) at {found['nfe']:.0f}"


def measured(run: Path, arguments: argparse.Namespace) -> tuple[dict[str, list[SweepResult]], dict[str, str]]:
    """By process, the samplers of ours and those of the paper; and RK45."""
    processes = list(PROCESSES) if run.name == "mnist-denoiser" else ["PSLD"]
    found = {name: sweep(run, name, OURS, arguments.nfe, arguments) for name in processes}
    for name in processes:
        found[name] += sweep(run, name, PUBLISHED, arguments.nfe, arguments)
    found["PSLD"] += sweep(run, "PSLD", PUBLISHED[:1], [PAPER], arguments)
    return found, {name: adaptive(run, name, arguments) for name in processes}


def table(sweeps: dict[str, list[SweepResult]], solved: dict[str, str], nfe: list[int]) -> list[str]:
    """Fréchet distance, and the confident share behind it."""
    head = ["process", "sampler", *(f"NFE {n}" for n in nfe)]
    lines = [f"| {' | '.join(head)} |", "| --- " * len(head) + "|"]
    for name, points in sweeps.items():
        for sampler in dict.fromkeys(point.sampler for point in points):
            own = {p.budget: f"{p.frechet:.2f} ({p.confident:.0%})" for p in points if p.sampler == sampler}
            lines.append(f"| {' | '.join([name, sampler, *(own.get(n, '') for n in nfe)])} |")
        lines.append(f"| {name} | RK45, tolerance {TOLERANCE} | {solved[name]} |{' |' * (len(nfe) - 1)}")
    return lines


def machine(run: Path, points: list[SweepResult], arguments: argparse.Namespace) -> str:
    """What the numbers were measured with."""
    return (
        f"Fréchet distance (and classifier-confident share) of {arguments.samples:,} images to the training images, in "
        f"features of the bundled MNIST classifier; floor, {points[0].floor_images:,} held-out images: "
        f"{points[0].frechet_floor:.2f}; "
        f"it is confident of {points[0].confident_data:.0%} of the data. "
        f"{int(latest_checkpoint(run).name.removeprefix('step-')):,} training steps, "
        f"samples in {arguments.precision}. "
        f"{platform.machine()}, torch {torch.__version__}, {date.today()}."
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--root", type=Path, required=True, help="folder of MNIST's training files")
    options.add_argument("--seconds", type=float, default=3600.0, help="training time of each network")
    options.add_argument("--steps", type=int, help="steps of training, in place of --seconds")
    options.add_argument("--precision", default="32-true", help="bf16-mixed where the machine has it")
    options.add_argument("--samples", type=int, default=1000, help="images a cell")
    options.add_argument("--nfe", type=int, nargs="+", default=[5, 10, 20], help="budgets")
    options.add_argument("--checkpoints", nargs="+", choices=list(CONFIGS), default=list(CONFIGS), help="which")
    options.add_argument("--out", type=Path, default=Path("runs/reproduce-mnist"), help="folder of runs and results")
    options.add_argument("--publish", action="store_true", help="write the checkpoints into the package")
    arguments = options.parse_args()
    for name in arguments.checkpoints:
        run = trained_run(name, arguments)
        sweeps, solved = measured(run, arguments)
        lines = [machine(run, sweeps["PSLD"], arguments), "", *table(sweeps, solved, [*arguments.nfe, PAPER])]
        print("\n".join(["", name, "", *lines]))
        if arguments.publish:
            length = f"--seconds {arguments.seconds:.0f}" if arguments.steps is None else f"--steps {arguments.steps}"
            trained_as = f"{length} --precision {arguments.precision}"
            command = f"python benchmarks/reproduce_mnist.py --root data/mnist {trained_as} --publish"
            publish(name, run, ABOUT[name], lines, command, data_root="data/mnist")


if __name__ == "__main__":
    main()
