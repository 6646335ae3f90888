"""What is compared: a sampler on a grid within a budget of network evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from psld.processes import LinearProcess, Process
from psld.samplers import (
    GDDIM,
    OBA,
    RK45,
    ROBA,
    RVV,
    SSCS,
    Ancestral,
    Conjugate,
    ConjugateOBA,
    ConjugateVerlet,
    DPMSolverPP,
    EulerMaruyama,
    Exponential,
    Heun,
    Langevin,
    PredictorCorrector,
    Projected,
    Sampler,
    SymplecticEuler,
    VelocityVerlet,
    grids,
)
from psld.samplers.grids import Grid
from psld.samplers.tuning import Judge, best_parameter
from psld.specs import Spec

__all__ = ["Cell", "cells"]

LAMBDAS = (-4.0, -2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0, 4.0)
TOLERANCES = tuple(10.0**e for e in (-5, -4, -3, -2, -1, 0, 1, 2, 3))


class Cell(NamedTuple):
    """A sampler on a grid within a budget of evaluations.

    Both are built late: some (`judged`) look for a parameter with a judge first, the others need none.

    Attributes:
        family, label: what tables and plots call it.
        nfe: the budget.
        sampler: the one that is built, or for `judged` cells that of which a parameter is looked for.
        grid: name of the grid.
        build: makes both.
        judged: whether `build` needs a judge.
    """

    family: str
    label: str
    nfe: int
    sampler: Sampler
    grid: str
    build: Callable[[Judge | None], tuple[Sampler, Grid]]
    judged: bool = False

    @classmethod
    def of(
        cls, sampler: Sampler, grid: str, process: LinearProcess, nfe: int, family: str = "", label: str | None = None
    ) -> Cell:
        """A sampler as it is, on the grid of that name; its label says both unless another is given."""
        label = f"{sampler!r}, {grid}" if label is None else label
        return cls(family, label, nfe, sampler, grid, partial(_on_grid, sampler, grid, process, nfe))

    def key(self, process: LinearProcess) -> str:
        """What the cell of a process is known by: a hash of process, sampler, grid, budget, and whether it is tuned."""
        known = {"process": process.spec, "sampler": self.sampler.spec, "grid": self.grid}
        return Spec("psld.comparison.Cell", known | {"nfe": self.nfe, "judged": self.judged}).digest


def _on_grid(
    sampler: Sampler, grid: str, process: LinearProcess, nfe: int, judge: Judge | None
) -> tuple[Sampler, Grid]:
    return sampler, sampler.grid(grid, process, nfe)


def cells(process: LinearProcess, nfe: int) -> Iterator[Cell]:
    """What is compared for a process, the paper's samplers first."""

    def fixed(family: str, grid: str, sampler: Sampler) -> Cell:
        return Cell.of(sampler, grid, process, nfe, family=family)

    def tuned(family: str, grid: str, name: str, sampler: Callable[[float], Sampler]) -> Cell:
        def build(judge: Judge | None) -> tuple[Sampler, Grid]:
            assert judge is not None
            times = sampler(0.0).grid(grid, process, nfe)
            return sampler(best_parameter(judge, sampler, times, LAMBDAS, refinements=2).best), times

        return Cell(family, f"{name}, best λ, {grid}", nfe, sampler(0.0), grid, build, judged=True)

    yield fixed("paper", "paper-uniform", EulerMaruyama())
    yield fixed("paper", "paper-quadratic", EulerMaruyama())
    if isinstance(process, Process):
        yield fixed("paper", "paper-quadratic", SSCS())
    tolerance = partial(rk45_within, nfe)
    yield Cell("paper", "RK45, tolerance for this NFE", nfe, RK45(), "ends", tolerance, judged=True)
    for name in ("log-snr", "quadratic", "edm-rho", "optimised"):
        yield fixed("exponential", name, Exponential(order=2))
    for sampler in (Exponential(order=1), Exponential(order=3), DPMSolverPP(), GDDIM(order=2), GDDIM(order=3)):
        yield fixed("exponential", "optimised", sampler)
    for predictor in (1, 2):
        yield fixed("exponential", "optimised", PredictorCorrector(predictor))
    yield fixed("exponential", "edm-rho", PredictorCorrector(predictor=2))
    for solver in (Exponential(order=2), Exponential(order=3), PredictorCorrector(predictor=2)):
        yield fixed("projected", "optimised", Projected(solver))
    yield fixed("projected", "optimised", Projected(PredictorCorrector(predictor=2), "mean"))
    yield fixed("projected", "edm-rho", Projected(Heun()))
    yield fixed("projected, stochastic", "optimised", Projected(PredictorCorrector(predictor=2), "fresh"))
    yield fixed("projected, stochastic", "optimised", Projected(Exponential(order=2, eta=1.0)))
    yield fixed("projected, stochastic", "edm-rho", Projected(Heun(churn=2.0)))
    yield fixed("stochastic", "log-snr", Ancestral())
    yield fixed("stochastic", "optimised", Ancestral())
    for eta in (0.3, 1.0):
        yield fixed("stochastic", "optimised", Exponential(order=2, eta=eta))
    yield fixed("stochastic", "edm-rho", Exponential(order=2, eta=1.0))
    yield fixed("stochastic", "edm-rho", Langevin(PredictorCorrector(predictor=2)))
    yield fixed("Runge–Kutta", "quadratic", Heun())
    for direction in ("identity", "ones"):
        yield tuned("conjugate", "optimised", f"Conjugate {direction}", partial(Conjugate, direction=direction))
    if process.k > 1:
        for splitting in (SymplecticEuler(), VelocityVerlet(), RVV()):
            yield fixed("splitting", "quadratic", splitting)
        yield tuned("splitting", "quadratic", "ConjugateVerlet", ConjugateVerlet)
        for sampler in (OBA(), ROBA(), ROBA(position_noise=0.5), ConjugateOBA()):
            yield fixed("splitting, stochastic", "quadratic", sampler)


def rk45_within(nfe: int, judge: Judge | None) -> tuple[Sampler, Grid]:
    """RK45 with the smallest tolerance that keeps the mean number of evaluations within the budget, or the loosest."""
    assert judge is not None
    ends = grids.uniform(judge.model.process, 2)
    candidates = [RK45(tolerance, tolerance) for tolerance in TOLERANCES]
    for sampler in candidates:
        few = sampler.sample(judge.model, judge.shape, ends, judge.seeds[:32])
        if float(few.nfe.double().mean()) <= nfe:
            return sampler, ends
    return candidates[-1], ends
