"""Several processes, and SIGKILL to one of them: the others end, and the run goes on as if nothing had been."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from living import descendants, gone_after
from psld.training import latest_checkpoint
from psld.training.checkpoint import has_checkpoint
from psld.training.reading import read_checkpoint
from training.small_run import launched
from training.test_resume import require_same, rows_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")]


def after_a_checkpoint(run: Path, *options: str) -> subprocess.Popen:
    """The small run, after its first checkpoint."""
    process, before = launched(run, *options), has_checkpoint(run) and latest_checkpoint(run)
    while not has_checkpoint(run) or latest_checkpoint(run) == before:
        if process.poll() is not None:
            raise AssertionError(process.communicate()[1].decode())
        time.sleep(0.01)
    return process


def finished(run: Path, *options: str) -> None:
    process = launched(run, *options)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize("options", [("--num_workers", "2"), ("--devices", "2", "--num_workers", "1")])
def test_no_process_stays_after_sigkill(tmp_path, options):
    """Workers look for their parent every 5 seconds (torch), processes of Fabric five times a second (psld)."""
    process = after_a_checkpoint(tmp_path / "run", *options, "--steps", "100000", "--pause", "0.02")
    members = descendants(process.pid)
    assert len(members) >= (2 if options[0] == "--num_workers" else 3)
    process.kill()
    process.wait()
    print(f"{options}: {len(members)} processes gone after {gone_after(members, 30):.1f} s")
    process.communicate()


def test_a_process_that_draws_alone_does_not_stay(tmp_path):
    """Nothing is communicated before the end, so only its parent's end can tell it."""
    program = "import sys; from psld.cli import main; sys.exit(main())"
    (tmp_path / "program.py").write_text(program)
    paths = os.pathsep.join(path for path in sys.path if path)
    command = ["sample", "psld-digits", "--steps", "20", "--batch_size", "2", "--out", str(tmp_path / "out")]
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    start = [sys.executable, str(tmp_path / "program.py"), *command, "--devices", "2"]
    process = subprocess.Popen([*start, "--num", "100000"], env=environment, stderr=subprocess.PIPE)
    images = tmp_path / "out/images"
    while not images.is_dir() or len(list(images.glob("*.png"))) < 8:
        assert process.poll() is None, process.communicate()[1].decode()
        time.sleep(0.01)
    members = descendants(process.pid)
    assert len(members) == 1
    process.kill()
    print(f"drawing on its own: gone after {gone_after(members, 10):.1f} s")
    process.communicate()
    there = len(list(images.glob("*.png")))
    time.sleep(1)
    assert len(list(images.glob("*.png"))) == there


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_killed_again_and_again(tmp_path, strategy):
    """At a random moment, at two system calls of the first, and the second of them alone."""
    two = ("--devices", "2", "--strategy", strategy, "--steps", "40", "--checkpoint_every", "1")
    two += ("--checkpoints", "sharded") if strategy == "fsdp" else ()
    run, resume = tmp_path / "killed", ()
    for how in ("moment", "call", "call", "second"):
        if how == "call":
            call = random.randrange(10, 80)
            process = launched(run, *two, *resume, "--killed_at", str(call))
            members = []
            while process.poll() is None:
                members = descendants(process.pid) or members
                time.sleep(0.05)
        else:
            process = after_a_checkpoint(run, *two, *resume, "--pause", "0.05")
            members = descendants(process.pid)
            time.sleep(random.uniform(0.0, 0.5))
            os.kill(process.pid if how == "moment" else members[0].number, signal.SIGKILL)
        assert process.wait(timeout=60) != 0, "it was finished before it was killed"
        gone_after(members, 30)
        resume = ("--resume",) if has_checkpoint(run) else ()
        print(f"{strategy}, {how}: {process.returncode}, {latest_checkpoint(run).name}")
    finished(run, *two, *resume)
    finished(tmp_path / "whole", *two)
    require_same(*(read_checkpoint(latest_checkpoint(place)) for place in (run, tmp_path / "whole")))
    assert rows_of(run) == rows_of(tmp_path / "whole")
    assert [path.name for path in tmp_path.glob(".*")] == []
