"""RK45 with one step size for the whole batch: scipy's RK45 on the batch as one long vector, call for call."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

import laws
from psld import exact
from psld.noise import SeededNoise
from psld.processes import PSLD, VPSDE, HigherOrderLangevin
from psld.samplers import RK45
from psld.samplers.grids import Grid
from psld.samplers.runge_kutta import flow

DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4], [-0.7, 0.1], [0.1, 1.2]], dtype=torch.float64),
    std=torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64),
)
GRID = Grid(torch.tensor([1.0, 0.05], dtype=torch.float64), "none")
SEEDS = range(4)


@pytest.mark.parametrize(
    "process, rtol, atol", [(VPSDE(), 1e-3, 1e-6), (PSLD(0.01), 1e-4, 1e-4), (HigherOrderLangevin(3), 1e-3, 1e-4)]
)
def test_same_path_as_scipy(process, rtol, atol):
    model, start = DATA.model(process), process.prior_sample(SeededNoise(SEEDS, (process.k, 2))())

    def rate(t, z):
        state = torch.from_numpy(np.array(z)).reshape(start.shape)
        return flow(model, state, torch.full((len(start),), t, dtype=torch.float64)).flatten().numpy()

    theirs = solve_ivp(rate, (1.0, 0.05), start.flatten().numpy(), method="RK45", rtol=rtol, atol=atol)
    ours = RK45(rtol, atol, control="batch").sample(model, grid=GRID, seeds=SEEDS, shape=(2,))
    assert ours.nfe.tolist() == [theirs.nfev] * len(SEEDS)
    np.testing.assert_allclose(ours.z.flatten().numpy(), theirs.y[:, -1], rtol=1e-6, atol=1e-6)


def test_of_one_sample_it_is_the_same():
    model = DATA.model(PSLD(0.25))
    runs = [RK45(1e-3, 1e-3, control=control).sample(model, 1, GRID, 7, shape=(2,)) for control in ("sample", "batch")]  # pyright: ignore[reportArgumentType]
    assert torch.equal(runs[0].z, runs[1].z) and torch.equal(runs[0].nfe, runs[1].nfe)


def test_samples_share_their_steps():
    """Watched from the outside: one time a call for all, where control a sample has several."""
    process = PSLD(0.25)
    for control, shared in [("batch", True), ("sample", False)]:
        model, times = DATA.model(process), []
        model.network = lambda y, sigma, seen=times: (seen.append(len(set(sigma.tolist()))), DATA.denoiser(y, sigma))[1]
        RK45(1e-3, 1e-3, control=control).sample(model, grid=GRID, seeds=SEEDS, shape=(2,))  # pyright: ignore[reportArgumentType]
        assert (max(times) == 1) == shared


def test_control_is_named():
    with pytest.raises(laws.REFUSALS, match="control must be 'sample' or 'batch': got 'all'"):
        RK45(control="all")  # pyright: ignore[reportArgumentType]
