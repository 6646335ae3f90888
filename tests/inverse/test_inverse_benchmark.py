"""benchmarks/inverse.py --part digits: cells are kept and taken up again, and depend on no batch size."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def inverse(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("inverse_benchmark", FOLDER / "inverse.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_cells_are_kept_one_by_one(inverse, tmp_path, monkeypatch, capsys):
    """Killed in the second cell, and started again with images one at a time instead of all at once."""

    def measured(methods):
        command = ["inverse.py", str(tmp_path), "--part", "digits", "--count", "2", "--nfe", "6"]
        monkeypatch.setattr(sys, "argv", [*command, "--networks", "psld-digits", "--methods", *methods])
        inverse.main()
        return [line for line in capsys.readouterr().out.splitlines() if line.startswith("| psld-digits")]

    build = inverse.FILLING["pigdm"].build

    def killed(model, x):
        raise SystemExit(143)

    monkeypatch.setitem(inverse.FILLING, "pigdm", inverse.FILLING["pigdm"]._replace(build=killed))
    with pytest.raises(SystemExit):
        measured(["replacement", "pigdm"])
    assert capsys.readouterr().out.count("| replacement |") == 1  # what is measured is shown at once
    (kept,) = tmp_path.iterdir()
    whole = json.loads(kept.read_text(encoding="utf-8"))
    assert whole["known"] == 0.0 and whole["nfe"] == 6 and whole["spread"] > 0.1  # replacement returns known pixels
    monkeypatch.setitem(inverse.FILLING, "pigdm", inverse.FILLING["pigdm"]._replace(build=build))
    monkeypatch.setitem(inverse.FILLING, "replacement", inverse.FILLING["replacement"]._replace(build=killed))
    assert ["ΠGDM" in row for row in measured(["replacement", "pigdm"])] == [False, True]
    monkeypatch.undo()
    monkeypatch.setattr(inverse, "TOGETHER", 1)
    apart = inverse.digits("psld-digits", "pigdm", 6, 2)
    (other,) = (json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.iterdir() if path != kept)
    for figure in ("frechet", "error", "spread", "known"):
        assert apart[figure] == pytest.approx(other[figure], rel=1e-4)
