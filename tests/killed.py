"""Commands of psld that are killed, or whose disk is full, at a system call of their own.

`Commands` starts this file as a process that imports everything once and runs nothing. Every command is a fork of it,
which takes a fraction of a second, so that a command can be killed at each of its system calls in turn: each mkdir,
open for writing, fsync, rename, unlink and rmdir in a folder. At an fsync only half of the file is there, as if the
process had been killed, or the disk had been full, while it wrote.
"""

import errno
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

CALLS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT


class Ended(NamedTuple):
    """A command that ended: with a code as subprocess gives it, after so many calls (of one killed 0), having said."""

    code: int
    calls: int
    said: str
    seconds: float


class Commands:
    """Runs commands of psld in forks; a context.

    Args:
        folder: for what they print.
    """

    def __init__(self, folder: Path):
        self._said = folder / "said.txt"
        paths = os.pathsep.join(path for path in sys.path if path)
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, arguments: list[Any], folder: Path, **how: Any) -> Ended:
        """One command to its end.

        Args:
            arguments: of psld.
            folder: whose calls are counted.
            how: killed_at=n, kills it at the n-th call, from 1; with signal=number, another one than SIGKILL;
                killed_after=seconds; full_at=n, there and at each later call that needs space there is none;
                largest=bytes, no file can be larger.
        """
        asked = {"arguments": [str(part) for part in arguments], "folder": str(folder), "said": str(self._said), **how}
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        code, calls, seconds = json.loads(self._server.stdout.readline())
        return Ended(code, calls, self._said.read_text(), seconds)

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.kill()
        self._server.wait()
        self._server.stdin.close()
        self._server.stdout.close()


class Watch:
    """Counts the calls of this process in a folder, and does something at one of them."""

    def __init__(self, folder: str, killed_at: int = 0, full_at: int = 0, by: int = signal.SIGKILL):
        self.calls, self._folder, self._killed_at, self._full_at, self._by = 0, folder, killed_at, full_at, by
        self._fsync = os.fsync
        os.fsync = self.fsync
        sys.addaudithook(self.hook)

    def hook(self, event: str, given: tuple[Any, ...]) -> None:
        if event not in CALLS or (event == "open" and not given[2] & WRITING):
            return
        relative = event in ("os.remove", "os.rmdir") and given[-1] != -1  # of shutil.rmtree
        if not relative and (isinstance(given[0], int) or not os.fsdecode(given[0]).startswith(self._folder)):
            return
        self._count(event in ("open", "os.mkdir"))

    def fsync(self, descriptor: int) -> None:
        if os.readlink(f"/proc/self/fd/{descriptor}").startswith(self._folder):
            self._count(True, descriptor)
        self._fsync(descriptor)

    def _count(self, needs_space: bool, descriptor: int | None = None) -> None:
        self.calls += 1
        killed = self.calls == self._killed_at
        full = self._full_at and self.calls >= self._full_at and needs_space
        torn = full or (killed and self._by == signal.SIGKILL)
        if torn and descriptor is not None and not os.path.isdir(f"/proc/self/fd/{descriptor}"):
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
        if killed:
            os.kill(os.getpid(), self._by)
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _command(asked: dict[str, Any], answer: int) -> None:
    """In the fork: runs the command and answers with the number of calls."""
    from psld.cli import main

    said = os.open(asked["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(said, 1)
    os.dup2(said, 2)
    if "largest" in asked:
        resource.setrlimit(resource.RLIMIT_FSIZE, (asked["largest"], asked["largest"]))
    watch = Watch(asked["folder"], asked.get("killed_at", 0), asked.get("full_at", 0), asked.get("signal", 9))
    try:
        code = main(asked["arguments"])
    except SystemExit as stopped:
        code = int(stopped.code or 0)
    except BaseException:  # noqa: BLE001 - what a command lets through is the answer
        import traceback

        traceback.print_exc()
        code = 99
    sys.stdout.flush()
    sys.stderr.flush()
    os.write(answer, str(watch.calls).encode())
    os._exit(code)


def serve() -> None:
    """Reads requests, a line each, and answers them one after the other."""
    drawing = ("sample", "inpaint", "restore", "edit", "interpolate")
    for name in (*drawing, "likelihood", "evaluate", "stats", "report", "bench", "train", "importing"):
        importlib.import_module(f"psld.cli.{name}")
    for name in ("matplotlib.figure", "matplotlib.backends.backend_agg", "lightning.fabric", "tqdm"):
        importlib.import_module(name)
    for name in ("torch.utils.tensorboard", "torchmetrics", "jsonargparse", "PIL.Image"):
        importlib.import_module(name)
    from psld.data import Digits

    Digits("train")
    for line in sys.stdin:
        asked, started = json.loads(line), time.monotonic()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _command(asked, writing)
        os.close(writing)
        if "killed_after" in asked:
            time.sleep(asked["killed_after"])
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reading) as answer:
            calls = int(answer.read() or 0)
        print(json.dumps([os.waitstatus_to_exitcode(status), calls, time.monotonic() - started]), flush=True)


if __name__ == "__main__":
    serve()
