"""One writer at a time, in processes of their own: refusals, takeovers after a kill, and what is left behind."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from psld.files import FolderInUseError, locked
from psld.files.locks import lock_file

HOLD = """
import sys, time
from psld.files import locked
with locked(sys.argv[1], "samples"):
    print("held", flush=True)
    sys.stdin.readline()
"""

AT_THE_RECORD = """
import os, signal, filelock
write = os.write
def at_the_record(descriptor, record):
    os.write = write
    os.kill(os.getpid(), signal.{signal})
    return write(descriptor, record)
os.write = at_the_record
"""


def holder(path: Path, program: str = HOLD, **options) -> subprocess.Popen:
    """A process that holds the lock until it gets a line, or its standard input ends."""
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", program, str(path)], env=environment, **(pipes | options))  # pyright: ignore


def holds(process: subprocess.Popen) -> bool:
    assert process.stdout is not None
    return process.stdout.readline() == "held\n"


def test_a_second_process_is_told_who_the_first_is(tmp_path):
    first = holder(tmp_path / "run")
    assert holds(first)
    second = holder(tmp_path / "run")
    _, errors = second.communicate(timeout=30)
    assert second.returncode == 1
    words = f"samples cannot be written to {tmp_path}/run: process {first.pid} on {socket.gethostname()} has been "
    assert words + f"writing there since {time.strftime('%Y-%m-')}" in errors
    assert f"If that process does not exist any more, delete {tmp_path}/.run.lock." in errors
    with locked(tmp_path / "other", "samples"):
        pass  # another folder is free
    _, errors = first.communicate("\n", timeout=30)
    assert first.returncode == 0, errors
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "run", "samples"):
        pass


def test_a_killed_owner_is_succeeded(tmp_path):
    for kill in (signal.SIGKILL, signal.SIGTERM):
        owner = holder(tmp_path / "run")
        assert holds(owner)
        owner.send_signal(kill)
        owner.communicate()
        assert (tmp_path / ".run.lock").exists()
        with locked(tmp_path / "run", "samples"):
            second = holder(tmp_path / "run")
            second.communicate()
            assert second.returncode == 1
        assert list(tmp_path.iterdir()) == []


def test_an_interrupt_releases(tmp_path):
    owner = holder(tmp_path / "run")
    assert holds(owner)
    owner.send_signal(signal.SIGINT)
    owner.communicate()
    assert list(tmp_path.iterdir()) == []


def test_of_twenty_one_wins(tmp_path):
    """Also where they find the lock of a dead process, or an empty one, and in a folder that they all have to make."""
    dead = holder(tmp_path / "a/run")
    assert holds(dead)
    dead.kill()
    dead.communicate()
    (tmp_path / "a/.nameless.lock").touch()
    for path in (tmp_path / "a/run", tmp_path / "a/nameless", tmp_path / "b/c/run"):
        contenders = [holder(path) for _ in range(20)]
        try:
            winners = [process for process in contenders if holds(process)]
            assert len(winners) == 1
            winners[0].communicate("\n")
            for process in contenders:
                if process is not winners[0]:
                    _, errors = process.communicate()
                    assert f"process {winners[0].pid} on " in errors
            codes = sorted(process.wait() for process in contenders)
        finally:
            for process in contenders:
                process.kill()
        assert codes == [0] + [1] * 19
        assert not lock_file(path).exists()
    assert not (tmp_path / "b").exists()


def test_an_owner_on_another_host_is_never_declared_dead(tmp_path):
    (tmp_path / ".run.lock").write_text("1\nnode7\n12345\n")
    with pytest.raises(FolderInUseError, match=r"process 1 on node7 has been writing .* delete .*/\.run\.lock"):
        with locked(tmp_path / "run", "samples"):
            pass
    assert (tmp_path / ".run.lock").exists()


def test_a_process_number_that_was_given_anew_is_no_owner(tmp_path):
    """Of this very process, with another start."""
    (tmp_path / ".run.lock").write_text(f"{os.getpid()}\n{socket.gethostname()}\n12345\n")
    if os.stat("/proc/self/ns/pid").st_ino != 0xEFFFFFFC:
        pytest.skip("the host's name carries a process namespace here")
    with locked(tmp_path / "run", "samples"):
        pass
    assert not (tmp_path / ".run.lock").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs an exchange of two names")
@pytest.mark.parametrize("content", ["", "12", "12345\nho"])
def test_a_file_that_names_nobody_is_taken_over_after_two_seconds(tmp_path, content):
    """As a power cut can leave it."""
    (tmp_path / ".run.lock").write_text(content)
    started = time.monotonic()
    with locked(tmp_path / "run", "samples"):
        assert time.monotonic() - started >= 2
        assert (tmp_path / ".run.lock").read_text().startswith(f"{os.getpid()}\n{socket.gethostname()}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="needs an exchange of two names")
def test_an_owner_killed_before_it_wrote_its_name_is_succeeded(tmp_path):
    owner = holder(tmp_path / "run", AT_THE_RECORD.format(signal="SIGKILL") + HOLD)
    _, errors = owner.communicate()
    assert owner.returncode == -signal.SIGKILL, errors
    assert (tmp_path / ".run.lock").read_bytes() == b""
    with locked(tmp_path / "run", "samples"):
        pass
    assert list(tmp_path.iterdir()) == []


def halted_before_its_name(path: Path) -> subprocess.Popen:
    """A process that has just created the file, and is alive."""
    owner = holder(path, AT_THE_RECORD.format(signal="SIGSTOP") + HOLD)
    os.waitid(os.P_PID, owner.pid, os.WSTOPPED | os.WNOWAIT)
    assert lock_file(path).read_bytes() == b""
    return owner


@pytest.mark.skipif(sys.platform != "linux", reason="needs an exchange of two names")
@pytest.mark.parametrize("released", [False, True])
def test_a_live_process_that_lost_the_file_before_it_wrote_its_name_does_not_write(tmp_path, released):
    """It is refused, or gets the lock once the other has released it: there are never two owners."""
    first = halted_before_its_name(tmp_path / "run")
    with locked(tmp_path / "run", "samples"):
        record = (tmp_path / ".run.lock").read_text()
        if not released:
            first.send_signal(signal.SIGCONT)
            _, errors = first.communicate()
            assert first.returncode == 1
            assert f"process {os.getpid()} on {socket.gethostname()} has been writing" in errors
        assert (tmp_path / ".run.lock").read_text() == record
    if released:
        first.send_signal(signal.SIGCONT)
        assert holds(first)
        assert (tmp_path / ".run.lock").read_text().startswith(f"{first.pid}\n")
        first.communicate("\n")
        assert first.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_live_process_that_writes_its_name_late_keeps_the_lock(tmp_path):
    first, refusals = halted_before_its_name(tmp_path / "run"), []

    def contend() -> None:
        try:
            with locked(tmp_path / "run", "samples"):
                refusals.append("none")
        except FolderInUseError as error:
            refusals.append(str(error))

    contender = threading.Thread(target=contend)
    contender.start()
    while (tmp_path / ".run.lock").read_bytes() == b"":  # until it is watched
        time.sleep(0.001)
    first.send_signal(signal.SIGCONT)
    assert holds(first)
    contender.join()
    assert f"process {first.pid} on {socket.gethostname()} has been writing" in refusals[0]
    first.communicate("\n")
    assert first.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_names_nobody_is_left_where_names_cannot_be_exchanged(tmp_path, monkeypatch):
    """As on NFS."""
    monkeypatch.setattr("filelock._soft.exchange_names", lambda source, target: False)
    (tmp_path / ".run.lock").touch()
    with pytest.raises(FolderInUseError, match=r"an unknown process has been writing .* delete .*/\.run\.lock"):
        with locked(tmp_path / "run", "samples"):
            pass
    assert [path.name for path in tmp_path.iterdir()] == [".run.lock"]


def test_every_name_of_a_folder_is_the_same_lock(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path / "run")
    assert {lock_file(p) for p in (".", "../run", "../link", tmp_path / "run/", "../link/../run")} == {
        tmp_path / ".run.lock"
    }


def test_what_cannot_be_written_is_refused_with_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=r"samples cannot be written to .*file/run \((File exists|Not a directory)\): choose another"
    ):
        with locked(tmp_path / "file/run", "samples"):
            pass
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    if os.access(closed, os.W_OK):
        return  # root may write everywhere
    with pytest.raises(PermissionError, match=r"Permission denied\): choose another folder, or make .*closed writable"):
        with locked(closed / "run", "samples"):
            pass


def test_a_folder_whose_parent_may_not_be_written_has_its_lock_inside(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    assert lock_file(tmp_path / "mine") == tmp_path / "mine/.psld.lock"
    with locked(tmp_path / "mine", "samples"):
        assert (tmp_path / "mine/.psld.lock").exists()
    assert list((tmp_path / "mine").iterdir()) == []


def test_an_error_inside_releases(tmp_path):
    with pytest.raises(ZeroDivisionError), locked(tmp_path / "a/run", "samples"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []
