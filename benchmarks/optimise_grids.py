"""Grids optimised on exact scores of the digits: what `psld.samplers.grids.optimised` reads.

    python benchmarks/optimise_grids.py

For VP, CLD and PSLD, and each NFE: the noise scales at which the exponential sampler of order 2 is nearest
to the exact probability flow. The grid of VP also serves the projected samplers of every process, which walk in the
same variable. Writes src/psld/samplers/optimised_grids.json; an interrupted run goes on.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tqdm import tqdm

from psld import CLD, PSLD, VPSDE, Exponential
from psld.data import Digits
from psld.exact import Empirical
from psld.files import write_json
from psld.samplers.tuning import Judge, optimise_grid
from psld.specs import build

PROCESSES = [VPSDE(), CLD(), PSLD(gamma=0.01), PSLD(gamma=0.25)]
BUDGETS = [5, 8, 10, 15, 20, 50]
SEEDS = range(100_000, 100_256)  # other noise than any benchmark's
TARGET = Path(__file__).parent.parent / "src" / "psld" / "samplers" / "optimised_grids.json"


def main() -> None:
    """Search what is not there yet."""
    rows = json.loads(TARGET.read_text()) if TARGET.exists() else []
    data = Empirical(Digits("all").images.double(), std=0.05)
    for process in PROCESSES:
        done = {row["nfe"]: row for row in rows if build(row["process"]) == process}
        if len(done) == len(BUDGETS):
            continue
        judge, start = Judge(data.model(process), data.data_shape, SEEDS), None
        for nfe in tqdm(BUDGETS, desc=repr(process)):
            if nfe not in done:
                sampler = Exponential(order=2)
                sigmas, error = optimise_grid(judge, sampler, nfe, start, evaluations=100 if nfe < 20 else 40)
                done[nfe] = {
                    "process": process.spec.config(),
                    "nfe": nfe,
                    "noise_scales": [float(f"{sigma:.5g}") for sigma in sigmas],
                    "data": "digits, component standard deviation 0.05",
                    "sampler": sampler.spec.config(),
                    "frechet_to_exact": error.frechet,
                    "rms_to_exact": error.rms,
                }
                rows.append(done[nfe])
                write_json(rows, TARGET)
            start = torch.tensor(done[nfe]["noise_scales"][1:], dtype=torch.float64)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
