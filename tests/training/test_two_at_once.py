"""Two runs in one folder: the second is refused whatever it asks for, and the first does not notice."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from psld.cli import main
from psld.files import FolderInUseError, locked
from psld.pretrained.presets import published_config
from psld.training import latest_checkpoint
from psld.training.reading import read_checkpoint
from training.small_run import STEPS, launched, small_run


@pytest.fixture
def live(tmp_path):
    """A run in its midst, halted so that it does not end before the test does; its worker inherits what it holds."""
    process = launched(tmp_path / "run", "--pause", "0.02", "--num_workers", "1")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("run/checkpoints/step-*")):
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGSTOP)
    yield process
    process.kill()
    process.communicate()


def finished(process: subprocess.Popen, run: Path) -> None:
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    assert read_checkpoint(latest_checkpoint(run)).step == STEPS
    rows = (run / "metrics.csv").read_text().splitlines()
    assert [int(row.split(",")[0]) for row in rows[1:]] == list(range(5, STEPS + 1, 5))
    assert [path.name for path in run.parent.iterdir()] == ["run"]


def test_a_second_run_is_refused_and_the_first_goes_on(live, tmp_path, capsys):
    run = tmp_path / "run"
    owner = f"process {live.pid} on {socket.gethostname()}"
    for resume, overwrite in ((False, True), (True, False), (False, False)):
        with pytest.raises(FolderInUseError, match=f"a training run cannot be written to {run}: {owner} has been"):
            small_run(run, resume=resume, overwrite=overwrite)
    command = ["train", "--config", str(published_config("digits")), "--run", str(run), "--limit", "1", "--overwrite"]
    assert main([*command, "--training.accelerator", "cpu"]) == 1
    assert f"psld train: error: a training run cannot be written to {run}: {owner}" in capsys.readouterr().err
    live.send_signal(signal.SIGCONT)
    finished(live, run)


def test_a_killed_run_gives_way(live, tmp_path):
    live.send_signal(signal.SIGKILL)
    live.wait()
    assert (tmp_path / ".run.lock").exists()
    with pytest.raises(FileExistsError, match="Continue it with --resume"):
        small_run(tmp_path / "run")
    assert small_run(tmp_path / "run", resume=True).name == f"step-{STEPS:08d}"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_that_may_not_be_written_is_refused_first(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="a training run cannot be written to .*/file/run .*choose another folder"):
        small_run(tmp_path / "file/run")


@pytest.mark.slow
def test_all_ranks_are_refused(tmp_path):
    with locked(tmp_path / "run", "a training run"):
        process = launched(tmp_path / "run", "--devices", "2")
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 1
        assert errors.decode().count(f"cannot be written to {tmp_path}/run: process {os.getpid()} on") >= 1
        assert not (tmp_path / "run").exists()
    process = launched(tmp_path / "run", "--devices", "2", "--steps", "3")
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
