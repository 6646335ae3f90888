"""`psld demo` is bounded in steps, and says by its exit code whether the network has learned."""

import json

import pytest
import torch

from ending import exit_code
from psld.cli import main
from psld.jobs import demonstrating
from psld.jobs.demonstrating import has_learned


def test_a_demo_of_two_steps_says_that_it_has_not_learned(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demonstrating, "SAMPLES", 100)
    threads = torch.get_num_threads()
    assert main(["demo", "--steps", "2", "--run", str(tmp_path / "run")]) == 1
    said = capsys.readouterr()
    assert "2 steps were too few" in said.err and "psld demo --steps 1300" in said.err
    assert "Look at" not in said.out
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert min(row["Fréchet distance"] for row in report["samplers"].values()) > 10
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("times, learned", [((0.5, 45.0), True), ((3.0, 5.0), True), ((3.1, float("inf")), False)])
def test_one_sampler_near_the_floor_is_enough(times, learned):
    rows = {str(number): {"times the floor, of as many samples": times} for number, times in enumerate(times)}
    assert has_learned({"samplers": rows}) is learned


@pytest.mark.parametrize("steps", ["0", "-5", "1.5", "nan"])
def test_steps_that_are_no_number_of_steps_are_refused(steps, tmp_path):
    try:
        assert exit_code(["demo", "--steps", steps, "--run", str(tmp_path / "run")]) != 0
    except SystemExit as stop:
        assert stop.code
    assert not (tmp_path / "run").exists()
