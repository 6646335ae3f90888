"""What every sampler of the catalogue promises, on every process that it takes.

Orders: on Gaussian data a run is affine, so the law is propagated (laws.py), never sampled. Each run starts from the
exact marginal at one time and is compared at a later one, in units of that law's spread, on equal steps of t short
enough to be asymptotic. (From T to t = 1e-3 hundreds are not, in phase space: the last decades of noise get too few.)
"""

import copy
import inspect
import math
import pickle
from pathlib import Path

import pytest
import torch

import laws
import psld
import row_by_row
from contracts.every_process import WarmingLangevin
from psld import exact
from psld.cli.arguments import built
from psld.cli.sample import parser
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
from psld.samplers.sampler import row
from psld.specs import build

F64 = torch.float64
CHAIN, WARMING = HigherOrderLangevin(3), WarmingLangevin()
PROCESSES = [VPSDE(), CLD(), PSLD(0.01), CHAIN, WARMING]
DEFAULTS = [entry.sampler for entry in CATALOGUE]
BATCH_WIDE = RK45(1e-3, 1e-4, control="batch")  # where samples share a step size, and say so
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
    RK45(1e-3, 1e-4),
    BATCH_WIDE,
]
EVERY = [*DEFAULTS, *VARIANTS]
DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4, 0.3], [-0.7, 0.1, 0.0]], dtype=F64), std=torch.tensor([0.2, 0.5], dtype=F64)
)
GRID = Grid([1.0, 0.8, 0.6, 0.45, 0.35])
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
    """Not those that choose their steps, nor corrections (biased, see test_law.py), nor noise of another law."""
    inner = sampler.solver if isinstance(sampler, Projected) else sampler
    other_law = isinstance(sampler, OBA | ConjugateOBA) and sampler.position_noise != 1.0
    fresh = isinstance(sampler, Projected) and sampler.ancillary == "fresh"
    return isinstance(inner, FixedStepSampler) and not isinstance(inner, Langevin) and not other_law and not fresh


def check_order(sampler, process):
    data = exact.Gaussian(mean=0.3, std=0.7)
    errors = [laws.law_error(sampler, process, data, grid) for grid in steps_for(sampler, process)]
    assert laws.fitted_order(errors) == pytest.approx(sampler.order, abs=0.15)
    assert errors[-1] < 0.15


def for_later(sampler, process):
    """Defaults are tested on PSLD and VP, others on PSLD; and where D(t) grows but for the exponential family.

    The collocation behind that takes seconds a grid where A and D have no closed form.
    """
    if isinstance(sampler, Heun) and sampler.churn:  # seconds a grid: noise is drawn twice a step
        return True
    if process is WARMING:
        return sampler in VARIANTS or isinstance(sampler, Exponential | PredictorCorrector | GDDIM | Heun)
    return process not in ([VPSDE(), PSLD(0.01)] if sampler in DEFAULTS else [PSLD(0.01)])


@pairs([sampler for sampler in EVERY if has_an_order(sampler)], fits=True, slow=for_later)
def test_declared_order(sampler, process):
    check_order(sampler, process)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pairs(EVERY, fits=False)
def test_a_process_without_what_it_needs_is_refused(sampler, process):
    """In one sentence that names samplers which take the process, as they do."""
    with pytest.raises(ValueError, match=rf"^{type(sampler).__name__} .*take any linear process\.$") as refused:
        sampler.prepare(process, GRID)
    named = [entry for entry in CATALOGUE if entry.name in str(refused.value).rsplit(": ", 1)[1]]
    assert len(named) == 4 and not any(entry.needs for entry in named)


def test_processes_without_a_recipe_are_known_by_type():
    takes = {entry.name for entry in CATALOGUE if entry.takes(SubVPSDE())}
    assert takes == {entry.name for entry in CATALOGUE if entry.takes(VESDE())}
    assert "Conjugate" in takes and not takes & {"SSCS", "OBA", "RVV"}


@pytest.mark.parametrize("chooses", [RK45(), Projected(Exponential()), Projected(RK45())], ids=repr)
def test_a_predictor_takes_fixed_steps(chooses):
    with pytest.raises(
        ValueError, match=r"Langevin needs a fixed-step sampler.*use Projected\(Langevin\(solver, …\)\)"
    ):
        Langevin(chooses)


# -- seeds, calls and memory -------------------------------------------------------------------------------------------


@pairs(
    [sampler for sampler in EVERY if sampler != BATCH_WIDE],
    fits=True,
    slow=lambda sampler, process: process != PSLD(0.01) or sampler == RK45(),
)
def test_a_sample_depends_on_its_own_seed(sampler, process):
    """To the last bit, alone, with others, or in batches; the calls are counted, and two runs are one."""
    model, calls = row_by_row.model(DATA, process), []
    network = model.network
    model.network = lambda *arguments: (calls.append(1), network(*arguments))[1]
    together = sampler.sample(model, 3, GRID, 4, shape=(3,))
    if isinstance(sampler, FixedStepSampler):
        assert len(calls) == sampler.nfe_per_step * GRID.steps + 1
        assert together.nfe.tolist() == [len(calls)] * 3
    alone = sampler.sample(model, None, GRID, [6], shape=(3,))
    in_batches = sampler.sample(model, 3, GRID, 4, shape=(3,), batch_size=2)
    assert torch.equal(together.z[2], alone.z[0]) and torch.equal(together.x[2], alone.x[0])
    assert torch.equal(together.z, in_batches.z) and torch.equal(together.nfe, in_batches.nfe)
    assert together.seeds == in_batches.seeds == (4, 5, 6)
    assert together.z.isfinite().all() and not torch.equal(together.z[0], together.z[1])


