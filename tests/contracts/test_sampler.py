"""What every sampler of the catalogue promises, on every process that it takes.

Orders: on Gaussian data a run is affine, so the law is propagated (laws.py), never sampled. Each run starts from the
exact marginal at one time and is compared at a later one, in units of that law's spread, on equal steps of t short
enough to be asymptotic. (From T to t = 1e-3 hundreds are not, in phase space: the last decades of noise get too few.)
"""

import copy
import math
import pickle
import sys
from pathlib import Path

import pytest
import torch

import laws
import psld
import row_by_row
from contracts.every_process import WarmingLangevin
from psld import exact
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.samplers import (
    GDDIM,
    OBA,
    RK45,
    ROBA,
    Conjugate,
    ConjugateOBA,
    ConjugateVerlet,
    DPMSolverPP,
    EulerMaruyama,
    Exponential,
    FixedStepSampler,
    Heun,
    Langevin,
    PredictorCorrector,
    Projected,
    Sampler,
    SymplecticEuler,
    VelocityVerlet,
)
from psld.samplers import catalogue as catalogue_module
from psld.samplers.catalogue import CATALOGUE, entry_of, family_of, markdown
from psld.samplers.grids import Grid, log_snr
from psld.specs import build

F64 = torch.float64
CHAIN, WARMING = HigherOrderLangevin(3), WarmingLangevin()
PROCESSES = [VPSDE(), CLD(), PSLD(0.01), CHAIN, WARMING]
DEFAULTS = [entry.sampler for entry in CATALOGUE]
VARIANTS: list[Sampler] = [
    Exponential(1),
    Exponential(3),
    *(Exponential(order, eta) for order in (1, 2) for eta in (0.5, 1.0)),
    DPMSolverPP(eta=1.0),
    GDDIM(1),
    GDDIM(3),
    PredictorCorrector(1),
    Projected(PredictorCorrector(1)),
    Projected(Heun(), "fresh"),
    Heun(churn=1.0),
    Heun(churn=1.0, churn_range=(0.0, 1e4)),
    Langevin(EulerMaruyama(), 0.05, 2),
    Conjugate(0.3, "identity"),
    Conjugate(0.3, "ones"),
    ConjugateVerlet(0.3, "identity"),
    ConjugateOBA(0.3, "ones", 0.9),
    OBA(0.5),
    RK45(1e-3, 1e-4, control="batch"),
]
EVERY = [*DEFAULTS, *VARIANTS]
DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4, 0.3], [-0.7, 0.1, 0.0]], dtype=F64), std=torch.tensor([0.2, 0.5], dtype=F64)
)
ROOT = Path(__file__).parents[2]

every = pytest.mark.parametrize("sampler", EVERY, ids=repr)


def pairs(samplers, fits, slow=lambda sampler, process: False):
    """Those that fit together, the slow ones marked."""
    return pytest.mark.parametrize(
        "sampler, process",
        [
            pytest.param(
                sampler, process, id=f"{sampler!r}-{process!r}", marks=[pytest.mark.slow] * slow(sampler, process)
            )
            for sampler in samplers
            for process in PROCESSES
            if entry_of(sampler).takes(process) == fits
        ],
    )


# -- order -------------------------------------------------------------------------------------------------------------


def steps_for(sampler, process):
    if sampler.order == 3:
        start, stop, steps = 0.5, 0.4, (32, 64, 128)
    elif isinstance(sampler, Heun) and process is CHAIN:  # there its third-order error is the larger one for long
        start, stop, steps = 0.5, 0.25, (2048, 4096)
    elif isinstance(sampler, Heun | Conjugate | SymplecticEuler | VelocityVerlet):
        start, stop, steps = 0.6, 0.2, (256, 512, 1024)
    else:
        start, stop, steps = 0.6, 0.2, (64, 128, 256)
    return [Grid(torch.linspace(start, stop, n + 1, dtype=F64), "none") for n in steps]


def has_an_order(sampler):
    """Not those that choose their steps, corrections (biased, see test_law.py), nor noise that is not the reverse SDE's."""
    inner = sampler.solver if isinstance(sampler, Projected) else sampler
    other_law = isinstance(sampler, OBA | ConjugateOBA) and sampler.position_noise != 1.0
    fresh = isinstance(sampler, Projected) and sampler.ancillary == "fresh"
    return isinstance(inner, FixedStepSampler) and not isinstance(inner, Langevin) and not other_law and not fresh


def check_order(sampler, process):
    data = exact.Gaussian(mean=0.3, std=0.7)
    errors = [laws.law_error(sampler, process, data, grid) for grid in steps_for(sampler, process)]
    assert laws.fitted_order(errors) == pytest.approx(sampler.order, abs=0.15)
    assert errors[-1] < 0.15


@pairs([sampler for sampler in EVERY if has_an_order(sampler)], fits=True)
def test_declared_order(sampler, process):
    check_order(sampler, process)
