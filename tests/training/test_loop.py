"""What a run refuses, what it survives, and what it leaves on the disk."""

import csv
import errno
import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn

from psld.specs import Specified, arguments
from psld.training import TrainingDiverged, latest_checkpoint, load_weights, writing
from psld.training.reading import read_checkpoint
from training.small_run import noise_error, small_network, small_run


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Spoiled:
    """The loss, with NaN or an exception at one call; the first call is the rehearsal."""

    def __init__(self, call: int, error: BaseException | None = None):
        self.calls, self.call, self.error = -1, call, error

    def __call__(self, model, x0, t, generator):
        self.calls += 1
        losses = noise_error(model, x0, t, generator)
        if self.calls == self.call and self.error is not None:
            raise self.error
        return losses * float("nan") if self.calls == self.call else losses


def test_a_run_learns_logs_and_keeps_two_checkpoints(tmp_path):
    network = small_network()
    last = small_run(tmp_path / "run", network=network, steps=60)
    assert [folder.name for folder in sorted((tmp_path / "run/checkpoints").iterdir())] == [
        "step-00000056",
        "step-00000060",
    ]
    assert yaml.safe_load((last / "config.yaml").read_text())["training"]["steps"] == 60
    rows = list(csv.DictReader((tmp_path / "run/metrics.csv").open()))
    assert [int(row["step"]) for row in rows] == list(range(5, 61, 5))
    assert [int(row["images"]) for row in rows] == list(range(80, 961, 80))  # 16 a step
    assert float(rows[0]["loss"]) > 0.9  # the untrained network predicts zero, and E ε² = 1
    assert float(rows[-1]["loss"]) < 0.7
    assert float(rows[0]["learning_rate"]) == pytest.approx(0.5e-2)  # warm-up over 10 steps
    assert float(rows[-1]["learning_rate"]) == pytest.approx(1e-2)
    assert all(torch.equal(t, network.state_dict()[n]) for n, t in read_checkpoint(last).weights.items())


def test_averages_are_those_of_the_weights_along_the_way(tmp_path):
    small_run(tmp_path / "run", steps=3, checkpoint_every=1, keep_checkpoints=3)
    folders = [tmp_path / f"run/checkpoints/step-0000000{n}" for n in (1, 2, 3)]
    average = small_network().state_dict()["conv_out.weight"]
    for n, folder in enumerate(folders, start=1):
        decay = (1 + n) / (10 + n)
        average = decay * average + (1 - decay) * read_checkpoint(folder).weights["conv_out.weight"]
        torch.testing.assert_close(read_checkpoint(folder).averages["conv_out.weight"], average)
    averaged, online = small_network(), small_network()
    assert load_weights(tmp_path / "run", averaged) == folders[-1]
    load_weights(tmp_path / "run", online, "online")
    torch.testing.assert_close(averaged.state_dict()["conv_out.weight"], average)
    assert not torch.equal(averaged.state_dict()["conv_out.weight"], online.state_dict()["conv_out.weight"])


def test_nan_loss_stops_naming_the_step_and_keeps_the_last_good_checkpoint(tmp_path):
    whole = small_run(tmp_path / "whole", steps=8)
    with pytest.raises(TrainingDiverged, match=r"step 10: loss nan, gradient norm nan.*step-00000008\. Try a lower"):
        small_run(tmp_path / "run", Spoiled(10), log_every=20)
    last = latest_checkpoint(tmp_path / "run")
    assert last.name == "step-00000008"
    assert read_checkpoint(last).weights.keys() == read_checkpoint(whole).weights.keys()
    assert all(torch.equal(t, read_checkpoint(whole).weights[n]) for n, t in read_checkpoint(last).weights.items())


def test_weights_that_overflow_are_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr(arguments, "LARGEST", 1e38)  # no allowed learning rate is so large
    with pytest.raises(TrainingDiverged, match="after step 1 some weights are not finite"):
        small_run(tmp_path / "run", learning_rate=1e37, warmup_steps=0, checkpoint_every=1, network=Amplified())
    assert not list((tmp_path / "run").rglob("model.safetensors"))


class Amplified(Specified, nn.Module):
    """A weight next to the largest float32: the first step overflows it, with loss and gradient still finite."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.4e38))

    def forward(self, z, t):
        return z * (self.weight - self.weight.detach() - 1)


def test_an_existing_folder_is_refused_untouched(tmp_path):
    small_run(tmp_path / "run", steps=2)
    before = contents(tmp_path)
    with pytest.raises(FileExistsError, match=r"latest checkpoint is step-00000002\. Continue it with --resume"):
        small_run(tmp_path / "run")
    with pytest.raises(ValueError, match="give one of them"):
        small_run(tmp_path / "run", resume=True, overwrite=True)
    assert contents(tmp_path) == before
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(b"precious")
    with pytest.raises(FileExistsError, match="is not a training run"):
        small_run(tmp_path / "photos", overwrite=True)


@pytest.mark.parametrize(("error", "call"), [(RuntimeError("broken"), 0), (RuntimeError("broken"), 2), (None, 1)])
def test_a_failed_overwrite_restores_the_old_run(tmp_path, error, call):
    small_run(tmp_path / "run", steps=2)
    before = contents(tmp_path)
    with pytest.raises((RuntimeError, TrainingDiverged, ValueError)):
        small_run(tmp_path / "run", Spoiled(call, error), overwrite=True)
    assert contents(tmp_path) == before


def test_an_overwrite_replaces_the_old_run_once_it_has_a_checkpoint(tmp_path):
    small_run(tmp_path / "run", steps=7)
    with pytest.raises(RuntimeError, match="broken"):
        small_run(tmp_path / "run", Spoiled(6, RuntimeError("broken")), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000004"]


def test_a_kill_during_an_overwrite_is_undone_by_the_next_start(tmp_path):
    last = small_run(tmp_path / "run", steps=2)
    before = contents(tmp_path)
    (tmp_path / "run").rename(tmp_path / ".run.replaced")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "metrics.csv").write_text("step\n")
    assert small_run(tmp_path / "run", steps=2, resume=True) == last
    assert contents(tmp_path) == before


def test_a_full_disk_leaves_earlier_checkpoints_whole(tmp_path, monkeypatch):
    writes = []

    @contextmanager
    def fills_up(path, real=writing.atomic_file):
        writes.append(path)
        with real(path) as file:
            yield file
            if len(writes) == 8:  # the third file of the second checkpoint
                raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "atomic_file", fills_up)
    with pytest.raises(OSError, match="No space left"):
        small_run(tmp_path / "run")
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000004"]
    assert read_checkpoint(latest_checkpoint(tmp_path / "run")).step == 4


def test_too_little_space_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))  # pyright: ignore
    with pytest.raises(OSError, match="0.0 MB free") as full:
        small_run(tmp_path / "run")
    assert full.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_when_parts_do_not_fit(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        small_run(tmp_path / "run", data=[torch.full((1, 8, 8), float("nan"))])
    with pytest.raises(ValueError, match="length 0"):
        small_run(tmp_path / "run", data=[])
    with pytest.raises(ValueError, match=r"takes images of \(8, 8\)"):
        small_run(tmp_path / "run", data=[torch.zeros(1, 4, 4)])
    with pytest.raises(ValueError, match="one number a sample"):
        small_run(tmp_path / "run", lambda *a: noise_error(*a).mean())
    with pytest.raises(FileNotFoundError, match="no checkpoint in"):
        small_run(tmp_path / "run", resume=True)
    assert list(tmp_path.iterdir()) == []
