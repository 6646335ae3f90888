"""Training under float16 autocast: the loss is scaled, and a step whose gradients overflow is skipped."""

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from psld.training import TrainingDiverged, latest_checkpoint
from psld.training.checkpoint import Checkpoint
from psld.training.reading import read_checkpoint
from training import small_run as script
from training.small_run import TwoConvolutions, launched, noise_error

SCALE = 2.0**16  # torch's first
HALF: dict[str, Any] = dict(precision="16-mixed", keep_checkpoints=99)


def small_run(run: Path, loss=noise_error, dropout: float = 0.1, **options) -> Path:
    return script.small_run(run, loss, options.pop("network", None) or TwoConvolutions(dropout), **options)


class Overflowing:
    """The loss, a million times over at some steps, so that float16 overflows where it is scaled."""

    def __init__(self, *steps: int, first: int = 0):
        self.steps, self.step = steps, first - 1  # the first call is the rehearsal

    def __call__(self, model, x0: Tensor, t: Tensor, generator) -> Tensor:
        self.step += 1
        return noise_error(model, x0, t, generator) * (1e6 if self.step in self.steps else 1.0)


def at(run: Path, step: int) -> Checkpoint:
    return read_checkpoint(run / f"checkpoints/step-{step:08d}")


def require_same(got: Checkpoint, want: Checkpoint) -> None:
    moments = [checkpoint.state["optimizer"]["state"] for checkpoint in (got, want)]
    assert moments[0].keys() == moments[1].keys()
    pairs = [(got.weights, want.weights), (got.averages, want.averages)]
    for tensors, others in (*pairs, *((entries, moments[1][index]) for index, entries in moments[0].items())):
        assert [name for name in others if not torch.equal(tensors[name], others[name])] == []
    assert got.state["scaler"] == want.state["scaler"]


@pytest.mark.parametrize(("precision", "wanted"), [("16-mixed", torch.float16), ("bf16-mixed", torch.bfloat16)])
def test_the_network_computes_in_16_bits_and_is_told_times_and_states_as_they_are(tmp_path, precision, wanted):
    """A preconditioned network passes a part of its state through: rounded, that would be its error at small σ."""
    network, seen = TwoConvolutions(), []
    network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    network.second.register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    small_run(tmp_path / "run", network=network, steps=2, **HALF | {"precision": precision})
    assert all(dtype == wanted for dtype in seen[1::2])
    assert {tensor.dtype for inputs in seen[::2] for tensor in inputs} == {torch.float32}


def test_float16_learns_what_float32_learns(tmp_path):
    rows = []
    for precision in ("32-true", "16-mixed"):
        small_run(tmp_path / precision, dropout=0.0, steps=40, precision=precision)
        with (tmp_path / precision / "metrics.csv").open() as file:
            rows.append([(float(row["loss"]), float(row["gradient_norm"])) for row in csv.DictReader(file)])
    torch.testing.assert_close(torch.tensor(rows[1]), torch.tensor(rows[0]), rtol=0.02, atol=0.02)  # norms unscaled


def test_a_step_that_overflows_is_skipped_and_counts_as_one(tmp_path):
    run = tmp_path / "run"
    small_run(run, Overflowing(4), steps=6, checkpoint_every=1, log_every=3, **HALF)
    before, skipped, after = at(run, 3), at(run, 4), at(run, 5)
    assert [checkpoint.state["scaler"]["scale"] for checkpoint in (before, skipped, after)] == [
        SCALE,
        SCALE / 2,
        SCALE / 2,
    ]
    for name, weight in before.weights.items():
        assert torch.equal(skipped.weights[name], weight)
        average = torch.lerp(before.averages[name], weight, 1 - 5 / 14)  # min(0.9, (1 + n) / (10 + n)), n = 4
        torch.testing.assert_close(skipped.averages[name], average)
    assert not torch.equal(after.weights["first.weight"], before.weights["first.weight"])
    counts = [int(checkpoint.state["optimizer"]["state"][0]["step"]) for checkpoint in (before, skipped, after)]
    assert counts == [3, 3, 4]
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["images"] for row in rows] == ["48", "96"]
    assert all(0 < float(row["gradient_norm"]) < 100 for row in rows)  # means of those that were taken


@pytest.mark.parametrize("skipped", [2, 4])
def test_resumes_to_the_bit_with_its_scale(tmp_path, skipped):
    small_run(tmp_path / "whole", Overflowing(skipped), steps=8, **HALF)
    small_run(tmp_path / "parts", Overflowing(skipped), steps=4, **HALF)
    small_run(tmp_path / "parts", Overflowing(first=4), steps=8, resume=True, **HALF)
    whole, parts = (at(tmp_path / run, 8) for run in ("whole", "parts"))
    assert whole.state["scaler"]["scale"] == SCALE / 2
    require_same(parts, whole)


def test_a_run_goes_on_in_another_precision(tmp_path):
    for precision in ("32-true", "16-mixed", "bf16-mixed"):
        steps = 2 + len(list(tmp_path.rglob("step-*")))
        small_run(tmp_path / "run", steps=steps, resume=steps > 2, precision=precision, keep_checkpoints=99)
    assert [("scaler" in at(tmp_path / "run", step).state) for step in (2, 3, 4)] == [False, True, False]


def test_gradients_that_no_scale_makes_finite_end_the_run(tmp_path):
    def bent(model, x0, t, generator):
        losses = noise_error(model, x0, t, generator)
        return losses + 0 * (losses - losses).sqrt()  # finite, with a derivative that is not

    with pytest.raises(TrainingDiverged, match="step 17: loss [01].*gradient norm nan.*or precision 32-true"):
        small_run(tmp_path / "run", bent, steps=40, checkpoint_every=4, **HALF)  # 2¹⁶ is halved 16 times
    assert latest_checkpoint(tmp_path / "run").name == "step-00000016"


def test_a_loss_that_is_not_finite_ends_the_run_at_once(tmp_path):
    def spoiled(model, x0, t, generator):
        losses = noise_error(model, x0, t, generator)
        return losses * float("inf") if torch.is_grad_enabled() else losses

    with pytest.raises(TrainingDiverged, match="step 1: loss inf"):
        small_run(tmp_path / "run", spoiled, **HALF)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_skip_the_same_steps(tmp_path, strategy):
    """Only one of them overflows."""
    process = launched(tmp_path, strategy, script=__file__)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    got, want = at(tmp_path / "two", 6), at(tmp_path / "without", 6)
    assert (got.state["scaler"]["scale"], want.state["scaler"]["scale"]) == (SCALE / 2, SCALE)
    assert [int(checkpoint.state["optimizer"]["state"][0]["step"]) for checkpoint in (got, want)] == [5, 6]
    before, after = at(tmp_path / "two", 3), at(tmp_path / "two", 4)
    assert all(torch.equal(after.weights[name], weight) for name, weight in before.weights.items())


def main(folder: Path, strategy: str) -> None:
    import os

    options: dict[str, Any] = dict(steps=6, checkpoint_every=1, devices=2, strategy=strategy, **HALF)
    overflowing = (4,) if os.environ.get("LOCAL_RANK") == "1" else ()
    small_run(folder / "two", Overflowing(*overflowing), **options)
    small_run(folder / "without", Overflowing(), **options)


if __name__ == "__main__":
    import sys

    main(Path(sys.argv[1]), sys.argv[2])
