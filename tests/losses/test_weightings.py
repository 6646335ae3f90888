"""Weightings: the same loss whatever is predicted, published special cases, and what the likelihood's metric means."""

import math
from collections.abc import Callable

import pytest
import torch

from psld import exact
from psld.kernels import mix, outer
from psld.losses import DSM, HSM, Likelihood, MinSNR, UniformNoise
from psld.model import Predicts, ScoreModel
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE

PROCESSES = [VPSDE(), CLD(), PSLD(0.25), HigherOrderLangevin(3)]
WEIGHTINGS = [UniformNoise(), MinSNR(), MinSNR(0.1), Likelihood()]

every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)
every_weighting = pytest.mark.parametrize("weighting", WEIGHTINGS, ids=lambda w: type(w).__name__)


def batch(n=6):
    generator = torch.Generator().manual_seed(2)
    x0 = torch.randn(n, 3, 4, dtype=torch.float64, generator=generator)
    return x0, torch.linspace(0.05, 0.95, n, dtype=torch.float64)


def networks(process, t) -> dict[Predicts, Callable]:
    """One and the same guess at x₀, told as v, as x₀, as a denoiser's image, as ε (all rows) and as the score."""
    kernel = process.marginal(t)

    def image(z, _):
        return torch.tanh(process.statistic(z, t)[0])

    def eps(z, _):
        return mix(kernel.whitener, z - outer(kernel.mean_map[..., 0], image(z, _)))

    def velocity(z, _):
        y, sigma = process.statistic(z, t)
        square = (1 + sigma**2)[:, None, None]
        return ((y / square - image(z, _)) * square.sqrt() / sigma[:, None, None])[:, None]

    return {
        "v": velocity,
        "x0": lambda z, _: image(z, _)[:, None],
        "denoiser": lambda y, _: torch.tanh(y),
        "eps": eps,
        "score": lambda z, _: -mix(kernel.whitener.mT, eps(z, _)),
    }


@every_process
@every_weighting
def test_a_weighted_loss_does_not_depend_on_what_is_predicted(process, weighting):
    x0, t = batch()
    values = [
        HSM(weighting)(ScoreModel(network, process, predicts), x0, t, torch.Generator().manual_seed(5))
        for predicts, network in networks(process, t).items()
    ]
    for value in values[1:]:
        torch.testing.assert_close(value, values[0], rtol=1e-8, atol=0)


@every_process
@pytest.mark.parametrize("loss", [HSM, DSM])
def test_uniform_noise_is_the_unweighted_loss_of_eps(process, loss):
    x0, t = batch()
    model = ScoreModel(lambda z, t: torch.tanh(z), process, "eps", loss.matching)
    plain, weighted = (loss(w)(model, x0, t, torch.Generator().manual_seed(5)) for w in (None, UniformNoise()))
    torch.testing.assert_close(weighted, plain, rtol=1e-12, atol=0)


@every_process
def test_min_snr_of_an_image_is_the_clipped_snr_of_the_statistic(process):
    x0, t = batch()
    model = ScoreModel(networks(process, t)["x0"], process, "x0")
    plain, weighted = (HSM(w)(model, x0, t, torch.Generator().manual_seed(5)) for w in (None, MinSNR(5.0)))
    snr = process.noise_scale(t) ** -2
    assert float(snr.min()) < 5.0 < float(snr.max())
    torch.testing.assert_close(weighted, plain * snr.clamp(max=5.0), rtol=1e-9, atol=0)


def test_min_snr_of_vp_is_the_published_weight_of_eps():
    x0, t = batch()
    model = ScoreModel(lambda z, t: torch.tanh(z), VPSDE(), "eps")
    plain, weighted = (HSM(w)(model, x0, t, torch.Generator().manual_seed(5)) for w in (None, MinSNR(5.0)))
    kept = torch.exp(-(0.1 * t + 0.5 * t**2 * 19.9))  # α² of the linear schedule 0.1 → 20
    snr = kept / (1 - kept)
    torch.testing.assert_close(weighted, plain * snr.clamp(max=5.0) / snr, rtol=1e-9, atol=0)


@pytest.mark.parametrize("weighting", [MinSNR(), Likelihood()], ids=lambda w: type(w).__name__)
def test_one_row_of_cld_is_enough_for_the_same_loss(weighting):
    """Where noise enters the momentum alone, its row carries the likelihood's whole loss, and min-SNR rescales it."""
    x0, t = batch()
    process = CLD()
    whole = networks(process, t)["eps"]
    one, all_rows = (
        HSM(weighting)(ScoreModel(network, process, "eps"), x0, t, torch.Generator().manual_seed(5))
        for network in (lambda z, t: whole(z, t)[:, -1:], whole)
    )
    torch.testing.assert_close(one, all_rows, rtol=1e-8, atol=0)


