"""Training and sampling throughput on a GPU: fp32, bf16, channels_last, torch.compile, against the plain network.

    python benchmarks/gpu.py --out benchmarks/results/gpu.md

Networks: the CIFAR-10 ablation network of the paper in full (39 M parameters), 6×32×32, and the plain one of the same
shape. Images per second of a training step (forward, backward, Adam) and of a sampler of 20 evaluations. Without a GPU,
`--device cpu --width 16 --batch 4 --rounds 1` runs the same code small.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))
from plain_ncsnpp import PlainNCSNpp

from psld import PSLD, Exponential, ScoreModel
from psld.files import atomic_file
from psld.networks import NCSNpp
from psld.samplers import grids

CHANNELS, SIZE, NFE = 6, 32, 20
SHAPE = dict(multipliers=(1, 2, 2, 2), blocks=2)


def plain(width: int) -> nn.Module:
    return PlainNCSNpp(CHANNELS, SIZE, width, fir=False, **SHAPE)  # pyright: ignore[reportArgumentType]


def ours(width: int, channels_last: bool = False) -> nn.Module:
    return NCSNpp(CHANNELS, CHANNELS, SIZE, width=width, channels_last=channels_last, **SHAPE)  # pyright: ignore[reportArgumentType]


VARIANTS: dict[str, tuple[Callable[[int], nn.Module], bool, bool]] = {
    "plain": (plain, False, False),
    "psld": (ours, False, False),
    "psld, channels_last": (lambda width: ours(width, channels_last=True), False, False),
    "psld, compile": (ours, False, True),
    "plain, bf16": (plain, True, False),
    "psld, bf16": (ours, True, False),
    "psld, bf16, channels_last": (lambda width: ours(width, channels_last=True), True, False),
    "psld, bf16, channels_last, compile": (lambda width: ours(width, channels_last=True), True, True),
}
"""Name → how the network is built, whether under bfloat16 autocast, whether compiled."""


def wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device != "cpu":
        torch.cuda.synchronize()


def rate(call: Callable[[], object], images: int, rounds: int, device: str) -> float:
    """Images per second, the median of the rounds after two to warm up."""
    clock = []
    for _ in range(rounds + 2):
        start = time.perf_counter()
        call()
        wait(device)
        clock.append(time.perf_counter() - start)
    return images / statistics.median(clock[2:])


def measure(name: str, width: int, batch: int, rounds: int, device: str) -> tuple[float, float, float]:
    """Training and sampling images per second, and peak memory in MB (0 on a CPU)."""
    build, half, compiled = VARIANTS[name]
    network = build(width).to(device)
    runner: Callable[..., Tensor] = torch.compile(network) if compiled else network
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=device != "cpu")
    x, t = torch.randn(batch, CHANNELS, SIZE, SIZE, device=device), torch.rand(batch, device=device) * 0.9 + 0.1

    def forward(z: Tensor, t: Tensor) -> Tensor:
        with torch.autocast(device, torch.bfloat16) if half else nullcontext():
            return runner(z.flatten(1, 2) if z.ndim == 5 else z, t).float()

    def train() -> None:
        forward(x, t).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
    network.train()
    training = rate(train, batch, rounds, device)
    memory = torch.cuda.max_memory_allocated() / 1e6 if device != "cpu" else 0.0
    network.eval().requires_grad_(False)
    process, sampler = PSLD(), Exponential(order=2)
    grid = grids.log_snr(process, NFE)
    model = ScoreModel(lambda z, t: forward(z, t).unflatten(1, (2, 3)), process).tabulate(grid.times)
    plan = sampler.prepare(process, grid)

    def sample() -> None:
        sampler.sample(model, batch, plan, shape=(3, SIZE, SIZE), device=device)

    return training, rate(sample, batch, rounds, device), memory


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--device", default="cuda")
    options.add_argument("--width", type=int, default=128)
    options.add_argument("--batch", type=int, default=128)
    options.add_argument("--rounds", type=int, default=10)
    options.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    options.add_argument("--out", type=Path, default=None, help="Markdown file to write")
    given = options.parse_args()
    if given.device == "cuda" and not torch.cuda.is_available():
        sys.exit("no GPU here: --device cpu --width 16 --batch 4 --rounds 1 checks the code on a CPU.")
    name = torch.cuda.get_device_name() if given.device == "cuda" else "CPU"
    lines = [
        f"{name}, torch {torch.__version__}, width {given.width}, batch {given.batch}, {NFE} evaluations a sample",
        "",
        "| variant | training, images/s | × plain | sampling, images/s | × plain | peak memory, MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    base: tuple[float, float] | None = None
    for variant in given.variants:
        training, sampling, memory = measure(variant, given.width, given.batch, given.rounds, given.device)
        base = base or (training, sampling)
        ratios = training / base[0], sampling / base[1]
        lines.append(
            f"| {variant} | {training:.4g} | {ratios[0]:.2f} | {sampling:.4g} | {ratios[1]:.2f} | {memory:.0f} |"
        )
        print(lines[-1], flush=True)
    text = "\n".join(lines) + "\n"
    if given.out is not None:
        with atomic_file(given.out) as file:
            file.write(text.encode())
    print(text)


if __name__ == "__main__":
    main()
