"""Interrupted runs, really interrupted: a resumed run must give the same bits as one that was not."""

import csv
import os
import random
import shutil
import signal
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from psld.training import latest_checkpoint
from psld.training.checkpoint import Checkpoint
from psld.training.reading import read_checkpoint
from training import small_run as script
from training.small_run import STEPS, launched, small_network, small_run

LOGGED = ("step", "images", "loss", "gradient_norm", "learning_rate")


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory) -> Path:
    """The folder of a run."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    small_run(run)
    return run


@pytest.fixture(scope="module")
def uninterrupted(whole_run) -> Checkpoint:
    return read_checkpoint(latest_checkpoint(whole_run))


def require_same(got: Checkpoint, want: Checkpoint) -> None:
    assert got.step == want.step
    for tensors, others in ((got.weights, want.weights), (got.averages, want.averages)):
        assert tensors.keys() == others.keys()
        assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []
    assert torch.equal(got.state["random"]["cpu"], want.state["random"]["cpu"])


def started(run: Path, *options: str) -> subprocess.Popen:
    """The script, after its first checkpoint."""
    process = launched(run, *options)
    deadline = time.monotonic() + 60
    while not list(run.glob("checkpoints/step-*")):
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    return process


def rows_of(run: Path) -> list[tuple[str, ...]]:
    """metrics.csv without the columns that measure time."""
    with (run / "metrics.csv").open(newline="") as file:
        return [tuple(row[name] for name in LOGGED) for row in csv.DictReader(file)]


@pytest.mark.parametrize(("log_every", "checkpoint_every"), [(5, 4), (7, 3), (100, 9)])
def test_the_log_of_a_run_in_pieces_is_that_of_one_piece(tmp_path, log_every, checkpoint_every):
    """Stopped at time limits, killed after a row that no checkpoint knows, and extended: row by row, digit by digit."""
    trained = partial(small_run, log_every=log_every, checkpoint_every=checkpoint_every, keep_checkpoints=9)
    trained(tmp_path / "whole", steps=23)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trained(parts, steps=23, max_seconds=1e-9)  # stops after one step
    for steps in (4, 12):
        trained(parts, steps=steps, resume=True)
    trained(parts, steps=16, resume=True)
    shutil.rmtree(latest_checkpoint(parts))  # as if it had been killed before this checkpoint, and after its row
    trained(parts, steps=23, resume=True)
    assert rows_of(parts) == rows_of(whole)
    assert len(rows_of(whole)) == 23 // log_every + (23 % log_every > 0)


def test_two_uninterrupted_runs_agree(uninterrupted, tmp_path):
    require_same(read_checkpoint(small_run(tmp_path / "again")), uninterrupted)


def test_killed_at_a_random_moment(uninterrupted, whole_run, tmp_path):
    run = tmp_path / "killed"
    process = started(run, "--pause", "0.02")
    time.sleep(random.uniform(0.0, 0.5))
    process.kill()
    assert process.wait() == -signal.SIGKILL
    killed_at = read_checkpoint(latest_checkpoint(run)).step
    assert 0 < killed_at < STEPS
    require_same(read_checkpoint(small_run(run, resume=True)), uninterrupted)
    assert list(run.rglob(".partial-*")) == []
    assert rows_of(run) == rows_of(whole_run)


def test_sigterm_leaves_a_checkpoint_of_the_last_step_and_exit_code_143(uninterrupted, whole_run, tmp_path):
    run = tmp_path / "stopped"
    process = started(run, "--pause", "0.05", "--checkpoint_every", "3")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 143
    assert 3 <= read_checkpoint(latest_checkpoint(run)).step < STEPS
    require_same(read_checkpoint(small_run(run, resume=True)), uninterrupted)
    assert rows_of(run) == rows_of(whole_run)


def test_sigint_is_130_and_handlers_are_restored(tmp_path):
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)

    def interrupts_itself(model, x0, t, generator):
        if model.network.training and torch.is_grad_enabled():
            os.kill(os.getpid(), signal.SIGINT)
        return script.noise_error(model, x0, t, generator)

    with pytest.raises(SystemExit) as stopped:
        small_run(tmp_path / "run", interrupts_itself)
    assert stopped.value.code == 130
    assert latest_checkpoint(tmp_path / "run").name == "step-00000001"
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_workers_change_nothing(uninterrupted, tmp_path):
    require_same(read_checkpoint(small_run(tmp_path / "workers", num_workers=1)), uninterrupted)


def test_time_limit_counts_as_done_and_stays_done(tmp_path):
    checkpoint = small_run(tmp_path / "run", max_seconds=1e-9)
    assert checkpoint.name == "step-00000001"
    assert small_run(tmp_path / "run", max_seconds=1e-9, resume=True) == checkpoint
    assert small_run(tmp_path / "run", steps=3, resume=True).name == "step-00000003"


def test_a_finished_run_resumes_to_itself_with_its_weights(tmp_path):
    checkpoint = small_run(tmp_path / "run", steps=2)
    network = small_network()
    assert small_run(tmp_path / "run", steps=2, resume=True, network=network) == checkpoint
    weights = read_checkpoint(checkpoint).weights
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_resuming_otherwise_is_refused(tmp_path):
    small_run(tmp_path / "run", steps=2)
    with pytest.raises(ValueError, match="started with seed=3, not 4"):
        small_run(tmp_path / "run", resume=True, seed=4)
    with pytest.raises(ValueError, match="started with batch_size=16, not 8"):
        small_run(tmp_path / "run", resume=True, batch_size=8)
    with pytest.raises(ValueError, match="started with accumulate=1, not 2"):
        small_run(tmp_path / "run", resume=True, accumulate=2)
    with pytest.raises(ValueError, match="started with images=360, not 100"):
        small_run(tmp_path / "run", resume=True, data=[torch.zeros(1, 8, 8)] * 100)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_resume_to_the_bit(tmp_path, strategy):
    for run, steps, options in (("whole", "9", ()), ("parts", "5", ()), ("parts", "9", ("--resume",))):
        process = launched(tmp_path / run, "--devices", "2", "--strategy", strategy, "--steps", steps, *options)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    whole, parts = (read_checkpoint(latest_checkpoint(tmp_path / run)) for run in ("whole", "parts"))
    require_same(parts, whole)
    assert not torch.equal(*whole.state["random"]["cpu"])  # two ranks, two dropout masks


@pytest.mark.slow
def test_sigterm_to_one_of_two_processes_stops_both_with_a_checkpoint(tmp_path):
    two = ("--devices", "2", "--steps", "30", "--checkpoint_every", "9")
    process = started(tmp_path / "stopped", *two, "--pause", "0.1")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143
    assert 9 <= read_checkpoint(latest_checkpoint(tmp_path / "stopped")).step < 30
    for run, options in (("stopped", ("--resume",)), ("whole", ())):
        process = launched(tmp_path / run, *two, *options)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    stopped, whole = (read_checkpoint(latest_checkpoint(tmp_path / run)) for run in ("stopped", "whole"))
    require_same(stopped, whole)
