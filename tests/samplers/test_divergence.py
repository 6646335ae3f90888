"""Diverged samples are marked: those that the exact marginal of the process excludes, and no others."""

import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

import psld
from psld.data import Digits
from psld.editing import edit
from psld.exact import Empirical
from psld.kernels import outer
from psld.model import Clamped, ScoreModel
from psld.noise import SeededNoise
from psld.processes import CLD, EDM, PSLD, VESDE, VPSDE, HigherOrderLangevin
from psld.samplers import ConjugateOBA, DivergedWarning, Exponential, Samples, VelocityVerlet
from psld.samplers.divergence import diverged
from psld.samplers.grids import Grid

PROCESSES = [VPSDE(), CLD(), PSLD(0.25), HigherOrderLangevin(3), VESDE(), EDM(80.0)]
N, SHAPE = 4000, (3, 2)


def exact_states(process, end, low=-1.0, high=1.0):
    generator = torch.Generator().manual_seed(0)
    ends = torch.tensor([low, high], dtype=torch.float64)
    x0 = ends[torch.randint(2, (N, *SHAPE), generator=generator)]
    eps = torch.randn(N, process.k, *SHAPE, dtype=torch.float64, generator=generator)
    return x0, process.perturb(x0, end, eps)


@pytest.mark.parametrize("end", [1e-3, 0.05, 0.5, 1.0])
@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_exact_states_of_the_extremes_of_the_data_are_not_counted(process, end):
    """24,000 pixels at the ends of the range; as images x₀, and positions with all their noise."""
    x0, z = exact_states(process, end)
    for image in (x0, process.project(z)):
        assert not diverged(process, image, z, end, (-1.0, 1.0)).any()
        assert not diverged(process, image, z, end).any()


@pytest.mark.parametrize("low, high", [(-1.0, 1.0), (0.0, 255.0)])
@pytest.mark.parametrize("process", PROCESSES, ids=repr)
def test_a_statistic_beyond_four_ranges_is_counted_whatever_the_image(process, low, high):
    """Φ₀ v on top of a state moves its statistic by v: just inside the limit, and just outside."""
    end, half, middle = 0.05, 0.5 * (high - low), 0.5 * (low + high)
    sigma = float(process.noise_scale(end))
    y = torch.full((4, *SHAPE), middle, dtype=torch.float64)
    limit = 4.0 * half + 10.0 * sigma
    y[:, 0, 0] = middle + limit * torch.tensor([0.999, 1.001, -0.999, -1.001], dtype=torch.float64)
    z = outer(process.signal(end), y)
    inside = torch.full_like(y, middle)
    assert diverged(process, inside, z, end, (low, high)).tolist() == [False, True, False, True]
    wild = inside.clone()
    wild[2, 1, 1] = middle + 100 * limit
    assert diverged(process, wild, z, end, (low, high)).tolist() == [False, True, True, True]


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_not_finite_is_counted_in_image_and_state(value):
    process = PSLD(0.25)
    x, z = torch.zeros(4, *SHAPE), torch.zeros(4, 2, *SHAPE)
    x[0, 1, 1], z[2, 0, 0, 1], z[3, 1, 2, 0] = value, value, value
    assert diverged(process, x, z, 1e-3, (-1.0, 1.0)).tolist() == [True, False, True, True]
    assert diverged(process, x, z, 1e-3).tolist() == [True, False, True, True]


def test_data_of_unknown_range_may_be_as_large_as_the_noise_that_sampling_starts_from():
    process = VPSDE()
    largest = float(process.noise_scale(1.0))
    assert largest == pytest.approx(152.2, abs=0.1)  # √(e^∫β − 1), ∫β = 10.05
    x = largest * torch.tensor([1.0, 3.9, 4.1, 100.0], dtype=torch.float64)[:, None]
    assert diverged(process, x, outer(process.signal(1e-3), x), 1e-3).tolist() == [False, False, True, True]


