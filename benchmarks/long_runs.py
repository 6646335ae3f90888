"""Memory, open files and threads of long runs over time, and whether any of them grows.

    python benchmarks/long_runs.py [--steps 2000] [--num 20000] [--out runs/long]

Trains on digits with `psld train` and draws from that run with `psld sample`, each in a process of its own that is read
from outside, from /proc (Linux), with the processes that it starts. Every second is a row of OUT/train.csv or
OUT/sample.csv. A line is fitted to what comes after the first fifth of the time (imports, first batches) and before the
last twentieth (samples are put together, the grid is drawn). Flat: the line rises over all of the time by less than
8 MiB, or by less than half a file or thread. One thread.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

MEBIBYTE = 1024**2
ALLOWED = {"memory_mib": 8.0, "files": 0.5, "threads": 0.5}
"""What the fitted line may rise by."""


class Reading(NamedTuple):
    """Of a process and those that it started, together."""

    seconds: float
    processes: int
    memory_mib: float
    files: int
    threads: int


def family(process: int) -> list[int]:
    """A process and all that it, or one of those, started."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                stat = (folder / "stat").read_text()
            except OSError:  # it has just ended
                continue
            parents[int(folder.name)] = int(stat.rpartition(")")[2].split()[1])
    found = [process]
    for known in found:
        found += [child for child, parent in parents.items() if parent == known]
    return found


def read(process: int, started: float) -> Reading:
    members, memory, files, threads = family(process), 0, 0, 0
    for member in members:
        folder = Path("/proc") / str(member)
        try:
            memory += int((folder / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            files += len(os.listdir(folder / "fd"))
            threads += len(os.listdir(folder / "task"))
        except OSError:
            continue
    return Reading(time.monotonic() - started, len(members), memory / MEBIBYTE, files, threads)


def watched(arguments: Sequence[str], every: float) -> list[Reading]:
    """What a command of psld takes while it runs, and it has to succeed."""
    program = [sys.executable, "-c", "import sys; from psld.cli import main; sys.exit(main())", *arguments]
    process, started, readings = subprocess.Popen(program), time.monotonic(), []
    while process.poll() is None:
        readings.append(read(process.pid, started))
        time.sleep(every)
    if process.returncode:
        raise SystemExit(f"psld {' '.join(arguments)} ended with {process.returncode}")
    return readings[:-1]  # while the last was read the process may have been ending


def rise(readings: Sequence[Reading], name: str) -> tuple[float, float]:
    """By how much a fitted line rises over all of the time, and the median."""
    end = readings[-1].seconds
    chosen = [reading for reading in readings if 0.2 * end < reading.seconds < 0.95 * end]
    values = np.array([getattr(reading, name) for reading in chosen], dtype=float)
    slope = np.polyfit([reading.seconds for reading in chosen], values, 1)[0]
    return float(slope) * end, float(np.median(values))


def table(name: str, readings: Sequence[Reading]) -> str:
    lines = []
    for column, allowed in ALLOWED.items():
        grown, typical = rise(readings, column)
        most = max(getattr(reading, column) for reading in readings)
        verdict = "flat" if grown < allowed else "**grows**"
        lines.append(f"| {name} | {column} | {typical:,.1f} | {most:,.1f} | {grown:+.2f} | {verdict} |")
    return "\n".join(lines)


def write(readings: Sequence[Reading], file: Path) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(Reading._fields)
        table.writerows([f"{r.seconds:.0f}", r.processes, f"{r.memory_mib:.1f}", r.files, r.threads] for r in readings)


def main() -> None:
    options = argparse.ArgumentParser(description="Memory, open files and threads of long runs over time.")
    options.add_argument("--steps", type=int, default=2000)
    options.add_argument("--num", type=int, default=20_000)
    options.add_argument("--workers", type=int, default=1, help="processes that read the data")
    options.add_argument("--out", type=Path, default=Path("runs/long"))
    options.add_argument("--every", type=float, default=1.0, help="seconds between two readings")
    chosen = options.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    chosen.out.mkdir(parents=True, exist_ok=True)
    run, config = chosen.out / "run", Path(__file__).parents[1] / "configs/digits.yaml"
    numbers = {"steps": chosen.steps, "max_seconds": "null", "num_workers": chosen.workers, "checkpoint_every": 100}
    training = [text for name, value in numbers.items() for text in (f"--training.{name}", str(value))]
    sampling = ["--num", str(chosen.num), "--steps", "10", "--format", "npz", "--batch_size", "100"]
    commands = {
        "train": ["train", "--config", str(config), "--run", str(run), *training, "--overwrite"],
        "sample": ["sample", str(run), *sampling, "--out", str(chosen.out / "samples")],
    }
    print("| command | of all its processes | median | most | rise of the fitted line | |")
    print("| --- | --- | --- | --- | --- | --- |", flush=True)
    for name, arguments in commands.items():
        readings = watched(arguments, chosen.every)
        write(readings, chosen.out / f"{name}.csv")
        seconds = readings[-1].seconds
        told = f"psld {name}, {seconds:.0f} s"
        print(table(told, readings), flush=True)


if __name__ == "__main__":
    main()
