"""Checkpoints in slices: what every process writes makes up what the first one would have gathered, to the bit."""

import shutil
import signal
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from psld.training import CheckpointError, latest_checkpoint, load_weights
from psld.training.checkpoint import Checkpoint, has_checkpoint
from psld.training.reading import read_checkpoint, read_slices
from psld.training.writing import write_slices
from training import sliced_runs
from training.small_run import launched, small_network, small_run

NAMES = ("model", "model_ema", "optimizer")


def trained(folder: Path, devices: int) -> Path:
    process = launched(folder, str(devices), script=sliced_runs.__file__)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> Path:
    return trained(tmp_path_factory.mktemp("two"), 2)


def require_same(got: Checkpoint, want: Checkpoint) -> None:
    assert (got.step, got.sliced, got.state["repeats"]) == (want.step, False, want.state["repeats"])
    moments = [
        {
            f"{index}.{name}": tensor
            for index, entries in checkpoint.state["optimizer"]["state"].items()
            for name, tensor in entries.items()
        }
        for checkpoint in (got, want)
    ]
    random = [checkpoint.state["random"] for checkpoint in (got, want)]
    for tensors, others in ((got.weights, want.weights), (got.averages, want.averages), moments, random):
        assert tensors.keys() == others.keys()
        assert [name for name in tensors if not torch.equal(tensors[name], others[name])] == []


def test_slices_are_the_whole_to_the_bit_and_so_is_a_resumed_run(two):
    whole, slices, parts = (read_checkpoint(latest_checkpoint(two / run)) for run in ("whole", "slices", "parts"))
    assert whole.step == sliced_runs.STEPS
    assert not torch.equal(*whole.state["random"]["cpu"])  # two dropout masks
    require_same(slices, whole)
    require_same(parts, whole)


def test_a_process_writes_and_reads_its_own_half(two):
    folder = latest_checkpoint(two / "slices")
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"{name}-0000{n}-of-00002.safetensors" for name in NAMES for n in (1, 2)]
        + ["state.pt", "config.yaml", "SHA256SUMS"]
    )
    halves = [read_slices(folder, rank, 2) for rank in range(2)]
    shapes = [{name: tuple(t.shape) for name, t in half.weights.items()} for half in halves if half is not None]
    assert [half["conv_in.weight"] for half in shapes] == [(4, 1, 3, 3), (4, 1, 3, 3)]
    assert [half["conv_out.weight"] for half in shapes] == [(1, 8, 3, 3), (0, 8, 3, 3)]
    numbers = sum(tensor.numel() for tensor in small_network(levels=2).parameters())
    held = [sum(t.numel() for t in half.weights.values()) for half in halves if half is not None]
    assert sum(held) == numbers  # and no buffers: nothing is written twice
    assert max(held) < 0.51 * numbers
    with safe_open(folder / "model-00002-of-00002.safetensors", framework="pt") as file:
        assert file.metadata()["layout"] == "slices along dimension 0, one file a process"
    assert read_slices(latest_checkpoint(two / "whole"), 0, 2) is None


@pytest.mark.parametrize("weights", ["ema", "online"])
def test_one_process_loads_the_weights(two, weights):
    networks = [small_network(levels=2), small_network(levels=2)]
    for network, run in zip(networks, ("slices", "whole"), strict=True):
        load_weights(two / run, network, weights)
    got, want = (network.state_dict() for network in networks)
    assert all(torch.equal(got[name], want[name]) for name in want)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("number", [1, 2])
def test_a_slice_that_is_gone_or_cut_off_is_named_by_every_process(two, tmp_path, name, number):
    run = shutil.copytree(two / "slices", tmp_path / "run")
    folder, file = latest_checkpoint(run), f"{name}-0000{number}-of-00002.safetensors"
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[:-1])
    with pytest.raises(CheckpointError, match=rf"step-00000006/{file} has changed since it was written"):
        read_checkpoint(folder)
    (folder / file).unlink()
    readers = [read_checkpoint, *(partial(read_slices, rank=rank, ranks=2) for rank in range(2))]
    for read in readers:
        with pytest.raises(CheckpointError, match=rf"{file} is missing.*older .*step-00000003 is whole: delete"):
            read(latest_checkpoint(run))
    if name == "model_ema":
        with pytest.raises(CheckpointError, match=f"{file} is missing"):
            load_weights(run, small_network(levels=2))


def test_slices_of_two_checkpoints_are_refused(two, tmp_path):
    run = shutil.copytree(two / "slices", tmp_path / "run")
    file = "model-00002-of-00002.safetensors"
    shutil.copy(run / "checkpoints/step-00000003" / file, run / "checkpoints/step-00000006" / file)
    with pytest.raises(CheckpointError, match=rf"{file} has changed since it was written"):
        load_weights(run, small_network(levels=2), "online")
    (run / "checkpoints/step-00000006/SHA256SUMS").unlink()
    with pytest.raises(CheckpointError, match=rf"{file} and .* are not slices of one checkpoint"):
        load_weights(run, small_network(levels=2), "online")


