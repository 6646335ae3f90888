"""Guidance to a class: whether it draws from the conditional law, and what a scale above 1 buys and costs.

    python benchmarks/guidance.py runs/guidance --part exact
    python benchmarks/guidance.py runs/guidance --part digits --run runs/conditional
    python benchmarks/guidance.py runs/guidance --part digits --run psld-digits --classifier runs/classifier

Each cell is a JSON file in the folder, so a command goes on where it was stopped; at the end it prints the table.

exact: the digits as a mixture of ten classes with exact scores, guided at scale 1 by the exact classifier. Energy
    distance of samples to draws of the class, over its floor: that between two sets of draws of the class.
digits: a trained run at several scales, by classifier-free guidance, or with --classifier by classifier guidance. Share
    of samples that the bundled digit classifier gives the class asked for, and Fréchet distance in its features to the
    training images: of each class to its own, averaged, and of all of them. Samples are compared in sets as large as
    the held-out images and with as many of each class, which are the floor; a distance is the mean over the sets.
"""

from __future__ import annotations

import argparse
import platform
from datetime import date
from pathlib import Path
from statistics import mean

import torch
from cells import cell
from publishing import publish
from torch import Tensor

from psld.data import Digits
from psld.evaluation import energy_distance, frechet_distance
from psld.evaluation.features.bundled import bundled_classifier
from psld.exact import GaussianMixture
from psld.guidance.classifier_free import ClassifierFreeGuidance
from psld.guidance.classifier_guidance import ClassifierGuidance
from psld.model import Clamped, Model
from psld.processes import CLD, PSLD, VPSDE, Process
from psld.runs import load, load_classifier
from psld.samplers import SSCS, Ancestral, EulerMaruyama, Exponential, Sampler
from psld.samplers.grids import Grid, log_snr, quadratic

CLASSES = 10
SHAPE = (1, 8, 8)
TRAIN = Digits("train")

# -- exact scores ------------------------------------------------------------------------------------------------------

STD, LABEL, DRAWS = 0.2, 3, 500
SMALL = torch.cat([(TRAIN.labels == label).nonzero()[:20, 0] for label in range(CLASSES)])  # 20 images a class
IMAGES, OF_CLASS = TRAIN.images[SMALL].double(), TRAIN.labels[SMALL]
DATA = GaussianMixture(IMAGES, STD)
PART = GaussianMixture(IMAGES[OF_CLASS == LABEL], STD)
PROCESSES = {"VP": VPSDE(), "CLD": CLD(), "PSLD": PSLD()}
SAMPLERS: dict[str, Sampler] = {
    "Exponential, order 2": Exponential(order=2),
    "Ancestral": Ancestral(),
    "SSCS": SSCS(),
    "EulerMaruyama": EulerMaruyama(),
}


def exact_classifier(process: Process):
    """log p(label | z_t) by Bayes' rule, but for a constant: over the components of a class, in the statistic y."""

    def logits(z: Tensor, t: Tensor) -> Tensor:
        y, sigma = process.statistic(z, t)
        flat, means = y.flatten(1), IMAGES.flatten(1)
        square = (flat[:, None] - means).square().sum(2)
        of_component = -0.5 * square / (STD**2 + sigma.square())[:, None]
        return torch.stack([of_component[:, OF_CLASS == label].logsumexp(1) for label in range(CLASSES)], 1)

    return logits


def spaced(sampler: Sampler, process: Process, nfe: int) -> Grid:
    """Exponential methods on log-SNR, those that step in t on the paper's spacing; the last state is taken as it is."""
    maker = quadratic if isinstance(sampler, SSCS | EulerMaruyama) else log_snr
    return maker(process, nfe, end=1e-3, final="none")