@pytest.mark.parametrize("sampler", [s for s in EVERY if isinstance(s, FixedStepSampler)], ids=repr)
def test_a_step_is_a_function_of_its_arguments(sampler):
    """Two runs through one sampler, a step of each in turn, are what they are alone; and a step taken twice is one."""
    process = PSLD(0.25)
    model, grid = DATA.model(process), log_snr(process, 5, end=0.05)
    plan = sampler.prepare(process, grid)
    z = torch.randn(2, 2, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    draws = torch.randn(2, 3 * grid.steps, 2, 2, 3, dtype=F64, generator=torch.Generator().manual_seed(1))
    alone = [sampler.integrate(model, z[i], plan, iter(draws[i]).__next__)[0] for i in range(2)]
    states, noises = [sampler.init(z[i]) for i in range(2)], [iter(draws[i]).__next__ for i in range(2)]
    run = list(z)
    for j, t in enumerate(grid.times[:-1]):
        for i in range(2):
            own, used = row(plan.tables, j), []

            def remembered(noise=noises[i], used=used):
                used.append(noise())
                return used[-1]

            first = sampler.step(run[i], states[i], own, model, t, remembered)
            again = sampler.step(run[i], states[i], own, model, t, iter(used).__next__)
            assert torch.equal(first[0], again[0])
            run[i], states[i] = first
    assert all(torch.equal(a, b) for a, b in zip(alone, run, strict=True))


# -- identity ----------------------------------------------------------------------------------------------------------


@every
def test_spec_says_all(sampler):
    """An equal sampler from its spec, from repr, and by copying; no two samplers are one."""
    check_spec(sampler)
    assert sum(sampler == other for other in EVERY) == 1


def check_spec(sampler, own=False):
    """Of a sampler of one's own, which no configuration may name without trust, in the same way."""
    names = {name: getattr(psld.samplers, name) for name in psld.samplers.__all__}
    names |= {"inf": math.inf, type(sampler).__name__: type(sampler)}
    for other in (
        build(sampler.spec, trust=own),
        build(sampler.spec.config(), trust=own),
        eval(repr(sampler), names),
        copy.deepcopy(sampler),
        pickle.loads(pickle.dumps(sampler)),
    ):
        assert type(other) is type(sampler) and other == sampler and hash(other) == hash(sampler)
        assert eval(repr(other), names) == sampler and vars(other).keys() == vars(sampler).keys()
        assert (other.order, other.stochastic, other.nfe_per_step) == (
            sampler.order,
            sampler.stochastic,
            sampler.nfe_per_step,
        )


def test_repr_drops_no_argument():
    """Two samplers that draw different images had one name, and a folder of images mixed them."""
    narrow = Heun(churn=1.0, churn_range=(0.1, 2.0))
    assert repr(narrow) == "Heun(churn=1, churn_range=(0.1, 2))" and narrow != Heun(churn=1.0)
    assert narrow.spec.digest != Heun(churn=1.0).spec.digest


# -- the catalogue -----------------------------------------------------------------------------------------------------


def test_every_sampler_module_is_in_the_catalogue():
    """Every concrete sampler of the package has a row, and psld and psld.samplers export it."""

    def below(kind):
        return {kind} | {deeper for child in kind.__subclasses__() for deeper in below(child)}

    concrete = {kind for kind in below(Sampler) if kind.__module__.startswith("psld.samplers")}
    concrete = {kind for kind in concrete if not inspect.isabstract(kind)}
    assert concrete == {type(entry.sampler) for entry in CATALOGUE}
    for entry in CATALOGUE:
        assert getattr(psld, entry.name) is getattr(psld.samplers, entry.name) is type(entry.sampler)
        assert entry.name in dir(psld) and entry.name in psld.samplers.__all__
        assert getattr(catalogue_module, entry.name) is type(entry.sampler)


def test_the_table_of_the_documentation_is_the_catalogue():
    text = (ROOT / "docs" / "samplers.md").read_text(encoding="utf-8")
    assert markdown() in text


def test_families():
    assert family_of(Exponential(2)) == "exponential" and family_of(Exponential(2, 0.5)) == "exponential, stochastic"
    assert family_of(EulerMaruyama()) == "paper" and family_of(ROBA(0.5)) == "splitting, stochastic"


def test_a_sampler_of_ones_own_has_the_family_of_its_base():
    class Mine(ROBA):
        pass

    assert family_of(Mine()) == "splitting, stochastic"


def test_the_sampler_of_the_documentation_keeps_the_contract():
    """The example of a sampler of one's own, as it is printed: its order, its spec, and its samples."""
    section = (ROOT / "docs" / "samplers.md").read_text(encoding="utf-8").split("## A sampler of your own")[1]
    code = section.split("```python")[1].split("```")[0]
    model = DATA.model(PSLD(0.01))
    model.data_shape = (3,)  # pyright: ignore[reportAttributeAccessIssue]
    names = {"model": model, "__name__": "of_the_documentation"}
    exec(code, names)
    sampler, samples = names["HeldNoise"](), names["samples"]
    assert repr(sampler) == "HeldNoise()" and sampler.spec.path.endswith("HeldNoise")
    assert len(samples) == 16 and samples.x.isfinite().all()
    for process in (VPSDE(), PSLD(0.01)):
        check_order(sampler, process)


@pytest.mark.parametrize("entry", CATALOGUE, ids=lambda entry: entry.name)
def test_commands_make_every_sampler_by_its_name(entry):
    options = parser()
    inner = {
        "Langevin": ["--sampler.predictor", "PredictorCorrector"],
        "Projected": ["--sampler.solver", "Exponential"],
    }
    given = ["run", "--out", "out", "--sampler", entry.name, *inner.get(entry.name, [])]
    assert built(options.parse_args(given), "sampler") == entry.sampler
    assert entry.name in options.format_help()
