"""What the training loop costs beside the work it does, and how images per second grow with processes.

    OMP_NUM_THREADS=1 python benchmarks/engine.py

Network: a U-Net of CIFAR-10's size (3×32×32, width 32), PSLD, batch 16 a process, float32. Bare is the least a step can
be: one perturbed batch made beforehand, then forward, backward and Adam. The loop adds data, times, noise, the
process's tables, clipping, the moving average, and a row of the log with its checks, here after every step. Clipping
and average are also timed beside the bare step, since any training has them. The three kinds of step take turns in one
process, so a busy machine slows all of them; their processor seconds are less disturbed by it than their wall time.
"""

from __future__ import annotations

import argparse
import csv
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from psld import PSLD
from psld.losses import HSM
from psld.model import ScoreModel
from psld.networks import UNet
from psld.training import ExponentialMovingAverage, TrainingSettings, train

BATCH = 16


class Pixels:
    """Random images, held in memory: reading is what benchmarks/loading.py times."""

    def __init__(self, count: int = 512):
        self._images = torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Tensor:
        return self._images[index]


def unet() -> nn.Module:
    torch.manual_seed(0)
    return UNet(6, 6, image_size=32, width=32, multipliers=(1, 2, 2, 2), blocks=2, attention_resolutions=(16,))


def settings(steps: int, devices: int) -> TrainingSettings:
    return TrainingSettings(
        steps=steps,
        batch_size=BATCH * devices,
        devices=devices,
        accelerator="cpu",
        log_every=1,
        checkpoint_every=10**9,
        tensorboard=False,
        progress=False,
    )


Times = tuple[float, float]
"""Wall and processor seconds."""


def now() -> Times:
    return time.perf_counter(), time.process_time()


def since(start: Times) -> Times:
    wall, processor = now()
    return wall - start[0], processor - start[1]


def bare_steps(usual: bool) -> Iterator[Times]:
    """The time of each step; `usual` with clipping and moving average."""
    network, process = unet().train(), PSLD()
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-4)
    average = ExponentialMovingAverage(network, 0.9999)
    noise, t = torch.randn(BATCH, 2, 3, 32, 32), torch.rand(BATCH) * 0.9 + 0.1
    z = process.perturb(torch.rand(BATCH, 3, 32, 32), t.double(), noise)
    while True:
        start = now()
        (network(z, t) - noise).square().mean().backward()
        if usual:
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if usual:
            average.update()
        yield since(start)


class Alternating:
    """The loop's data set and stop-watch: between two of its steps, the bare ones take theirs.

    A step of the loop lasts from the request for its first image to the request for the next step's; the time that bare
    steps take in between is not counted.
    """

    def __init__(self):
        self._data = Pixels()
        self._others = bare_steps(usual=False), bare_steps(usual=True)
        self._reads, self._start = 0, now()
        self.bare, self.usual, self.loop = [], [], []

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, index: int) -> Tensor:
        if self._reads % BATCH == 0:
            if self._reads:
                self.loop.append(since(self._start))
            self.bare.append(next(self._others[0]))
            self.usual.append(next(self._others[1]))
            self._start = now()
        self._reads += 1
        return self._data[index]


def overhead(rounds: int) -> list[list[float]]:
    """Median seconds of a step bare, with clipping and average, and in the loop: by the wall, by the processor."""
    data = Alternating()
    with tempfile.TemporaryDirectory() as folder:
        train(ScoreModel(unet(), PSLD()), data, HSM(), settings(rounds, 1), Path(folder) / "run")
    warm = 2  # the rehearsal, and the step after it
    kinds = [column[warm:] for column in (data.bare, data.usual, data.loop)]
    return [[statistics.median(times[clock] for times in kind) for kind in kinds] for clock in (0, 1)]


def images_per_second(devices: int, steps: int) -> float:
    """Of all processes together, by the run's own log, without its first row."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--run", f"{folder}/run", "--devices", str(devices), "--steps", str(steps)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(f"{folder}/run/metrics.csv") as file:
            speeds = [float(row["images_per_second"]) for row in csv.DictReader(file)]
    return statistics.median(speeds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description="The training loop against its bare steps.")
    parser.add_argument("--rounds", type=int, default=14, help="steps of each kind")
    parser.add_argument("--steps", type=int, default=10, help="of each run that measures images per second; 0 for none")
    parser.add_argument("--run", help="one run of `--steps` and `--devices` in this folder, and nothing else")
    parser.add_argument("--devices", type=int, default=1)
    options = parser.parse_args()
    if options.run:
        model = ScoreModel(unet(), PSLD())
        train(model, Pixels(), HSM(), settings(options.steps, options.devices), Path(options.run))
        return
    print(f"threads {torch.get_num_threads()}, cores {os.cpu_count()}, load {os.getloadavg()[0]:.1f}")
    for clock, (bare, usual, loop) in zip(("wall", "processor"), overhead(options.rounds), strict=True):
        parts = (
            f"bare {bare * 1e3:.0f} ms, with clipping and average {usual * 1e3:.0f} ms, in the loop {loop * 1e3:.0f} ms"
        )
        print(f"{clock} time of a step: {parts}: {loop / bare - 1:+.1%} over bare")
    if not options.steps:
        return
    one, two = (images_per_second(devices, options.steps) for devices in (1, 2))
    print(f"images per second: 1 process {one:.1f}, 2 processes {two:.1f} ({two / one:.2f}×), {two / 2:.1f} a core")


if __name__ == "__main__":
    main()
