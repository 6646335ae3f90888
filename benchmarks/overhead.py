"""What a sampler costs beside the network, and what start-up costs.

    python benchmarks/overhead.py

Network: the demo's U-Net, batch 64, float64 state. Bare calls and sampling alternate in one process;
tables are made once, as between the batches of `psld sample`.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import torch

from psld import PSLD, EulerMaruyama, ScoreModel, grids
from psld.networks import UNet

NFE, BATCH, ROUNDS = 20, 64, 21


def seconds(call: Callable[[], object]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def sampler_overhead() -> tuple[float, float, float]:
    """Median seconds: NFE bare network calls, Euler–Maruyama with them, Euler–Maruyama with a free network."""
    process = PSLD()
    network = UNet(2, 2, image_size=8, width=32, multipliers=(1, 1), blocks=1, attention_resolutions=(4,)).eval()
    grid = grids.quadratic(process, NFE)
    sampler, z, t = EulerMaruyama(), torch.randn(BATCH, 2, 1, 8, 8), torch.rand(BATCH)
    plan = sampler.prepare(process, grid)

    def bare() -> None:
        with torch.no_grad():
            for _ in range(NFE):
                network(z, t)

    def sampling(net: Callable[..., torch.Tensor]) -> Callable[[], object]:
        model = ScoreModel(net, process).tabulate(grid.times)
        return lambda: sampler.sample(model, (1, 8, 8), grid, range(BATCH), plan=plan)

    whole, own = sampling(network), sampling(lambda z, t: z)
    rounds = [(seconds(bare), seconds(whole), seconds(own)) for _ in range(ROUNDS)]
    bare_s, whole_s, own_s = (statistics.median(column) for column in zip(*rounds, strict=True))
    return bare_s, whole_s, own_s


def start_up(*command: str) -> float:
    """Median wall seconds of a command over five runs."""
    clock = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        clock.append(time.perf_counter() - start)
    return statistics.median(clock)


if __name__ == "__main__":
    bare, whole, own = sampler_overhead()
    print(f"{NFE} network calls at batch {BATCH}: {bare * 1e3:.0f} ms bare, {whole * 1e3:.0f} ms in Euler–Maruyama")
    print(f"Euler–Maruyama with a free network: {own * 1e3:.1f} ms, {own / bare:.1%} of the bare calls")
    print(f"python -c 'import psld': {start_up(sys.executable, '-c', 'import psld'):.2f} s")
    touch = "import psld; psld.PSLD(); psld.EulerMaruyama"
    print(f"python -c '{touch}': {start_up(sys.executable, '-c', touch):.2f} s")
    program = "import sys; from psld.cli import main; sys.exit(main(['--help']))"
    print(f"psld --help: {start_up(sys.executable, '-c', program):.2f} s")
