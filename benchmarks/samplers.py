"""Samplers on exact scores of the digits mixture: Fréchet distance to fresh draws against evaluations.

    python benchmarks/samplers.py

Every image is a component of standard deviation 0.05; 2,000 samples in pixel space. The floor is the distance between
two independent sets of 2,000 draws, averaged over five pairs.
"""

from __future__ import annotations

import torch

from psld import CLD, PSLD, RK45, SSCS, VPSDE, Ancestral, EulerMaruyama, Exponential, Process, Sampler, grids
from psld.data import Digits
from psld.evaluation import frechet_distance
from psld.exact import Empirical
from psld.grids import Grid

SAMPLES = 2000


def cells(process: Process) -> list[tuple[str, Sampler, Grid]]:
    """What is measured for a process."""
    rows: list[tuple[str, Sampler, Grid]] = []
    for nfe in (10, 20, 50):
        rows += [
            ("exponential, log-SNR", Exponential(), grids.log_snr(process, nfe)),
            ("exponential, quadratic", Exponential(), grids.quadratic(process, nfe)),
            ("ancestral, log-SNR", Ancestral(), grids.log_snr(process, nfe)),
            ("SSCS, paper quadratic", SSCS(), grids.paper(process, nfe, "quadratic")),
            ("Euler–Maruyama, paper quadratic", EulerMaruyama(), grids.paper(process, nfe, "quadratic")),
            ("Euler–Maruyama, paper uniform", EulerMaruyama(), grids.paper(process, nfe, "uniform")),
        ]
    return [*rows, ("RK45, tolerance 1e-3", RK45(rtol=1e-3, atol=1e-3), grids.uniform(process, 2))]


def main() -> None:
    """Print a Markdown table."""
    data = Empirical(Digits("all").images.double(), std=0.05)
    generator = torch.Generator().manual_seed(0)
    draws = [data.sample(SAMPLES, generator).flatten(1) for _ in range(10)]
    floor = sum(frechet_distance(a, b) for a, b in zip(draws[::2], draws[1::2], strict=True)) / 5
    print(f"floor {floor:.3f}\n\n| process | sampler | NFE | Fréchet distance |\n| --- | --- | --- | --- |")
    for process in (VPSDE(), CLD(), PSLD(gamma=0.01), PSLD(gamma=0.25)):
        model = data.model(process)
        for name, sampler, grid in cells(process):
            result = sampler.sample(model, data.data_shape, grid, range(SAMPLES))
            nfe = result.nfe.double().mean()
            print(
                f"| {process} | {name} | {nfe:.4g} | {frechet_distance(result.x.flatten(1), draws[0]):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