def exact(process: Process, sampler: Sampler, nfe: int) -> dict:
    """Energy distances of guided samples and of the conditional model's, with the same noise, and the floor."""
    target, again = (PART.sample(DRAWS, torch.Generator().manual_seed(seed)) for seed in (1, 2))
    models = {
        "guided": ClassifierGuidance(DATA.model(process), exact_classifier(process), LABEL, process=process),
        "conditional": PART.model(process),
    }
    grid = spaced(sampler, process, nfe)
    found = {name: sampler.sample(model, DRAWS, grid, shape=SHAPE).x for name, model in models.items()}
    distances = {name: energy_distance(x, target) if x.isfinite().all() else float("inf") for name, x in found.items()}
    apart = float((found["guided"] - found["conditional"]).abs().max())
    return distances | {"apart": apart, "floor": energy_distance(again, target)}


def print_exact(out: Path, budgets: list[int]) -> None:
    heads = [f"{process}, NFE {nfe}" for process in PROCESSES for nfe in budgets]
    print(f"| sampler | {' | '.join(heads)} |\n| --- {'| --- ' * len(heads)}|")
    largest = 0.0
    for title, sampler in SAMPLERS.items():
        row = []
        for name, process in PROCESSES.items():
            for nfe in budgets:
                key = f"exact-{name}-{title}-{nfe}".replace(" ", "_").replace(",", "")
                found = cell(out, key, lambda p=process, s=sampler, n=nfe: exact(p, s, n))
                over = (found[kind] / found["floor"] for kind in ("guided", "conditional"))
                row.append("{:.2f} ({:.2f})".format(*over))
                largest = max(largest, found["apart"])
        print(f"| {title} | {' | '.join(row)} |", flush=True)
    target, again, unguided = (
        law.sample(DRAWS, torch.Generator().manual_seed(seed)) for law, seed in ((PART, 1), (PART, 2), (DATA, 3))
    )
    print(f"\nLargest difference between a pixel of a guided sample and the conditional model's: {largest:.2g}.")
    floor = energy_distance(again, target)
    print(f"Floor: {floor:.3g}. Draws of all classes: {energy_distance(unguided, target) / floor:.1f} times that.")


# -- trained on digits -------------------------------------------------------------------------------------------------

JUDGE, _ = bundled_classifier("digits")
ABOUT = (
    "PSLD, Γ = 0.01, on scikit-learn's handwritten digits (1,437 training images of 8×8), told which digit, a tenth of "
    "the labels dropped in training: averaged weights of configs/digits-conditional.yaml, seed 0. A class: "
    "`psld sample {} --label 3 --guidance 2 --out runs/threes`."
)


@torch.no_grad()
def features(images: Tensor) -> Tensor:
    return JUDGE.features(images.float())


def guided(run: str, classifier: str | None, scale: float) -> list[Model]:
    """The model guided to each class."""
    model = load(run)
    if classifier is not None:
        known = load_classifier(classifier)
        return [
            ClassifierGuidance(model, known.network, label, scale, process=known.process) for label in range(CLASSES)
        ]
    classes = model.classes
    if classes is None:
        raise SystemExit(f"{run} was trained without labels: give --classifier, or another --run.")
    return [ClassifierFreeGuidance(model, label, classes, scale) for label in range(CLASSES)]


def distances(by_class: list[Tensor]) -> dict[str, float]:
    """Fréchet distances to the training images, of each class averaged and of all, from images sorted by class."""
    known = features(TRAIN.images)
    found = [features(images) for images in by_class]
    of_classes = [frechet_distance(own, known[TRAIN.labels == label]) for label, own in enumerate(found)]
    return {"by_class": mean(of_classes), "overall": frechet_distance(torch.cat(found), known)}