@pytest.mark.parametrize("process", [*PROCESSES, SubVPSDE(), VESDE()], ids=repr)
@pytest.mark.parametrize("loss", [HSM, DSM])
def test_likelihood_is_the_score_error_in_the_metric_of_the_noise(process, loss):
    """Against the conditional score by automatic differentiation of log N, and D times β written out."""
    x0, t = batch()
    process_k = process.k
    seen = []

    def network(z, _):
        seen.append(z)
        return torch.tanh(z)

    model = ScoreModel(network, process, "score", loss.matching)
    value = loss(Likelihood())(model, x0, t, torch.Generator().manual_seed(5))
    z, kernel = seen[0].requires_grad_(), process.marginal(t, loss.matching)
    generator = torch.Generator().manual_seed(5)
    torch.randn(len(x0), process_k, *x0.shape[1:], dtype=torch.float64, generator=generator)
    start = loss().start(model, x0, generator)
    (score,) = torch.autograd.grad(kernel.log_prob(z, start).sum(), z)
    error = torch.tanh(z.detach()) - score
    noise = 2.0 * process.diffusion_rate(t)
    want = torch.einsum("bicd,bij,bjcd->bcd", error, noise, error).mean((1, 2))
    torch.testing.assert_close(value, want, rtol=1e-8, atol=0)


@every_process
def test_likelihood_is_minus_twice_the_rate_at_which_kl_falls(process):
    """d/dt KL(p_t ‖ q_t) = −½ E_p |∇log p − ∇log q|² in the metric 2βD: central differences on two Gaussians."""
    p_variance, q_variance, q_mean = 0.49, 1.3, 0.4

    def law(t, variance):
        kernel = process.marginal(t)
        signal = kernel.mean_map[:, 0]
        return signal, kernel.covariance + variance * torch.outer(signal, signal)

    def kl(t):
        (signal, p), (_, q) = law(t, p_variance), law(t, q_variance)
        shift = q_mean * signal
        quotient = torch.linalg.solve(q, p)
        distance = shift @ torch.linalg.solve(q, shift)
        return 0.5 * float(quotient.trace() - process.k + distance - torch.logdet(quotient))

    for time in (0.2, 0.5):
        h = 1e-5
        rate = (kl(time + h) - kl(time - h)) / (2 * h)
        (signal, p), (_, q) = law(time, p_variance), law(time, q_variance)
        times = torch.tensor([time], dtype=torch.float64)
        kernel = process.marginal(times)
        metric = Likelihood().metric(process, kernel, times, process.k)[0]
        # ∇log q − ∇log p = G z + h is affine, and z ~ N(0, P): E eᵀMe in closed form, e = −Lᵀ(…)
        slope = torch.linalg.inv(p) - torch.linalg.inv(q)
        offset = torch.linalg.solve(q, q_mean * signal)
        to_eps = -kernel.cholesky[0].mT
        slope, offset = to_eps @ slope, to_eps @ offset
        expected = (metric @ slope @ p @ slope.mT).trace() + offset @ metric @ offset
        assert float(expected) == pytest.approx(-2 * rate, rel=1e-5)


@every_process
def test_the_exact_model_has_the_closed_form_of_the_likelihood_loss(process):
    """E = tr(2βD (Σ⁻¹ − C⁻¹)) for Gaussian data: what is left when the score is exact."""
    data = exact.Gaussian(0.0, 0.7, shape=(2,))
    x0 = data.sample(40_000, torch.Generator().manual_seed(0))
    time = 0.3
    value = HSM(Likelihood())(
        data.model(process), x0, torch.full((len(x0),), time).double(), torch.Generator().manual_seed(1)
    )
    kernel = process.marginal(time)
    signal = kernel.mean_map[:, 0]
    total = kernel.covariance + 0.49 * torch.outer(signal, signal)
    noise = 2.0 * process.diffusion_rate(time)
    expected = (noise @ (torch.linalg.inv(kernel.covariance) - torch.linalg.inv(total))).trace()
    assert float(value.mean()) == pytest.approx(float(expected), abs=4 * float(value.std()) / 200)


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.inf, math.nan])
def test_min_snr_refuses(gamma):
    with pytest.raises(ValueError, match="gamma must be a (positive, finite )?number"):
        MinSNR(gamma)


@every_process
@pytest.mark.parametrize("loss", [HSM(), DSM(MinSNR())], ids=["HSM", "DSM"])
def test_with_one_generator_a_sample_the_batch_does_not_matter(process, loss):
    x0, t = batch()
    model = ScoreModel(lambda z, t: torch.tanh(z), process, "eps", loss.matching)

    def value(rows):
        return loss(model, x0[rows], t[rows], [torch.Generator().manual_seed(9 + i) for i in rows])

    whole = value(list(range(6)))
    parts = torch.cat([value([0, 1]), value([2]), value([3, 4, 5])])
    torch.testing.assert_close(parts, whole, rtol=1e-12, atol=0)
    with pytest.raises(ValueError, match="got 1 for 6 samples"):
        loss(model, x0, t, [torch.Generator()])
