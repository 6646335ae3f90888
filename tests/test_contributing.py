"""CONTRIBUTING.md is true: what the examples define keeps the contracts, files exist, imports point one way, types."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from own_data import Discs
from own_metric import GaussianDivergence
from own_network import Dilated
from own_rates import Warming
from own_sampler import AdamsBashforth

from contracts import test_data as of_data
from contracts import test_metric as of_metrics
from contracts import test_network as of_networks
from contracts import test_process as of_processes
from contracts import test_sampler as of_samplers
from contracts.test_metric import sets  # noqa: F401  a fixture
from psld.processes import CLD, PSLD, VPSDE

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "psld"
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
TASKS = ("A sampler", "A process", "A backbone", "A data set", "A metric")


# -- the contracts, on what a user made --------------------------------------------------------------------------------


@pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.01)], ids=repr)
def test_a_sampler_of_ones_own_keeps_the_contract(process):
    sampler = AdamsBashforth()
    of_samplers.check_order(sampler, process)
    of_samplers.test_a_sample_depends_on_its_own_seed(sampler, process)
    of_samplers.test_a_step_is_a_function_of_its_arguments(sampler)
    of_samplers.check_spec(sampler, own=True)


@pytest.mark.parametrize(
    "check",
    [
        of_processes.test_the_sde_moves_the_law_of_z_given_x0,
        of_processes.test_the_target_is_the_score_of_z_given_x0,
        of_processes.test_the_prior_is_its_density,
        of_processes.test_times_outside_the_horizon_are_refused,
        of_processes.test_kernels_solve_the_moment_equations,
        of_processes.test_kernels_compose,
        of_processes.test_increments_are_integrals_of_the_rates,
        of_processes.test_reports_say_whether_one_law_is_stationary,
    ],
    ids=lambda check: check.__name__,
)
def test_a_process_of_ones_own_keeps_the_contract(check):
    check(Warming())


def test_a_network_of_ones_own_keeps_the_contract():
    for process, predicts in of_networks.ASKED:
        of_networks.test_what_comes_out_is_what_process_and_prediction_ask_for(Dilated, process, predicts)
    of_networks.test_a_sample_depends_on_itself_and_its_time(Dilated)
    of_networks.test_every_weight_learns(Dilated)
    of_networks.test_it_is_made_again_from_its_spec(Dilated)
    of_networks.test_its_parameters_have_types(Dilated)
    of_networks.test_a_label_is_told_or_refused(Dilated)


@pytest.mark.parametrize(
    "check",
    [
        of_data.test_items_are_images_of_one_shape,
        of_data.test_labels_are_one_an_item,
        of_data.test_training_reads_it,
        of_data.test_it_is_known_by_its_arguments_and_its_content,
    ],
    ids=lambda check: check.__name__,
)
def test_data_of_ones_own_keep_the_contract(check, tmp_path):
    check(lambda folder: Discs(count=40, side=8), tmp_path)


def test_a_metric_of_ones_own_keeps_the_contract(sets):  # noqa: F811
    metric = GaussianDivergence()
    of_metrics.test_figures_are_numbers_with_names(metric, sets)
    of_metrics.test_comparing_computes_it_and_refuses_what_was_measured_otherwise(metric, sets)
    of_metrics.test_it_is_left_out_without_what_it_needs(metric, sets)
    of_metrics.test_the_order_of_images_does_not_matter(metric, sets)
    of_metrics.test_it_is_made_again_from_its_spec(metric)


# -- the checklists ----------------------------------------------------------------------------------------------------


def checklist(task: str) -> str:
    return TEXT.split(f"\n## {task}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("task", TASKS)
def test_a_task_touches_three_files_and_is_done_once(task):
    items = re.findall(r"^\d\. `([^`]+)`", checklist(task), re.MULTILINE)
    assert len(items) == len(re.findall(r"^\d\. ", checklist(task), re.MULTILINE)) == 3
    assert "Done once: `examples/" in checklist(task)
    assert re.search(r"pytest (tests/contracts/\S+\.py) -k NAME", checklist(task))


def test_every_file_that_is_named_exists():
    named = re.findall(r"(?<![\w/])((?:src|docs|tests|examples)/[\w./]*|[A-Z]+\.md)", TEXT)
    assert len(named) > 30
    assert [file for file in named if not (ROOT / file.replace("NAME.py", "")).exists()] == []


def test_every_name_that_is_named_exists():
    """Classes, by the room of their checklist."""
    import psld.data
    import psld.evaluation.metrics.metric
    import psld.networks
    import psld.processes
    import psld.samplers

    places = (psld.samplers, psld.processes, psld.networks, psld.data, psld.evaluation.metrics.metric)
    for task, place in zip(TASKS, places, strict=True):
        for name in re.findall(r"`([A-Z][a-z]\w+)`", checklist(task)):
            assert hasattr(place, name), name


# -- rooms -------------------------------------------------------------------------------------------------------------

LEVELS = [re.findall(r"`(\w+)`", row.split("|")[1]) for row in TEXT.split("\n## ")[1].splitlines() if row[:3] == "| `"]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}

UPWARDS = {
    ("inverse", "data"): "a mask is a picture, and read as all pictures are; asked inside the function",
    ("files", "distributed"): "a lock is taken by the first of several processes; asked inside a function",
    ("model", "samplers"): "Model.sample, asked inside the method; and its types",
    ("model", "runs"): "ScoreModel.save, asked inside the method",
    ("samplers", "evaluation"): "tuning measures a Fréchet distance",
}
"""Imports against the order, each with what it is for."""


def imported(file: Path) -> Iterator[str]:
    """The rooms of psld that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "psld":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("psld."):
            yield (node.module or "").split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("psld."))


def test_every_room_has_a_place():
    rooms = {path.stem for path in SOURCE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert rooms - {"__init__"} == set(LEVEL)


def test_imports_point_up_the_list():
    found = set()
    for file in SOURCE.rglob("*.py"):
        room = file.relative_to(SOURCE).parts[0].removesuffix(".py")
        if room != "__init__":  # psld itself offers names of all rooms
            found |= {(room, other) for other in imported(file) if LEVEL.get(other, -1) > LEVEL[room]}
    assert found == set(UPWARDS)


# -- types -------------------------------------------------------------------------------------------------------------

NOT_YET = {"cli"}
"""Rooms where a parameter may still be without a type."""


def untyped(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            taken = node.args
            parameters = [*taken.posonlyargs, *taken.args, *taken.kwonlyargs, taken.vararg, taken.kwarg]
            for parameter in parameters:
                if parameter is not None and parameter.annotation is None and parameter.arg not in ("self", "cls"):
                    yield f"{file.relative_to(SOURCE)}:{node.lineno} {node.name}({parameter.arg})"


def test_every_parameter_has_a_type():
    rooms = set(LEVEL) - NOT_YET
    files = [file for room in rooms for file in (*SOURCE.glob(f"{room}.py"), *(SOURCE / room).rglob("*.py"))]
    assert len(files) > 130
    assert [parameter for file in files for parameter in untyped(file)] == []
