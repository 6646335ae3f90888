"""Files that changed after they were written: every change is refused, whichever file it is in."""

import random
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from torch import nn

from psld.training import CheckpointError, load_weights
from psld.training.checkpoint import Checkpoint
from psld.training.reading import read_checkpoint, read_slices
from psld.training.writing import write_checkpoint, write_slices

FILES = ["model.safetensors", "model_ema.safetensors", "state.pt", "config.yaml", "SHA256SUMS"]


def checkpoint(step: int) -> Checkpoint:
    draw = torch.Generator().manual_seed(step)
    weights = {"weight": torch.randn(2, 3, generator=draw), "bias": torch.randn(2, generator=draw)}
    averages = {name: tensor / 2 for name, tensor in weights.items()}
    moments = {index: {"exp_avg": torch.randn(3, generator=draw)} for index in range(2)}
    state = {"optimizer": {"state": moments, "param_groups": []}, "random": {"cpu": torch.get_rng_state()}}
    return Checkpoint(step, weights, averages, state, "process: {class_path: psld.VPSDE}\nseed: 3\n")


@pytest.fixture
def run(tmp_path) -> Path:
    for step in (1, 2):
        write_checkpoint(tmp_path, checkpoint(step), keep=9)
    return tmp_path


def sliced(run: Path) -> Path:
    """The same, written by two processes one after the other."""
    folder = run / "checkpoints/step-00000002"
    # the first process joins what both wrote, so it is made to wait for the second
    second = []

    def after_the_first_part(problem: str) -> str:
        if (folder.parent / f".partial-{folder.name}/state.pt").is_file() and not second:
            second.append(write_slices(run, checkpoint(2), 9, 1, 2, lambda problem: problem))
        return problem

    assert write_slices(run, checkpoint(2), 9, 0, 2, after_the_first_part) == folder
    return folder


def flipped(file: Path, draw: random.Random) -> bytes:
    """Flips a random bit; returns the content before."""
    content = file.read_bytes()
    bit = draw.randrange(8 * len(content))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    file.write_bytes(changed)
    return content


@pytest.mark.parametrize("name", FILES)
def test_no_flipped_bit_is_read(run, name):
    file, draw = run / "checkpoints/step-00000002" / name, random.Random(name)
    for _ in range(40):
        before = flipped(file, draw)
        with pytest.raises(CheckpointError, match=r"The older .*step-00000001 is whole: delete .*step-00000002") as no:
            read_checkpoint(file.parent)
        assert name in str(no.value)
        file.write_bytes(before)
    assert read_checkpoint(file.parent).step == 2


@pytest.mark.parametrize(("name", "weights"), [(FILES[0], "online"), (FILES[1], "ema"), ("config.yaml", "ema")])
def test_no_flipped_bit_is_loaded_into_a_network(run, name, weights):
    file, draw, network = run / "checkpoints/step-00000002" / name, random.Random(name), nn.Linear(3, 2)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    for _ in range(40):
        content = flipped(file, draw)
        with pytest.raises(CheckpointError, match=f"{name} has changed since it was written: its SHA-256 is "):
            load_weights(run, network, weights)
        file.write_bytes(content)
    assert all(torch.equal(before[key], tensor) for key, tensor in network.state_dict().items())


def test_no_flipped_bit_of_a_slice_is_read(run):
    folder, draw = sliced(run), random.Random(0)
    files = sorted(path for path in folder.iterdir())
    assert len(files) == 2 * 3 + 3
    for file in files:
        for _ in range(10):
            before = flipped(file, draw)
            with pytest.raises(CheckpointError, match="step-00000001 is whole"):
                read_checkpoint(folder)
            if file.name.startswith(("model-00002", "model_ema-00002", "optimizer-00002", "state", "config")):
                with pytest.raises(CheckpointError, match=f"{file.name} has changed since"):
                    read_slices(folder, 1, 2)
            file.write_bytes(before)
    assert read_slices(folder, 0, 2) is not None


@pytest.mark.parametrize("name", FILES[:-1])
def test_a_file_that_is_gone_is_missed(run, name):
    file = run / "checkpoints/step-00000002" / name
    file.unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        read_checkpoint(file.parent)


def test_a_file_that_is_not_listed_is_refused(run):
    sums = run / "checkpoints/step-00000002/SHA256SUMS"
    sums.write_text("".join(line for line in sums.read_text().splitlines(True) if "state.pt" not in line))
    with pytest.raises(CheckpointError, match="state.pt is not listed in SHA256SUMS"):
        read_checkpoint(sums.parent)


def test_older_folders_have_no_hashes_and_are_read_with_a_word(run):
    folder = run / "checkpoints/step-00000002"
    (folder / "SHA256SUMS").unlink()
    with pytest.warns(UserWarning, match="step-00000002 has no SHA256SUMS, so it cannot be seen whether"):
        assert read_checkpoint(folder).step == 2
    load_weights(folder, nn.Linear(3, 2))
    assert load_weights(shutil.copytree(folder, run / "by_hand"), nn.Linear(3, 2)).name == "by_hand"


def test_weights_alone_are_loaded_without_the_state(run):
    folder = run / "checkpoints/step-00000002"
    (folder / "state.pt").unlink()
    (folder / "model.safetensors").unlink()
    network = nn.Linear(3, 2)
    load_weights(folder, network)
    assert torch.equal(network.weight, checkpoint(2).averages["weight"])


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum on this system")
def test_the_hashes_are_those_of_sha256sum(run):
    for folder in (run / "checkpoints/step-00000001", sliced(run)):
        checked = subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=folder, capture_output=True)
        assert checked.returncode == 0, checked.stderr
        listed = {line.split(b": ")[0].decode() for line in checked.stdout.splitlines()}
        assert listed == {path.name for path in folder.iterdir()} - {"SHA256SUMS"}


@pytest.mark.parametrize("dtype", [torch.int64, torch.float16, torch.float64])
def test_weights_of_another_type_are_of_another_network(tmp_path, dtype):
    tensors = {"weight": torch.ones(2, 3, dtype=dtype), "bias": torch.ones(2)}
    write_checkpoint(tmp_path, Checkpoint(1, tensors, tensors, {}), keep=1)
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(
        CheckpointError, match=rf"1 of 2 tensors differ. First: weight is \(2, 3\) {kind} in the file, .* float32 here"
    ):
        load_weights(tmp_path, nn.Linear(3, 2))
