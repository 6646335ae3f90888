"""What a sampler costs beside the network, and what start-up costs.

    python benchmarks/overhead.py

Network: the demo's U-Net, batch 64, float32 state. Bare calls and samplers with a free network alternate in one
process; tables are made once, as between the batches of `psld sample`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from psld import (
    PSLD,
    ROBA,
    SSCS,
    EulerMaruyama,
    Exponential,
    PredictorCorrector,
    Projected,
    Sampler,
    ScoreModel,
)
from psld.networks import UNet

NFE, BATCH, ROUNDS = 20, 64, 21
SAMPLERS = [
    EulerMaruyama(),
    SSCS(),
    ROBA(),
    Exponential(order=2),
    Exponential(order=2, eta=1.0),
    PredictorCorrector(predictor=2),
    Projected(Exponential(order=2)),
]


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def sampler_overhead() -> tuple[float, dict[str, float]]:
    """Median seconds: NFE bare network calls, and each sampler with a network that costs nothing."""
    process = PSLD()
    network = UNet(2, 2, image_size=8, width=32, multipliers=(1, 1), blocks=1, attention_resolutions=(4,)).eval()
    z, t = torch.randn(BATCH, 2, 1, 8, 8), torch.rand(BATCH)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(NFE):
                network(z, t)

    def alone(sampler: Sampler) -> Callable[[], object]:
        grid = sampler.grid("quadratic", process, NFE)
        plan = sampler.prepare(process, grid)
        model = ScoreModel(lambda z, t: z, process).tabulate(grid.times)
        return lambda: sampler.sample(model, BATCH, plan, shape=(1, 8, 8), dtype=torch.float32)

    calls = {repr(sampler): alone(sampler) for sampler in SAMPLERS}
    rounds = [(seconds(bare), *(seconds(call) for call in calls.values())) for _ in range(ROUNDS)]
    bare_s, *own = (statistics.median(column) for column in zip(*rounds, strict=True))
    return bare_s, dict(zip(calls, own, strict=True))


def start_up(*command: str) -> float:
    """Median wall seconds of a command over five runs."""
    clock = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        clock.append(time.perf_counter() - start)
    return statistics.median(clock)


if __name__ == "__main__":
    bare, own = sampler_overhead()
    print(f"{NFE} network calls at batch {BATCH}: {bare * 1e3:.0f} ms bare\n")
    print("| sampler | own time, ms | share of the bare calls |\n| --- | --- | --- |")
    for name, cost in own.items():
        print(f"| {name} | {cost * 1e3:.1f} | {cost / bare:.1%} |")
    print()
    print(f"python -c 'import psld': {start_up(sys.executable, '-c', 'import psld'):.2f} s")
    touch = "import psld; psld.PSLD(); psld.EulerMaruyama"
    print(f"python -c '{touch}': {start_up(sys.executable, '-c', touch):.2f} s")
    program = "import sys; from psld.cli import main; sys.exit(main(['--help']))"
    print(f"psld --help: {start_up(sys.executable, '-c', program):.2f} s")
