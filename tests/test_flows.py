"""The noise flow Ψ against its own identities, and against the differential equation it solves."""

import pytest
import torch
from scipy.integrate import solve_ivp

from psld.flows import noise_flow
from psld.kernels import cholesky
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE

PHASE_SPACE = [CLD(), PSLD(0.01), PSLD(0.25), HigherOrderLangevin(2), HigherOrderLangevin(3)]
SCALAR = [VPSDE(), VESDE(), SubVPSDE()]
PAIRS = [(1.0, 1e-3), (1.0, 0.3), (0.5, 0.4), (0.02, 0.01), (0.7, 0.7)]


def whitened(process, t, s):
    """L_s⁻¹ Ψ(s, t) L_t: Ψ in units of the noise, where every entry counts alike."""
    return process.marginal(s).whitener @ noise_flow(process, t, s) @ process.marginal(t).cholesky


@pytest.mark.parametrize("process", PHASE_SPACE, ids=repr)
@pytest.mark.parametrize("t, s", PAIRS)
def test_flow_carries_the_noise_covariance(process, t, s):
    psi = noise_flow(process, t, s)
    expected = process.marginal(s).covariance
    scale = torch.outer(expected.diagonal(), expected.diagonal()).sqrt()
    bound = 1e-12 if process.k == 2 else 1e-11  # rounding, not integration: the factor of order 3 is worse conditioned
    assert ((psi @ process.marginal(t).covariance @ psi.T - expected).abs() / scale).max() < bound


@pytest.mark.parametrize("process", PHASE_SPACE, ids=repr)
def test_flow_composes(process):
    for t, s, r in [(1.0, 0.3, 0.05), (0.9, 0.1, 0.01), (0.05, 0.02, 0.001), (1.0, 0.05, 0.001)]:
        torch.testing.assert_close(
            whitened(process, s, r) @ whitened(process, t, s), whitened(process, t, r), rtol=0, atol=1e-9
        )


@pytest.mark.parametrize("process", PHASE_SPACE, ids=repr)
@pytest.mark.parametrize("t, s", [(1.0, 0.3), (0.5, 0.05)])
def test_flow_solves_its_differential_equation(process, t, s):
    k = process.k

    def rate(time, psi):
        matrix = process.drift_rate(time) + process.diffusion_rate(time) @ torch.linalg.inv(
            process.marginal(time).covariance
        )
        return (matrix.numpy() @ psi.reshape(k, k)).ravel()

    solution = solve_ivp(rate, (t, s), torch.eye(k).double().numpy().ravel(), method="DOP853", rtol=1e-11, atol=1e-13)
    expected = torch.from_numpy(solution.y[:, -1].reshape(k, k))
    torch.testing.assert_close(noise_flow(process, t, s), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("process", SCALAR, ids=repr)
def test_scalar_flow_is_the_ratio_of_noise(process):
    times = torch.tensor([[1.0, 0.1], [0.5, 0.4], [0.2, 1e-3]], dtype=torch.float64)
    t, s = times.T
    expected = (process.marginal(s).covariance / process.marginal(t).covariance).sqrt()
    torch.testing.assert_close(noise_flow(process, t, s), expected, rtol=1e-14, atol=0)


def test_flow_is_batched():
    process = PSLD()
    t, s = torch.tensor([1.0, 0.5], dtype=torch.float64), torch.tensor([0.2, 0.1], dtype=torch.float64)
    singles = torch.stack([noise_flow(process, float(a), float(b)) for a, b in zip(t, s, strict=True)])
    torch.testing.assert_close(noise_flow(process, t, s), singles, rtol=1e-13, atol=1e-13)


def test_flow_rotates():
    """Ψ is not L_s L_t⁻¹: in phase space the noise turns as it shrinks."""
    process = CLD()
    straight = cholesky(process.marginal(0.3).covariance) @ process.marginal(1.0).whitener
    assert (noise_flow(process, 1.0, 0.3) - straight).abs().max() > 0.1


@pytest.mark.parametrize("t, s", [(0.5, 0.0), (0.3, 0.5), (1.5, 0.5)])
def test_times_out_of_order_are_refused(t, s):
    with pytest.raises(ValueError, match="noise_flow needs|times must lie"):
        noise_flow(PSLD(), t, s)
