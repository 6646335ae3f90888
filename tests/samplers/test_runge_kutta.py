"""RK45 against scipy's, call for call."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from psld import exact
from psld.model import ScoreModel
from psld.noise import SeededNoise
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin
from psld.samplers import RK45
from psld.samplers.grids import Grid
from psld.samplers.runge_kutta import flow

DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4], [-0.7, 0.1], [0.1, 1.2]], dtype=torch.float64),
    std=torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
)
GRID = Grid(torch.tensor([1.0, 1e-2], dtype=torch.float64), "none")


@pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.01), HigherOrderLangevin(3), VESDE()], ids=repr)
@pytest.mark.parametrize("rtol, atol", [(1e-3, 1e-6), (1e-4, 1e-4)])
def test_same_path_as_scipy(process, rtol, atol):
    model = DATA.model(process)
    for seed in [0]:
        start = process.prior_sample(SeededNoise([seed], (process.k, 2))())

        def rate(t, z, shape=start.shape):
            state = torch.from_numpy(np.array(z)).reshape(shape)
            return flow(model, state, torch.tensor([t], dtype=torch.float64)).flatten().numpy()

        theirs = solve_ivp(rate, (1.0, 1e-2), start.flatten().numpy(), method="RK45", rtol=rtol, atol=atol)
        ours = RK45(rtol, atol).sample(model, grid=GRID, seeds=[seed], shape=(2,))
        assert int(ours.nfe) == theirs.nfev
        np.testing.assert_allclose(ours.z.flatten().numpy(), theirs.y[:, -1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("process", [VPSDE(), PSLD(0.01)], ids=repr)
def test_samples_do_not_see_their_neighbours(process):
    together = RK45().sample(DATA.model(process), grid=GRID, seeds=range(5), shape=(2,))
    assert len(set(together.nfe.tolist())) > 1
    for i in range(5):
        alone = RK45().sample(DATA.model(process), grid=GRID, seeds=[i], shape=(2,))
        assert torch.equal(alone.nfe[0], together.nfe[i])
        torch.testing.assert_close(alone.z[0], together.z[i], rtol=0, atol=1e-12)


@pytest.mark.parametrize("process", [VPSDE(), VESDE()], ids=repr)
def test_error_follows_the_tolerance(process):
    """Two tolerances agree: the error follows them down."""
    data = exact.Gaussian(0.3, 0.7, (2,))
    coarse = RK45(1e-6, 1e-6).sample(data.model(process), grid=GRID, seeds=range(3), shape=(2,))
    fine = RK45(1e-8, 1e-8).sample(data.model(process), grid=GRID, seeds=range(3), shape=(2,))
    torch.testing.assert_close(coarse.z, fine.z, rtol=0, atol=1e-5)


def test_denoising_is_one_more_call():
    grid = Grid(GRID.times, "denoise")
    model = DATA.model(PSLD())
    plain, denoised = (RK45().sample(model, grid=g, seeds=[0], shape=(2,)) for g in (GRID, grid))
    assert int(denoised.nfe) == int(plain.nfe) + 1
    assert torch.equal(denoised.x, model(plain.z, 1e-2).x0)


@pytest.mark.parametrize("tolerances", [(0.0, 1e-5), (1e-5, -1.0), (1e-5, 1e-5, 0)])
def test_tolerances_are_positive(tolerances):
    with pytest.raises(ValueError, match="must be (a positive|at least 1)"):
        RK45(*tolerances)


def test_gives_up_with_a_reason():
    with pytest.raises(RuntimeError, match="need more than 3 steps"):
        RK45(max_steps=3).sample(DATA.model(PSLD()), grid=GRID, seeds=[0], shape=(2,))
    broken = ScoreModel(lambda z, t: z * float("nan"), PSLD(), "score")
    with pytest.raises(RuntimeError, match="no longer finite"):
        RK45().sample(broken, grid=GRID, seeds=[0], shape=(2,))
