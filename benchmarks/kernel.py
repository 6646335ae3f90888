"""Kernel precision against 80-digit values, and the time of a training batch's coefficients.

python benchmarks/kernel.py
"""

from __future__ import annotations

import json
import statistics
import time
from decimal import Decimal
from pathlib import Path

import torch

from psld import PSLD
from psld.schedules import Constant, Linear

TABLE = Path(__file__).resolve().parent.parent / "tests" / "reference" / "perturbation_kernel.json"


def worst_relative_error() -> float:
    """Over every entry of every mean map and covariance of the table, HSM and DSM, jitter zero."""
    worst = Decimal(0)
    for row in json.loads(TABLE.read_text()):
        low, high = row["beta_min"], row["beta_max"]
        beta = Constant(low) if low == high else Linear(low, high)
        process = PSLD(gamma=row["gamma"], nu=row["nu"], kappa=row["kappa"], beta=beta)
        kernel = process.marginal(row["t"], row["matching"])
        for name, matrix in (("mean_map", kernel.mean_map), ("cov", kernel.covariance)):
            for exact_row, ours in zip(row["exact"][name], matrix.tolist(), strict=True):
                for exact, value in zip(map(Decimal, exact_row), map(Decimal, ours), strict=True):
                    worst = max(worst, abs(value - exact) / abs(exact))
    return float(worst)


def milliseconds(times: int, repeats: int = 200) -> float:
    """Median time of marginal and Cholesky factor for a batch of times."""
    process, t, clock = PSLD(), torch.rand(times), []
    for _ in range(repeats):
        start = time.perf_counter()
        _ = process.marginal(t).cholesky
        clock.append(time.perf_counter() - start)
    return 1e3 * statistics.median(clock)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"worst relative error over the table: {worst_relative_error():.2e}")
    print(f"coefficients for a batch of 128 times: {milliseconds(128):.2f} ms (median of 200, one thread)")
