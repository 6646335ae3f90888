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

import torch

from psld import PSLD, EulerMaruyama, ScoreModel, grids
from psld.networks import UNet

NFE, BATCH, ROUNDS = 20, 64, 21


def sampler_overhead() -> tuple[float, float]:
    """Median seconds of NFE bare network calls, and of an Euler–Maruyama run of NFE evaluations."""
    process = PSLD()
    network = UNet(2, 2, image_size=8, width=32, multipliers=(1, 1), blocks=1, attention_resolutions=(4,)).eval()
    grid = grids.quadratic(process, NFE)
    model = ScoreModel(network, process).tabulate(grid.times)
    sampler = EulerMaruyama()
    plan = sampler.prepare(process, grid)
    z, t = torch.randn(BATCH, 2, 1, 8, 8), torch.rand(BATCH)
    bare, whole = [], []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        with torch.no_grad():
            for _ in range(NFE):
                network(z, t)
        bare.append(time.perf_counter() - start)
        start = time.perf_counter()
        sampler.sample(model, (1, 8, 8), grid, range(BATCH), plan=plan)
        whole.append(time.perf_counter() - start)
    return statistics.median(bare), statistics.median(whole)


def start_up(*command: str) -> float:
    """Median wall seconds of a command over five runs."""
    clock = []
    for _ in range(5):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        clock.append(time.perf_counter() - start)
    return statistics.median(clock)


if __name__ == "__main__":
    bare, whole = sampler_overhead()
    print(f"{NFE} network calls at batch {BATCH}: {bare * 1e3:.0f} ms bare, {whole * 1e3:.0f} ms in Euler–Maruyama")
    print(f"overhead {whole / bare - 1:+.1%}")
    print(f"python -c 'import psld': {start_up(sys.executable, '-c', 'import psld'):.2f} s")
    touch = "import psld; psld.PSLD(); psld.EulerMaruyama"
    print(f"python -c '{touch}': {start_up(sys.executable, '-c', touch):.2f} s")
    program = "import sys; from psld.cli import main; sys.exit(main(['--help']))"
    print(f"psld --help: {start_up(sys.executable, '-c', program):.2f} s")
