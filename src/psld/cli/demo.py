"""`psld demo`: PSLD on real digits, from training to measured samples.

The network is the one that won over three seeds (benchmarks/denoiser.py): D(y; σ), which every process can use.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
from jsonargparse import ArgumentParser

from psld.cli.train import parser as train_parser
from psld.cli.train import train_from
from psld.data import Digits
from psld.evaluation import DigitClassifier, classifier_accuracy, frechet_distance, memorised_share
from psld.evaluation.features.bundled import bundled_classifier
from psld.files import write_json
from psld.jobs import generate
from psld.model import Clamped, Model
from psld.plots import save_beside, save_grid, save_phase_space
from psld.pretrained.presets import published_config
from psld.report.drawing import phase_space_paths
from psld.runs import load
from psld.samplers import SSCS, EulerMaruyama, Exponential, PredictorCorrector, Sampler, grids

__all__ = ["run"]

DESCRIPTION = """Train PSLD on scikit-learn's digits, sample, look and measure: about five minutes on two CPU cores.

Writes into the run folder: samples.png, data_and_samples.png, phase_space.png, report.json and the checkpoints."""

EPILOG = """example: psld demo;
shorter, into another folder: psld demo --seconds 60 --run runs/quick"""

NFE = 20
SAMPLES = 2000


def run(arguments: list[str]) -> int:
    """Train, sample, draw and measure; returns 0."""
    options = ArgumentParser(prog="psld demo", description=DESCRIPTION)
    options.epilog = EPILOG
    options.add_argument(
        "--run", type=str, default="runs/demo", help="folder of the run; a demo that is there is replaced"
    )
    options.add_argument("--seconds", type=float, default=165.0, help="training time")
    config = options.parse_args(arguments)
    started, folder = time.monotonic(), Path(config.run)

    print(f"training a denoiser D(y; σ) on 1,437 real digits for {config.seconds:.0f} s, into {folder}", flush=True)
    training = train_parser()
    chosen = ["--config", str(published_config("digits-denoiser")), "--run", str(folder), "--overwrite"]
    train_from(training, training.parse_args([*chosen, f"--training.max_seconds={config.seconds}"]))
    trained = time.monotonic()

    print(f"sampling {SAMPLES} images of PSLD with each of four samplers, then measuring", flush=True)
    network = load(folder)
    shape = network.known_shape()
    model = Clamped(network)  # for samplers of few steps; the published ones run as published
    fast, quadratic = grids.optimised(model.process, NFE), grids.quadratic(model.process, NFE)
    paper = grids.paper(model.process, 50, "quadratic")
    samplers: dict[str, tuple[Sampler, Model, grids.Grid]] = {
        f"exponential, η = 1, optimised grid, NFE {NFE}": (Exponential(order=2, eta=1.0), model, fast),
        f"predictor–corrector, optimised grid, NFE {NFE}": (PredictorCorrector(predictor=2), model, fast),
        f"SSCS, quadratic grid, NFE {NFE}": (SSCS(), network, quadratic),
        "Euler–Maruyama, quadratic grid, NFE 50 (the paper's)": (EulerMaruyama(), network, paper),
    }
    images = {name: draw(sampler, of, shape, grid) for name, (sampler, of, grid) in samplers.items()}
    sampled = time.monotonic()

    report = judge(images)
    report |= {"seconds": {"training": trained - started, "sampling": sampled - trained}}
    first = next(iter(images.values()))
    save_grid(first[:100], folder / "samples.png")
    save_beside(Digits("heldout").images[:49], first[:49], folder / "data_and_samples.png")
    draw_phase_space(model, folder / "phase_space.png")
    write_json(report, folder / "report.json")
    print(f"{summary(report)}\nLook at {folder / 'samples.png'}, data_and_samples.png and phase_space.png beside it.")
    return 0


def draw(sampler: Sampler, model: Model, shape: tuple[int, ...], grid: grids.Grid) -> torch.Tensor:
    """SAMPLES images in [−1, 1], float32."""
    batches = generate(sampler, model, shape, grid, range(SAMPLES), batch_size=500)
    return torch.cat([batch.x for batch in batches]).float().clamp(-1, 1)


def judge(samples: dict[str, torch.Tensor]) -> dict:
    """Fréchet distances in the features of a digit classifier, confident shares and memorising, with their floors."""
    data, heldout = Digits("train"), Digits("heldout")
    classifier, _ = bundled_classifier("digits")
    features = featurise(classifier, data.images)
    report: dict = {
        "classifier accuracy on held-out digits": classifier_accuracy(classifier, heldout.images, heldout.labels),
        "Fréchet distance floor (held-out against training images)": frechet_distance(
            featurise(classifier, heldout.images), features
        ),
        "confident share of held-out images": confident_share(classifier, heldout.images),
        "samplers": {},
    }
    for name, images in samples.items():
        memory = memorised_share(images, data.images, heldout.images)
        report["samplers"][name] = {
            "Fréchet distance": frechet_distance(featurise(classifier, images), features),
            "confident share": confident_share(classifier, images),
            "share closer to a training image than the median held-out image": memory.samples,
        }
    return report


@torch.no_grad()
def featurise(classifier: DigitClassifier, images: torch.Tensor) -> torch.Tensor:
    """The classifier's penultimate features, (n, 64)."""
    return classifier.features(images)


@torch.no_grad()
def confident_share(classifier: DigitClassifier, images: torch.Tensor) -> float:
    """Share of images that the classifier gives a class with probability above 0.9."""
    return float((classifier(images).softmax(1).amax(1) > 0.9).double().mean())


def draw_phase_space(model: Model, path: Path) -> None:
    """Position against momentum of single pixels, from data to noise and from noise to data."""
    paths = phase_space_paths(model, Digits("heldout").images[:3], range(3))
    save_phase_space(
        paths.forward,
        paths.reverse,
        paths.times,
        path,
        reverse_times=paths.reverse_times,
        stationary=model.process.prior_covariance,
    )


def summary(report: dict) -> str:
    """The measured numbers as a table."""
    floor = report["Fréchet distance floor (held-out against training images)"]
    lines = [
        f"training {report['seconds']['training']:.0f} s, sampling {report['seconds']['sampling']:.0f} s",
        f"judge: a digit classifier, {report['classifier accuracy on held-out digits']:.1%} right on held-out digits; "
        f"Fréchet distance in its features, floor {floor:.2f} (held-out images)",
        f"{'sampler':<54}{'Fréchet':>8}{'× floor':>9}{'confident':>11}{'near copy':>11}",
    ]
    for name, row in report["samplers"].items():
        distance, confident, near = row.values()
        lines.append(f"{name:<54}{distance:>8.2f}{distance / floor:>9.2f}{confident:>11.1%}{near:>11.1%}")
    real = report["confident share of held-out images"]
    lines.append(f"{'real held-out images':<54}{floor:>8.2f}{1:>9.2f}{real:>11.1%}{0.5:>11.1%}")
    return "\n".join(lines)
