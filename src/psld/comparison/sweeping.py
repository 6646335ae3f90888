"""Many cells of many models against exact solutions, into one folder, going on where it was stopped."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from psld.comparison.cells import cells
from psld.comparison.measuring import measure
from psld.comparison.references import ExactReference
from psld.comparison.results import SweepResult, read_results, write_results
from psld.data import Digits
from psld.exact import Empirical, GaussianMixture
from psld.model import Model

__all__ = ["exact_reference", "known_law", "require_known", "sweep"]

COMPONENT_STD = 0.05


def known_law(name: str) -> GaussianMixture:
    """The "digits" as a mixture, or eight small Gaussians on a circle, "ring"."""
    if name == "digits":
        return Empirical(Digits("all").images.double(), COMPONENT_STD)
    angles = torch.arange(8, dtype=torch.float64) * torch.pi / 4
    return GaussianMixture(torch.stack([angles.cos(), angles.sin()], 1), COMPONENT_STD)


def exact_reference(
    model: Model, law: GaussianMixture | None, samples: int, exact: int, folder: Path
) -> ExactReference:
    """Draws of a law with the exact flow of its score; of a trained model, the digits with the flow of the model.

    Args:
        model: exact score of the law, or a trained one.
        law: that is drawn from; None for a trained model.
        samples: draws of the law.
        exact: seeds whose flow is solved.
        folder: of the solutions.
    """
    if law is None:
        images = Digits("train").images.double()
        pairs = [(Digits("heldout").images.double(), images)]
    else:
        generator = torch.Generator().manual_seed(0)
        draws = [law.sample(samples, generator) for _ in range(10)]
        images, pairs = draws[0], list(zip(draws[::2], draws[1::2], strict=True))
    return ExactReference.of(model, images, pairs, range(exact), 1e-4 if law is None else 1e-7, folder)


def require_known(only: Sequence[str], labels: Iterable[str]) -> None:
    """Raises ValueError if one of the parts that samplers are chosen by is in none of their labels, which it names."""
    labels = sorted(set(labels))
    unknown = [part for part in only if not any(part in label for label in labels)]
    if unknown:
        names = sorted({re.split(r"\W", label)[0] for label in labels})
        raise ValueError(
            f"no sampler has {' or '.join(unknown)} in its name: names are as {labels[0]!r}, and begin with "
            f"{', '.join(names)}."
        )


def sweep(
    models: Iterable[Model],
    reference: Callable[[Model], ExactReference],
    budgets: Sequence[int],
    only: Sequence[str],
    samples: int,
    folder: Path,
    device: str = "cpu",
) -> list[SweepResult]:
    """Measures the cells of each model that FOLDER/rows.json does not have, and writes it anew after each.

    Args:
        models: one a process.
        reference: of a model; asked for where there is something to measure.
        budgets: network evaluations.
        only: parts of labels; a cell must have one of them. All cells where it is empty.
        samples: images a cell, of seeds 0, 1, ….
        folder: of the results.
        device: where samples are drawn.

    Returns:
        All results, earlier ones first. Those without a key, of older versions, are measured anew.

    Raises:
        ValueError: one of the parts is in the label of no cell.
    """
    from tqdm import tqdm

    models = list(models)
    every = [[cell for budget in budgets for cell in cells(model.process, budget, model)] for model in models]
    require_known(only, [cell.label for of_model in every for cell in of_model])
    rows = [row for row in read_results(folder / "rows.json") if row.key]
    done = {row.key for row in rows}
    for model, of_model in zip(models, every, strict=True):
        chosen = [cell for cell in of_model if not only or any(part in cell.label for part in only)]
        wanted = [cell for cell in chosen if cell.key(model.process) not in done]
        held = reference(model) if wanted else None
        with tqdm(wanted, desc=repr(model.process), unit="cell", disable=None) as bar:
            for cell in bar:
                assert held is not None  # there is something to measure
                bar.set_postfix_str(f"{cell.label}, NFE {cell.nfe}")
                rows.append(measure(cell, model, held, range(samples), device=device))
                for kind in ("json", "csv"):
                    write_results(rows, folder / f"rows.{kind}")
    return rows
