"""Results of sweeps: read as they were written, known by specs, and held against a second computation."""

import csv
import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch

from psld import CLD, PSLD, Exponential, Heun, Process
from psld.comparison import Cell, DigitsReference, SweepResult, markdown_table, measure, read_results, write_results
from psld.comparison.tables import latex_table
from psld.data import Digits
from psld.evaluation.features.bundled import bundled_classifier
from psld.exact import Empirical

PUBLISHED = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*/rows.csv"))


def test_there_are_published_results():
    assert len(PUBLISHED) == 2


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.parent.name)
def test_published_results_are_read_number_by_number(path):
    with open(path, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    results = read_results(path)
    assert len(results) == len(rows)
    for row, result in zip(rows, results, strict=True):
        for name in ("nfe", "frechet", "frechet_floor", "energy_distance", "energy_floor"):
            assert getattr(result, name) == float(row[name])
        assert result.rms_to_exact == (float(row["rms_to_exact"]) if row["rms_to_exact"] else None)
        assert (result.process, result.family, result.sampler) == (row["process"], row["family"], row["sampler"])
        assert (result.budget, result.samples) == (int(row["budget"]), int(row["samples"]))


@pytest.mark.parametrize("kind", ["json", "csv"])
def test_what_is_written_is_read(tmp_path, kind):
    spec = {"class_path": "psld.Heun", "init_args": {"churn": 2.0, "churn_range": [0.0, math.inf]}}
    first = SweepResult("PSLD()", "paper", 'A "quoted", name', 5, 5.0, 0.1 + 0.2, samples=7, spec=spec, key="ab")
    results = [first, replace(first, frechet=math.inf, frechet_floor=1e-300, spec=None)]
    write_results(results, tmp_path / f"rows.{kind}")
    assert read_results(tmp_path / f"rows.{kind}") == results


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"sampler": "A", "nfe": 5}]', '[{"sampler": "A", "nfe": "x"}]'])
def test_other_files_are_refused_by_name(tmp_path, text):
    (tmp_path / "rows.json").write_text(text)
    with pytest.raises(ValueError, match="rows.json is not the result of a sweep"):
        read_results(tmp_path / "rows.json")


def test_cells_are_known_by_every_argument():
    """Two samplers and two processes with the same short names each, as tables show them."""
    recipe = PSLD().recipe
    processes = [PSLD(), CLD(), Process(recipe, 8.0, 0.01), Process(recipe, 8.0, 0.5, T=2.0)]
    samplers = [Heun(churn=1.0), Heun(churn=1.0, churn_range=(0.1, 1.0)), Heun(), Exponential()]
    keys = {
        Cell.of(sampler, grid, process, nfe).key(process)
        for sampler in samplers
        for process in processes
        for grid in ("log-snr", "quadratic")
        for nfe in (5, 9)
    }
    assert len(keys) == 64
    assert Cell.of(Heun(), "log-snr", PSLD(), 5, label="another").key(PSLD()) == Cell.of(
        Heun(0.0), "log-snr", PSLD(gamma=0.01), 5
    ).key(PSLD(gamma=0.01))


@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_a_cell_against_digits_is_what_scipy_says_of_the_same_samples():
    model = Empirical(Digits("train").images[:64].double(), 0.05).model(PSLD())
    cell, seen, reference = Cell.of(Exponential(), "log-snr", model.process, 8), [], DigitsReference(heldout=100)
    result = measure(cell, model, reference, range(100), batch_size=40, see=seen.append)
    grid = Exponential().grid("log-snr", model.process, 8)
    images = Exponential().sample(model, 100, grid).x
    assert torch.equal(torch.cat(seen), images)
    classifier, _ = bundled_classifier("digits")
    moments = []
    with torch.no_grad():
        for x in (images.clamp(-1, 1).float(), Digits("train").images, Digits("heldout").images[:100]):
            features = classifier.features(x).double().numpy()
            moments.append((features.mean(0), np.cov(features.T)))
        confident = float((classifier(images.clamp(-1, 1).float()).softmax(1).amax(1) > 0.9).double().mean())

    def distance(a, b):
        root = np.real(scipy.linalg.sqrtm(a[1] @ b[1]))
        return np.square(a[0] - b[0]).sum() + np.trace(a[1] + b[1] - 2 * root)

    assert result.frechet == pytest.approx(distance(moments[0], moments[1]), rel=1e-5)
    assert result.frechet_floor == pytest.approx(distance(moments[2], moments[1]), rel=1e-5)
    assert result.confident == confident and result.nfe == 8.0 and result.samples == 100
    assert (result.floor_images, result.frechet_at_floor) == (100, pytest.approx(result.frechet, rel=1e-5))
    low, high, floor = result.frechet_low, result.frechet_high, result.frechet_floor
    assert low is not None and high is not None and floor is not None and low < result.frechet < high
    assert result.times_floor == pytest.approx(result.frechet / floor, rel=1e-5)


def test_a_distance_is_held_against_its_floor_at_the_same_number_of_images():
    few = SweepResult(
        "P", "f", "A", 5, 5.0, 0.6, frechet_floor=2.0, floor_images=360, frechet_at_floor=3.0, samples=2000
    )
    assert (few.times_floor, few.floor_at_this_size) == (1.5, None)
    unknown = replace(few, frechet_at_floor=None)
    assert unknown.times_floor is None
    equal = replace(unknown, floor_images=2000)
    assert (equal.times_floor, equal.floor_at_this_size) == (pytest.approx(0.3), 2.0)


def test_a_table_in_latex_has_the_cells_of_that_in_markdown():
    results = [SweepResult("P", "f", f"{s} & 5_%, η = 1", n, float(n), 10.0 * n) for s in "AB" for n in (5, 8)]
    table = latex_table(results[:3], lambda result: rf"\textbf{{{result.frechet:g}}}", "100 % of {x}")
    assert table.splitlines() == [
        r"\begin{table}",
        r"\centering",
        r"\caption{100 \% of \{x\}}",
        r"\begin{tabular}{lrr}",
        r"\toprule",
        r"sampler & NFE 5 & NFE 8 \\",
        r"\midrule",
        r"A \& 5\_\%, $\eta$ = 1 & \textbf{50} & \textbf{80} \\",
        r"B \& 5\_\%, $\eta$ = 1 & \textbf{50} &  \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_samples_that_diverge_have_an_infinite_distance():
    model = Empirical(Digits("train").images[:8].double(), 0.05).model(PSLD())
    cell = Cell.of(Exponential(), "log-snr", model.process, 5)
    broken = Cell(*cell[:5], lambda judge: (Infinite(), cell.build(judge)[1]))
    result = measure(broken, model, DigitsReference(heldout=50), range(20), batch_size=10)
    assert result.frechet == math.inf and result.nfe == 5.0 and result.confident is None
    assert json.loads(json.dumps(asdict(result)))["frechet_floor"] > 0


class Infinite(Exponential):
    """Takes the right steps, and its last images are not finite."""

    def finish(self, model, z, grid):
        x, z, calls = super().finish(model, z, grid)
        return x / 0, z, calls


def test_a_table_has_a_row_a_sampler_and_a_column_a_budget():
    results = [SweepResult("P", "f", s, n, float(n), 10.0 * n + i) for i, s in enumerate("AB") for n in (5, 8)]
    assert markdown_table(results[:3], lambda result: f"{result.frechet:g}", families=True) == [
        "| family | sampler | NFE 5 | NFE 8 |",
        "| --- | --- | --- | --- |",
        "| f | A | 50 | 80 |",
        "| f | B | 51 |  |",
    ]