def test_another_number_of_processes_is_refused_before_anything_is_read(two, tmp_path):
    run = shutil.copytree(two / "slices", tmp_path / "run")
    for file in run.rglob("*.safetensors"):
        file.write_bytes(b"")
    with pytest.raises(ValueError, match=r"started with devices=2, not 3: resume with that"):
        read_slices(latest_checkpoint(run), 0, 3)


def test_one_process_does_not_resume_what_two_began(two, tmp_path):
    run = shutil.copytree(two / "slices", tmp_path / "run")
    with pytest.raises(ValueError, match="started with devices=2, not 1"):
        small_run(run, network=small_network(levels=2), steps=9, batch_size=12, resume=True)


def written_by_threads(run: Path, step: int, failing: int | None = None) -> list[BaseException | None]:
    """Two threads for two processes, the errors of both; one of them may find its disk full."""
    barrier, problems = threading.Barrier(2, timeout=20), ["", ""]
    errors: list[BaseException | None] = [None, None]

    def first_problem(rank: int, problem: str) -> str:
        problems[rank] = problem
        barrier.wait()
        found = next(filter(None, problems), "")
        barrier.wait()
        return found

    def write(rank: int) -> None:
        weights = {"weight": torch.full((2,), float(step))}
        if rank == failing:
            weights["too large"] = torch.empty(1, dtype=torch.int8).expand(2**60)  # no memory, and no disk has room
        optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": []}
        checkpoint = Checkpoint(step, weights, weights, {"optimizer": optimizer}, sliced=True)
        try:
            write_slices(run, checkpoint, 2, rank, 2, partial(first_problem, rank))
        except OSError as error:
            errors[rank] = error

    threads = [threading.Thread(target=write, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@pytest.mark.parametrize("failing", [0, 1])
def test_a_full_disk_of_one_process_stops_all_and_leaves_earlier_checkpoints(tmp_path, failing):
    assert written_by_threads(tmp_path, 1) == [None, None]
    errors = written_by_threads(tmp_path, 2, failing)
    assert "free some space, or choose a folder on another disk" in str(errors[failing])
    assert "could not write its part of a checkpoint: a checkpoint cannot be written" in str(errors[1 - failing])
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]
    assert read_checkpoint(latest_checkpoint(tmp_path)).step == 1


def test_what_a_killed_write_leaves_is_no_checkpoint_and_is_removed_by_the_next(tmp_path):
    left = tmp_path / "checkpoints/.partial-step-00000001"
    left.mkdir(parents=True)
    (left / "model-00001-of-00002.safetensors").write_bytes(b"half")
    assert not has_checkpoint(tmp_path)
    for step in (1, 2, 3):
        written_by_threads(tmp_path, step)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.slow
def test_sizes_that_do_not_divide_among_three(tmp_path):
    """Eight channels are cut into 3, 3 and 2, and one into 1, 0 and 0."""
    folder = trained(tmp_path, 3)
    whole, slices, parts = (read_checkpoint(latest_checkpoint(folder / run)) for run in ("whole", "slices", "parts"))
    require_same(slices, whole)
    require_same(parts, whole)
    thirds = [read_slices(latest_checkpoint(folder / "slices"), rank, 3) for rank in range(3)]
    assert [len(third.weights["conv_in.bias"]) for third in thirds if third is not None] == [3, 3, 2]


@pytest.mark.slow
def test_one_process_writes_one_slice(tmp_path):
    for kind in ("whole", "sharded"):
        process = launched(tmp_path / kind, "--strategy", "fsdp", "--checkpoints", kind, "--steps", "5")
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    whole, slices = (latest_checkpoint(tmp_path / kind) for kind in ("whole", "sharded"))
    assert (slices / "model-00001-of-00001.safetensors").is_file()
    require_same(read_checkpoint(slices), read_checkpoint(whole))


@pytest.mark.slow
def test_two_processes_killed_at_a_random_moment_resume_to_the_bit(tmp_path):
    two = ("--devices", "2", "--strategy", "fsdp", "--checkpoints", "sharded", "--steps", "20")
    process = launched(tmp_path / "killed", *two, "--pause", "0.02", "--checkpoint_every", "1")
    while not has_checkpoint(tmp_path / "killed"):
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.005)
    time.sleep(torch.rand(()).item())
    process.kill()
    assert process.wait() == -signal.SIGKILL
    time.sleep(5)  # the other process notices
    for run, options in (("killed", ("--resume",)), ("whole", ())):
        process = launched(tmp_path / run, *two, *options)
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    require_same(*(read_checkpoint(latest_checkpoint(tmp_path / run)) for run in ("killed", "whole")))
