"""Training step and forward pass of NCSN++ against a plain one, side by side, and what memory each takes.

    python benchmarks/network.py --threads 2
    python benchmarks/network.py --threads 1 --convolutions

Networks: the CIFAR-10 ablation's shrunk to width 32, and the best network's kind (FIR, residual input, Fourier) with 4
blocks; batch 16 of 6×32×32. The networks of a pair take turns, step by step, so that another load on the machine meets
all of them; the table has the fastest of the rounds. A training step is forward, backward and Adam. Peak memory is that
of a process of its own, above what it had before the network was built, with allocations of a size that the operating
system takes back at once. --convolutions prints instead how much of a training step's processor time is convolutions,
and how long FIR filters take, forward and backward, in 32 bits and in 16.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from plain_ncsnpp import PlainNCSNpp

from psld.networks import FIR, FourierTime, NCSNpp, ResidualInput
from psld.networks.resampling import FIRDownsample, FIRUpsample

WIDTH, BATCH, CHANNELS, SIZE = 32, 16, 6, 32
SHAPES = {
    "ablation": dict(multipliers=(1, 2, 2, 2), blocks=2),
    "FIR and residual input": dict(multipliers=(2, 2, 2), blocks=4),
}
PRECISIONS = (torch.float32, torch.bfloat16)
FULL = dict(time=FourierTime(), resampling=FIR(), progressive_input=ResidualInput())


def plain(kind: str) -> nn.Module:
    return PlainNCSNpp(CHANNELS, SIZE, WIDTH, fir=kind != "ablation", **SHAPES[kind])  # pyright: ignore[reportArgumentType]


def ours(kind: str, **options: object) -> nn.Module:
    extra = {} if kind == "ablation" else FULL
    return NCSNpp(CHANNELS, CHANNELS, SIZE, width=WIDTH, **SHAPES[kind], **extra, **options)  # pyright: ignore[reportArgumentType]


def variants() -> dict[str, tuple[Callable[[str], nn.Module], bool]]:
    """Name → how the network is built, and whether it runs under bfloat16 autocast."""
    return {
        "plain": (plain, False),
        "psld": (ours, False),
        "psld, channels_last": (lambda kind: ours(kind, channels_last=True), False),
        "psld, recompute": (lambda kind: ours(kind, recompute=True), False),
        "plain, bf16": (plain, True),
        "psld, bf16": (ours, True),
        "psld, bf16, channels_last": (lambda kind: ours(kind, channels_last=True), True),
    }


class Subject:
    """A network with its optimizer, one training step or forward pass at a time."""

    def __init__(self, build: Callable[[str], nn.Module], kind: str, half: bool, device: str):
        torch.manual_seed(0)
        self.network, self.half, self.device = build(kind).to(device), half, device
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-4)
        self.x = torch.randn(BATCH, CHANNELS, SIZE, SIZE, device=device)
        self.t = torch.rand(BATCH, device=device) * 0.9 + 0.1

    def _output(self) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16) if self.half else nullcontext():
            return self.network(self.x, self.t)

    def train(self) -> float:
        self.network.train()
        start = time.perf_counter()
        self._output().float().square().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        return self._since(start)

    def infer(self) -> float:
        self.network.eval()
        start = time.perf_counter()
        with torch.no_grad():
            self._output()
        return self._since(start)

    def _since(self, start: float) -> float:
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def timed(kind: str, names: Sequence[str], rounds: int, device: str) -> dict[str, tuple[float, float]]:
    """Variant → fastest training step and forward pass, in seconds; one round before the clock counts."""
    subjects = {name: Subject(variants()[name][0], kind, variants()[name][1], device) for name in names}
    steps: dict[str, list[float]] = {name: [] for name in names}
    passes: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        for name, subject in subjects.items():
            training, inference = subject.train(), subject.infer()
            if turn:
                steps[name].append(training)
                passes[name].append(inference)
    return {name: (min(steps[name]), min(passes[name])) for name in names}


def print_convolutions(names: Sequence[str]) -> None:
    """Share of each variant's training step on a CPU; then FIR filters of a width that the networks have."""
    print("| network | variant | convolutions' share of the step |\n| --- | --- | --- |")
    for kind in SHAPES:
        for name in names:
            subject = Subject(variants()[name][0], kind, variants()[name][1], "cpu")
            subject.train()
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
                subject.train()
            own = {event.key: event.self_cpu_time_total for event in profile.key_averages()}
            share = sum(time for key, time in own.items() if "convolution" in key) / sum(own.values())
            print(f"| {kind} | {name} | {share:.0%} |", flush=True)
    print("\n| filter of 64 channels, 32×32 | float32, ms | bfloat16, ms |\n| --- | --- | --- |")
    up, down = FIRUpsample(), FIRDownsample()
    small, large = (torch.randn(BATCH, 2 * WIDTH, size, size) for size in (SIZE // 2, SIZE))
    for title, layer, x in (("up", up, small), ("down", down, large)):
        filtered = partial(layer._convolved, padding=1, stride=2, transposed=layer is up)
        times = [there_and_back(filtered, x.to(precision)) for precision in PRECISIONS]
        print(f"| {title} | {' | '.join(f'{time * 1e3:.1f}' for time in times)} |", flush=True)


def there_and_back(operation: Callable[[Tensor], Tensor], x: Tensor, rounds: int = 9) -> float:
    """Fastest forward and backward pass, in seconds."""
    best = float("inf")
    for _ in range(rounds):
        leaf = x.detach().requires_grad_()
        start = time.perf_counter()
        result = operation(leaf)
        result.backward(torch.ones_like(result))
        best = min(best, time.perf_counter() - start)
    return best


def peak_megabytes(kind: str, name: str, device: str) -> float:
    """Peak memory of two training steps: on a GPU as PyTorch counts it, else of a process started for this."""
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        subject = Subject(variants()[name][0], kind, variants()[name][1], device)
        subject.train()
        subject.train()
        return torch.cuda.max_memory_allocated() / 1e6
    command = [sys.executable, __file__, "--peak", kind, name]
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return float(done.stdout.split()[-1])


def report_peak(kind: str, name: str) -> None:
    """Prints by how many megabytes two training steps raised this process's peak."""
    torch.set_num_threads(1)
    torch.nn.functional.conv2d(torch.zeros(1, 1, 8, 8, requires_grad=True), torch.zeros(1, 1, 3, 3)).sum().backward()
    before = most_resident()
    subject = Subject(variants()[name][0], kind, variants()[name][1], "cpu")
    subject.train()
    subject.train()
    print((most_resident() - before) / 1e3)


def most_resident() -> float:
    """Most kilobytes that this process has had in memory. (On Linux getrusage would also count its parent's.)"""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return float(line.split()[1])
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e3 if sys.platform == "darwin" else 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument(
        "--only", nargs="+", default=list(variants()), help="some of the variants, the first is the base"
    )
    parser.add_argument("--convolutions", action="store_true", help="how much of a step they are, on a CPU")
    parser.add_argument("--peak", nargs=2, metavar=("KIND", "NAME"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        report_peak(*options.peak)
        return
    torch.set_num_threads(options.threads)
    if options.convolutions:
        print_convolutions(options.only)
        return
    print(f"torch {torch.__version__}, {options.device}, {options.threads} threads, batch {BATCH} of 6×32×32\n")
    print("| network | variant | training step, ms | ratio | forward, ms | ratio | peak memory, MB | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for kind in SHAPES:
        times = timed(kind, options.only, options.rounds, options.device)
        peaks = {name: peak_megabytes(kind, name, options.device) for name in options.only}
        base = options.only[0]
        for name, (step, forward) in times.items():
            ratios = step / times[base][0], forward / times[base][1], peaks[name] / peaks[base]
            print(
                f"| {kind} | {name} | {step * 1e3:.0f} | {ratios[0]:.2f} | {forward * 1e3:.0f} | {ratios[1]:.2f} "
                f"| {peaks[name]:.0f} | {ratios[2]:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