def test_a_clamped_image_does_not_hide_what_its_state_became():
    """Velocity Verlet needs more than 10 calls on psld-digits; its pictures are within [−1, 1] all the same."""
    model = psld.load("psld-digits")
    grid = VelocityVerlet().grid("log-snr", model.process, 10)
    with pytest.warns(DivergedWarning, match=r"4 of 4 samples diverged \(seeds 5, 6, 7, 8;"):
        samples = model.sample(4, sampler=VelocityVerlet(), grid=grid, seeds=5, batch_size=3)
    assert samples.x.abs().max() <= 1.0 and samples.z.abs().max() > 100.0
    assert samples.diverged.tolist() == [True] * 4 and repr(samples).endswith("4 diverged)")
    images = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    with pytest.warns(DivergedWarning, match="2 of 2"):
        edit(VelocityVerlet(), Clamped(model), images, grid, (0, 1))


def test_samples_of_a_good_sampler_are_not_counted_however_few_its_steps():
    model = psld.load("psld-digits")
    with warnings.catch_warnings():
        warnings.simplefilter("error", DivergedWarning)
        for steps, asked in ((5, Clamped(model)), (10, Clamped(model)), (10, model), (20, model)):
            samples = Exponential().sample(asked, 16, "log-snr", steps=steps)
            assert samples.diverged.shape == (16,) and not samples.diverged.any()


def test_higher_order_langevin_of_order_3_blows_up_in_20_conjugate_steps():
    model = Empirical(Digits("heldout").images[:50].double()).model(HigherOrderLangevin(3))
    with pytest.warns(DivergedWarning, match="3 of 3"):
        samples = ConjugateOBA().sample(model, 3, "log-snr", steps=20)
    assert samples.z.abs().max() > 1e20 and samples.diverged.all()


def test_batches_are_joined_in_order():
    def part(marks):
        x = torch.zeros(len(marks), 1)
        return Samples(x, x[:, None], torch.ones(len(marks), dtype=torch.int64), tuple(marks), torch.tensor(marks) > 1)

    assert Samples.joined([part([0, 2]), part([1]), part([3])]).diverged.tolist() == [False, True, False, True]


def test_each_sample_is_judged_by_itself():
    """A network that answers NaN where the mean of its state is positive, at its first call: half of all seeds."""

    def denoiser(y, sigma):
        first = sigma[:, None] > 100.0
        return torch.where(first & (y.mean(1, keepdim=True) > 0), torch.nan, 0.0 * y)

    model = ScoreModel(denoiser, PSLD(0.25), "denoiser", data_shape=(3,))
    with pytest.warns(DivergedWarning):
        samples = Exponential().sample(model, 20, Grid([1.0, 0.5, 0.1]))
    assert 5 <= samples.diverged.sum() <= 15
    start = model.process.prior_sample(SeededNoise(range(20), (2, 3))())
    assert torch.equal(samples.diverged, model.process.statistic(start, 1.0)[0].mean(1) > 0)
    assert torch.equal(samples.z[:, 0].isnan().any(1), samples.diverged)


def test_the_warning_names_the_line_that_asked(tmp_path):
    """Also where `model.sample` lies between; in a process of its own, where no test checks annotations."""
    (tmp_path / "asking.py").write_text(
        "import psld, torch\n"
        "model = psld.ScoreModel(lambda y, sigma: y / 0, psld.VPSDE(), 'denoiser', data_shape=(3,))\n"
        "model.sample(2, steps=3)\n"
        "psld.samplers.Exponential().sample(model, 2, steps=3)\n"
    )
    asked = subprocess.run([sys.executable, "asking.py"], cwd=tmp_path, capture_output=True, text=True, check=True)
    warned = [line.split(" DivergedWarning")[0] for line in asked.stderr.splitlines() if "DivergedWarning" in line]
    assert [Path(line).name for line in warned] == ["asking.py:3:", "asking.py:4:"]
