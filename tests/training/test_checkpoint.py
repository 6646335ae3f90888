import os

import pytest
import torch
from torch import nn

from psld.training import CheckpointError, latest_checkpoint, load_weights
from psld.training.checkpoint import Checkpoint
from psld.training.reading import read_checkpoint
from psld.training.writing import write_checkpoint


def written(run, step, keep=9):
    weights = {"weight": torch.full((2, 3), float(step)), "bias": torch.zeros(2)}
    averages = {name: tensor / 2 for name, tensor in weights.items()}
    return write_checkpoint(run, Checkpoint(step, weights, averages, {"note": [1, 2.0, "x"]}, "a: 1\n"), keep)


def test_round_trip(tmp_path):
    got = read_checkpoint(written(tmp_path, 3))
    assert (got.step, got.state, got.config_text) == (3, {"note": [1, 2.0, "x"]}, "a: 1\n")
    assert torch.equal(got.weights["weight"], torch.full((2, 3), 3.0))
    assert torch.equal(got.averages["weight"], torch.full((2, 3), 1.5))


def test_channels_last_and_shared_tensors_are_written(tmp_path):
    weight = torch.randn(4, 3, 2, 2).to(memory_format=torch.channels_last)
    state = {"a": weight, "b": weight}
    got = read_checkpoint(write_checkpoint(tmp_path, Checkpoint(1, state, state, {}), 1))
    assert torch.equal(got.weights["a"], weight)


def test_pruning_leftovers_and_numeric_order(tmp_path):
    (tmp_path / "checkpoints/.partial-step-00000001").mkdir(parents=True)
    for step in (5, 99_999_999, 100_000_000):
        written(tmp_path, step, keep=2)
    assert sorted(os.listdir(tmp_path / "checkpoints")) == ["step-100000000", "step-99999999"]
    assert latest_checkpoint(tmp_path).name == "step-100000000"


def test_latest_of_run_checkpoint_and_export(tmp_path):
    folder = written(tmp_path / "run", 7)
    assert (
        latest_checkpoint(tmp_path / "run") == latest_checkpoint(folder) == latest_checkpoint(folder.parent) == folder
    )
    with pytest.raises(FileNotFoundError) as missing:
        latest_checkpoint(tmp_path / "cifar")
    assert str(missing.value) == (
        f"no checkpoint in {tmp_path}/cifar (looked for model.safetensors and model_ema.safetensors). "
        f"Runs with one: {tmp_path}/run."
    )


def test_load_weights(tmp_path):
    network = nn.Linear(3, 2)
    folder = written(tmp_path, 4)
    assert load_weights(tmp_path, network) == folder
    assert torch.equal(network.weight, torch.full((2, 3), 2.0))
    load_weights(folder, network, "online")
    assert torch.equal(network.weight, torch.full((2, 3), 4.0))
    with pytest.raises(CheckpointError, match=r"another network: 1 of 2 tensors differ. First: weight is \(2, 3\)"):
        load_weights(tmp_path, nn.Linear(4, 2))
    with pytest.raises(ValueError, match="'ema' or 'online': got 'raw'"):
        load_weights(tmp_path, network, "raw")  # pyright: ignore[reportArgumentType]
    (folder / "model_ema.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="use weights='online'"):
        load_weights(tmp_path, network)


@pytest.mark.parametrize("name", ["model.safetensors", "model_ema.safetensors", "state.pt"])
@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
def test_truncated_files_are_refused_naming_what_is_usable(tmp_path, name, kept):
    for step in (1, 2, 3):
        written(tmp_path, step)
    for step in (2, 3):
        file = tmp_path / f"checkpoints/step-0000000{step}" / name
        file.write_bytes(file.read_bytes()[: int(kept * file.stat().st_size)])
    with pytest.raises(CheckpointError, match=rf"step-00000003/{name}.*The older .*step-00000001 is whole: delete"):
        read_checkpoint(latest_checkpoint(tmp_path))


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_code_in_the_state_is_refused_and_not_run(tmp_path):
    folder = written(tmp_path, 1)
    torch.save({"step": 1, "bad": Attack(tmp_path / "owned")}, folder / "state.pt")
    with pytest.raises(CheckpointError, match="state.pt has changed since it was written"):
        read_checkpoint(folder)
    (folder / "SHA256SUMS").unlink()  # as in a folder from elsewhere
    with pytest.raises(CheckpointError, match="state.pt was not loaded: it is corrupt, or .* could run code.*no older"):
        read_checkpoint(folder)
    assert not (tmp_path / "owned").exists()
