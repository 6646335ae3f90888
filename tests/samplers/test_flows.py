"""The noise flow Ψ against its own identities, and against the differential equation it solves."""

import pytest
import torch
from scipy.integrate import solve_ivp

from psld.kernels import cholesky
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.samplers.flows import noise_flow, whitened_flow

PHASE_SPACE = [CLD(), PSLD(0.01), PSLD(0.25), HigherOrderLangevin(2), HigherOrderLangevin(3)]
SCALAR = [VPSDE(), VESDE(), SubVPSDE()]
PAIRS = [(1.0, 1e-3), (1.0, 0.3), (0.5, 0.4), (0.02, 0.01), (0.7, 0.7)]


def whitened(process, t, s, eta=0.0):
    """L_s⁻¹ Ψ(s, t) L_t: Ψ in units of the noise, where every entry counts alike."""
    return process.marginal(s).whitener @ noise_flow(process, t, s, eta) @ process.marginal(t).cholesky


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


@pytest.mark.parametrize(
    "process, eta", [*((process, 0.0) for process in PHASE_SPACE), (PSLD(0.25), 0.5), (CLD(), 0.5)]
)
@pytest.mark.parametrize("t, s", [(1.0, 0.3), (0.5, 0.05)])
def test_flow_solves_its_differential_equation(process, t, s, eta):
    k = process.k

    def rate(time, psi):
        pull = process.diffusion_rate(time) @ torch.linalg.inv(process.marginal(time).covariance)
        matrix = process.drift_rate(time) + (1 + eta**2) * pull
        return (matrix.numpy() @ psi.reshape(k, k)).ravel()

    solution = solve_ivp(rate, (t, s), torch.eye(k).double().numpy().ravel(), method="DOP853", rtol=1e-11, atol=1e-13)
    expected = torch.from_numpy(solution.y[:, -1].reshape(k, k))
    torch.testing.assert_close(noise_flow(process, t, s, eta), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("process", PHASE_SPACE + SCALAR, ids=repr)
@pytest.mark.parametrize("t, s", PAIRS)
def test_flow_with_all_the_noise_is_the_gain_of_the_posterior(process, t, s):
    """Σ_s Φᵀ Σ_t⁻¹, by conditioning one Gaussian on another: no differential equation in sight."""
    phi = process.transition(s, t).mean_map
    at_t, at_s = process.marginal(t), process.marginal(s)
    expected = at_s.cholesky.mT @ phi.mT @ at_t.whitener.mT  # L_s⁻¹ (Σ_s Φᵀ Σ_t⁻¹) L_t
    torch.testing.assert_close(whitened(process, t, s, 1.0), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("process", PHASE_SPACE + SCALAR, ids=repr)
@pytest.mark.parametrize("eta", [0.3, 1.0])
def test_flow_with_noise_composes_and_forgets(process, eta):
    """Hop by hop or at once; and M Mᵀ ≤ I, so that the noise that joins has a covariance."""
    t, s, r = 0.9, 0.2, 0.01
    at_once = whitened_flow(process, t, r, eta)
    torch.testing.assert_close(
        whitened_flow(process, s, r, eta) @ whitened_flow(process, t, s, eta), at_once, rtol=0, atol=1e-11
    )
    kept = torch.linalg.svdvals(at_once)
    assert kept[0] < 1 + 1e-12 and kept[-1] < 0.99


@pytest.mark.parametrize("process", SCALAR, ids=repr)
@pytest.mark.parametrize("eta", [0.3, 0.7, 1.0])
def test_scalar_flow_with_noise_in_closed_form(process, eta):
    """Ψ = (α_s/α_t) (σ_s/σ_t)^{1 + η²} in the noise scale σ of the statistic; η = 0 is DDIM."""
    t, s = torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64), torch.tensor([0.1, 0.4, 1e-2], dtype=torch.float64)
    signal = process.signal(s)[:, 0] / process.signal(t)[:, 0]
    ratio = process.noise_scale(s) / process.noise_scale(t)
    expected = (signal * ratio ** (1 + eta**2))[:, None, None]
    torch.testing.assert_close(noise_flow(process, t, s, eta), expected, rtol=1e-10, atol=0)


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
    with pytest.raises(ValueError, match="noise flows from t to s|times must lie"):
        noise_flow(PSLD(), t, s)
