"""What is compared: a sampler on a grid within a budget of network evaluations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from psld.model import Model
from psld.processes import LinearProcess
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
)
from psld.samplers.catalogue import entry_of, family_of
from psld.samplers.defaults import default_sampler
from psld.samplers.grids import Grid, ends
from psld.samplers.tuning import Judge, best_parameter
from psld.specs import Spec
from psld.spectrum import Spectrum

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
        spectrum: of the data, for the grid "best".
    """

    family: str
    label: str
    nfe: int
    sampler: Sampler
    grid: str
    build: Callable[[Judge | None], tuple[Sampler, Grid]]
    judged: bool = False
    spectrum: Spectrum | None = None

    @classmethod
    def of(
        cls,
        sampler: Sampler,
        grid: str,
        process: LinearProcess,
        nfe: int,
        family: str = "",
        label: str | None = None,
        spectrum: Spectrum | None = None,
    ) -> Cell:
        """A sampler as it is, on the grid of that name; its label says both unless another is given."""
        label = f"{sampler!r}, {grid}" if label is None else label
        known = spectrum if grid == "best" else None
        build = partial(_on_grid, sampler, grid, process, nfe, known)
        return cls(family, label, nfe, sampler, grid, build, spectrum=known)

    def key(self, process: LinearProcess) -> str:
        """What the cell of a process is known by: a hash of process, sampler, grid, budget, and whether it is tuned."""
        known = {"process": process.spec, "sampler": self.sampler.spec, "grid": self.grid}
        known |= {} if self.spectrum is None else {"spectrum": self.spectrum.digest}
        return Spec("psld.comparison.Cell", known | {"nfe": self.nfe, "judged": self.judged}).digest


def _on_grid(
    sampler: Sampler, grid: str, process: LinearProcess, nfe: int, spectrum: Spectrum | None, judge: Judge | None
) -> tuple[Sampler, Grid]:
    return sampler, sampler.grid(grid, process, nfe, spectrum)


def cells(process: LinearProcess, nfe: int, model: Model | None = None) -> Iterator[Cell]:
    """What is compared for a process, the default of a model first, then the paper's samplers."""
    if model is not None:
        sampler = default_sampler(model, nfe)
        yield Cell.of(sampler, "best", process, nfe, family_of(sampler), spectrum=model.spectrum)

    def fixed(grid: str, *samplers: Sampler) -> Iterator[Cell]:
        for sampler in samplers:
            if entry_of(sampler).takes(process):
                yield Cell.of(sampler, grid, process, nfe, family_of(sampler))

    def tuned(grid: str, name: str, make: Callable[[float], Sampler]) -> Iterator[Cell]:
        def build(judge: Judge | None) -> tuple[Sampler, Grid]:
            assert judge is not None
            times = make(0.0).grid(grid, process, nfe)
            return make(best_parameter(judge, make, times, LAMBDAS, refinements=2).best), times

        if entry_of(make(0.0)).takes(process):
            yield Cell(family_of(make(0.0)), f"{name}, best λ, {grid}", nfe, make(0.0), grid, build, judged=True)

    yield from fixed("paper-uniform", EulerMaruyama())
    yield from fixed("paper-quadratic", EulerMaruyama(), SSCS())
    tolerance = partial(rk45_within, nfe)
    yield Cell(family_of(RK45()), "RK45, tolerance for this NFE", nfe, RK45(), "ends", tolerance, judged=True)
    for name in ("log-snr", "quadratic", "edm-rho", "optimised"):
        yield from fixed(name, Exponential(order=2))
    yield from fixed("optimised", Exponential(order=1), Exponential(order=3), DPMSolverPP(), GDDIM(2), GDDIM(3))
    yield from fixed("optimised", PredictorCorrector(1), PredictorCorrector(2))
    yield from fixed("edm-rho", PredictorCorrector(2))
    solvers = (Exponential(order=2), Exponential(order=3), PredictorCorrector(2))
    yield from fixed("optimised", *map(Projected, solvers), Projected(PredictorCorrector(2), "mean"))
    yield from fixed("edm-rho", Projected(Heun()))
    yield from fixed("optimised", Projected(PredictorCorrector(2), "fresh"), Projected(Exponential(order=2, eta=1.0)))
    yield from fixed("edm-rho", Projected(Heun(churn=2.0)))
    yield from fixed("log-snr", Ancestral())
    yield from fixed("optimised", Ancestral(), Exponential(order=2, eta=0.3), Exponential(order=2, eta=1.0))
    yield from fixed("edm-rho", Exponential(order=2, eta=1.0), Langevin(PredictorCorrector(2)))
    yield from fixed("quadratic", Heun())
    for direction in ("identity", "ones"):
        yield from tuned("optimised", f"Conjugate {direction}", partial(Conjugate, direction=direction))
    yield from fixed("quadratic", SymplecticEuler(), VelocityVerlet(), RVV())
    yield from tuned("quadratic", "ConjugateVerlet", ConjugateVerlet)
    yield from fixed("quadratic", OBA(), ROBA(), ROBA(position_noise=0.5), ConjugateOBA())


def rk45_within(nfe: int, judge: Judge | None) -> tuple[Sampler, Grid]:
    """RK45 with the smallest tolerance that keeps the mean number of evaluations within the budget, or the loosest."""
    assert judge is not None
    times = ends(judge.model.process)
    candidates = [RK45(tolerance, tolerance) for tolerance in TOLERANCES]
    for sampler in candidates:
        few = sampler.sample(judge.model, grid=times, seeds=judge.seeds[:32], shape=judge.shape)
        if float(few.nfe.double().mean()) <= nfe:
            return sampler, times
    return candidates[-1], times