def sets(by_class: list[Tensor], sizes: list[int]) -> list[list[Tensor]]:
    """The samples in sets with so many images of each class."""
    count = min(len(images) // size for images, size in zip(by_class, sizes, strict=True))
    return [[x[i * n : (i + 1) * n] for x, n in zip(by_class, sizes, strict=True)] for i in range(count)]


def digits(run: str, classifier: str | None, scale: float, nfe: int, count: int) -> dict:
    """Accuracy, and Fréchet distances averaged over sets of samples."""
    sampler, by_class = Exponential(), []
    for label, model in enumerate(guided(run, classifier, scale)):
        seeds = range(label * count, (label + 1) * count)
        found = sampler.batches(Clamped(model), None, log_snr(model.process, nfe), seeds, shape=SHAPE, batch_size=256)
        by_class.append(torch.cat([batch.x for batch in found]).float().clamp(-1, 1))
    with torch.no_grad():
        right = [float((JUDGE(x).argmax(1) == label).double().mean()) for label, x in enumerate(by_class)]
    every = [distances(part) for part in sets(by_class, held_out_sizes())]
    return {"accuracy": mean(right)} | {name: mean(part[name] for part in every) for name in every[0]}


def held_out() -> list[Tensor]:
    data = Digits("heldout")
    return [data.images[data.labels == label] for label in range(CLASSES)]


def held_out_sizes() -> list[int]:
    return [len(images) for images in held_out()]


def print_digits(out: Path, run: str, classifier: str | None, scales: list[float], nfe: int, count: int) -> list[str]:
    """Returns the lines that it printed."""
    largest = max(held_out_sizes())
    if count < largest:
        raise SystemExit(f"--count must be at least {largest}, the held-out images of a class: got {count}.")
    guided(run, classifier, 1.0)  # what does not fit together is refused here
    means = f"guided by {classifier}" if classifier else "classifier-free"
    lines = [f"{means}, NFE {nfe}, {count} images a class", ""]
    lines += ["| scale | class right | Fréchet, of a class | Fréchet, overall |", "| --- | --- | --- | --- |"]
    print("\n".join([run, *lines]))
    for scale in scales:
        where = f"{run}-{classifier or 'free'}".strip("/").replace("/", "_")
        name = f"digits-{where}-{scale:g}-{nfe}-{count}"
        found = cell(out, name, lambda w=scale: digits(run, classifier, w, nfe, count))
        lines.append(f"| {scale:g} | {found['accuracy']:.1%} | {found['by_class']:.2f} | {found['overall']:.2f} |")
        print(lines[-1], flush=True)
    real = held_out()
    with torch.no_grad():
        right = mean(float((JUDGE(x).argmax(1) == label).double().mean()) for label, x in enumerate(real))
    floor = distances(real)
    lines.append(f"| held-out images | {right:.1%} | {floor['by_class']:.2f} | {floor['overall']:.2f} |")
    print(lines[-1])
    return lines


def publish_conditional(run: str, lines: list[str]) -> None:
    """The run as psld-digits-conditional, its table in the card."""
    measured = (
        "Share of samples that the bundled digit classifier gives the class asked for, and Fréchet distances in its "
        "features to the training images: of each class to its own, averaged, and of all of them "
        f"(benchmarks/guidance.py). {platform.machine()}, torch {torch.__version__}, {date.today()}."
    )
    name, command = "psld-digits-conditional", "make reproduce"
    publish(name, Path(run), ABOUT.format(name), [measured, "", *lines], command)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--part", choices=["exact", "digits"], required=True)
    parser.add_argument("--budgets", type=int, nargs="+", default=[20, 100], help="evaluations, of the exact part")
    parser.add_argument("--run", help="of the digits part: a run, or the name of a published checkpoint")
    parser.add_argument("--classifier", help="a run of psld train-classifier, to guide a run without labels")
    parser.add_argument("--scales", type=float, nargs="+", default=[0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0])
    parser.add_argument("--publish", action="store_true", help="write --run into the package, with these numbers")
    parser.add_argument("--nfe", type=int, default=20, help="evaluations a sample, of the digits part")
    parser.add_argument("--count", type=int, default=200, help="images of each class and scale")
    options = parser.parse_args()
    if options.part == "exact":
        print_exact(options.out, options.budgets)
    elif options.run is None:
        parser.error("--part digits needs --run")
    else:
        lines = print_digits(options.out, options.run, options.classifier, options.scales, options.nfe, options.count)
        if options.publish:
            publish_conditional(options.run, lines)


if __name__ == "__main__":
    main()
