"""Losses against their definition written out, and their minimiser against the exact score."""

import pytest
import torch

from contracts.every_process import LINEAR, GeometricBrownianMotion
from psld import exact
from psld.losses import DSM, HSM, ConditionalScoreMatching, CrossEntropy, Denoising, Likelihood, MinSNR
from psld.model import ScoreModel
from psld.processes import CLD, PSLD, VPSDE, HigherOrderLangevin

PROCESSES = [VPSDE(), CLD(), PSLD(0.25), HigherOrderLangevin(3)]
LOSSES = [HSM(), DSM()]

every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)
every_loss = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


class Recorder:
    """A network that keeps what it was shown and answers tanh of it."""

    def __init__(self, rows=None):
        self.rows = rows

    def __call__(self, z, t):
        self.z, self.t = z, t
        return torch.tanh(z if self.rows is None else z[:, -self.rows :])


def batch(n=6):
    generator = torch.Generator().manual_seed(2)
    x0 = torch.randn(n, 3, 4, dtype=torch.float64, generator=generator)
    return x0, torch.linspace(0.05, 0.95, n, dtype=torch.float64)


def by_hand(process, loss, x0, t, seed, jitter=0.0):
    """z_t, ε, Φ₀ and L, dimension by dimension with torch.linalg."""
    generator = torch.Generator().manual_seed(seed)
    kernel = process.marginal(t, loss.matching, jitter)
    factor = torch.linalg.cholesky(kernel.covariance)
    eps = torch.randn(len(x0), process.k, *x0.shape[1:], dtype=torch.float64, generator=generator)
    z0 = torch.cat([x0[:, None], torch.zeros(len(x0), process.k - 1, *x0.shape[1:], dtype=torch.float64)], 1)
    if loss.matching == "dsm" and process.k > 1:
        draw = torch.randn(len(x0), process.k - 1, *x0.shape[1:], dtype=torch.float64, generator=generator)
        z0[:, 1:] = process.initial_covariance.diagonal()[1:].sqrt().reshape(-1, 1, 1) * draw
    z_t = torch.einsum("bij,bjcd->bicd", kernel.mean_map, z0) + torch.einsum("bij,bjcd->bicd", factor, eps)
    return z_t, eps, factor


@every_process
@every_loss
@pytest.mark.parametrize("jitter", [0.0, 1e-3])
def test_eps_loss_is_the_mean_squared_error_of_the_noise(process, loss, jitter):
    x0, t = batch()
    network = Recorder()
    model = ScoreModel(network, process, "eps", loss.matching, jitter)
    value = loss(model, x0, t, torch.Generator().manual_seed(5))
    z_t, eps, _ = by_hand(process, loss, x0, t, 5, jitter)
    torch.testing.assert_close(network.z, z_t, rtol=0, atol=1e-12)
    assert value.shape == (6,) and torch.equal(network.t, t)
    torch.testing.assert_close(value, (torch.tanh(z_t) - eps).square().mean((1, 2, 3)), rtol=1e-12, atol=0)


@every_loss
@pytest.mark.parametrize("process", [CLD(), HigherOrderLangevin(3)], ids=repr)
def test_a_network_of_the_noisy_rows_is_asked_for_those_alone(process, loss):
    x0, t = batch()
    model = ScoreModel(Recorder(rows=1), process, "eps", loss.matching)
    value = loss(model, x0, t, torch.Generator().manual_seed(5))
    z_t, eps, _ = by_hand(process, loss, x0, t, 5)
    torch.testing.assert_close(value, (torch.tanh(z_t) - eps)[:, -1].square().mean((1, 2)), rtol=1e-12, atol=0)


@every_process
@every_loss
def test_losses_of_score_x0_and_denoiser(process, loss):
    x0, t = batch()
    z_t, eps, factor = by_hand(process, loss, x0, t, 5)

    def value(network, predicts):
        return loss(ScoreModel(network, process, predicts), x0, t, torch.Generator().manual_seed(5))

    noise_of_score = -torch.einsum("bji,bjcd->bicd", factor, torch.tanh(z_t))
    torch.testing.assert_close(
        value(Recorder(), "score"), (noise_of_score - eps).square().mean((1, 2, 3)), rtol=1e-12, atol=0
    )
    image = (torch.tanh(z_t[:, -1]) - x0).square().mean((1, 2))
    torch.testing.assert_close(value(Recorder(rows=1), "x0"), image, rtol=1e-12, atol=0)
    y, _ = process.statistic(z_t, t)
    torch.testing.assert_close(
        value(Recorder(), "denoiser"), (torch.tanh(y) - x0).square().mean((1, 2)), rtol=1e-9, atol=0
    )


@every_process
@every_loss
def test_minimiser_on_gaussian_data_is_the_exact_score(process, loss):
    """A linear network is fitted by one Newton step on the loss itself (quadratic), and held against −Lᵀ∇log p."""
    n, k, time, mean, std = 100_000, process.k, 0.4, 0.3, 0.7
    generator = torch.Generator().manual_seed(3)
    x0 = mean + std * torch.randn(n, 1, dtype=torch.float64, generator=generator)
    t = torch.full((n,), time, dtype=torch.float64)
    factor = process.marginal(time, loss.matching).cholesky
    marginal = process.marginal(time)
    signal = marginal.mean_map[:, 0]
    covariance = marginal.covariance + std**2 * torch.outer(signal, signal)
    slope = factor.T @ torch.linalg.inv(covariance)
    exact_coefficients = torch.cat([slope, -slope @ signal[:, None] * mean], 1)

    features = []

    def objective(coefficients):
        def network(z, t):
            features.append(torch.cat([z.detach(), torch.ones_like(z[:, :1])], 1)[..., 0])
            return (z[..., 0] @ coefficients[:, :k].T + coefficients[:, k])[..., None]

        model = ScoreModel(network, process, "eps", loss.matching)
        return loss(model, x0, t, torch.Generator().manual_seed(4)).mean()

    start = torch.zeros(k, k + 1, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(objective(start), start)
    gram = features[0].T @ features[0]
    fitted = start.detach() - 0.5 * k * n * gradient @ torch.linalg.inv(gram)  # Hessian: 2 ZᵀZ / (k n) for each row
    standard_error = torch.linalg.inv(gram).diagonal().sqrt()  # the residual variance is at most 1
    assert ((fitted - exact_coefficients).abs() / standard_error).max() < 4.0


@pytest.mark.parametrize("loss, other", [(HSM(), "dsm"), (DSM(), "hsm")])
def test_eps_of_the_other_conditioning_is_refused(loss, other):
    x0, t = batch()
    with pytest.raises(ValueError, match="give the model matching"):
        loss(ScoreModel(Recorder(), CLD(), "eps", other), x0, t)


@every_loss
def test_a_generator_decides_the_draw(loss):
    x0, t = batch()
    model = ScoreModel(Recorder(), PSLD(), "eps", loss.matching)
    first, again, other = (loss(model, x0, t, torch.Generator().manual_seed(seed)) for seed in (7, 7, 8))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_the_exact_model_cannot_be_beaten():
    """The x₀ loss of the exact denoiser is the posterior variance s²σ²/(s² + σ²)."""
    data, process = exact.Gaussian(0.3, 0.7, shape=(2,)), PSLD()
    x0 = data.sample(40_000, torch.Generator().manual_seed(0))
    t = torch.full((len(x0),), 0.3, dtype=torch.float64)
    sigma = process.noise_scale(0.3)
    value = HSM()(data.model(process), x0, t, torch.Generator().manual_seed(1))
    expected = 0.49 * sigma**2 / (0.49 + sigma**2)
    assert float(value.mean()) == pytest.approx(float(expected), abs=4 * float(value.std()) / 200)


@every_process
@every_loss
@pytest.mark.parametrize("jitter", [0.0, 1e-3])
def test_loss_of_v_is_the_error_of_x0_over_s(process, loss, jitter):
    """x̂₀ = α² y − s v, with y and σ from the definition of the statistic: v̂ − v is (x₀ − x̂₀) / s."""
    x0, t = batch()
    network = Recorder(rows=1)
    value = loss(ScoreModel(network, process, "v", loss.matching, jitter), x0, t, torch.Generator().manual_seed(5))
    z_t, _, _ = by_hand(process, loss, x0, t, 5, jitter)
    torch.testing.assert_close(network.z, z_t, rtol=0, atol=1e-12)
    y, sigma = process.statistic(z_t, t)
    s = (sigma / (1 + sigma**2).sqrt())[:, None, None]
    image = y / (1 + sigma**2)[:, None, None] - s * torch.tanh(z_t[:, -1])
    torch.testing.assert_close(value, ((image - x0) / s).square().mean((1, 2)), rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("t", [1e-4, 1e-2])
def test_the_target_of_v_does_not_cancel_in_float32(t):
    """v → ξ at small t, where y − x₀ would lose it: for VP the target is α ε − s x₀ to float32."""
    x0 = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    times = torch.full((4,), t, dtype=torch.float64)
    model = ScoreModel(lambda z, t: torch.zeros_like(z), VPSDE(), "v")
    value = HSM()(model, x0, times, torch.Generator().manual_seed(1))
    noise = torch.randn(4, 1, 9, generator=torch.Generator().manual_seed(1))[:, 0].double()
    kept = torch.exp(-(0.1 * times + 0.5 * times**2 * 19.9))[:, None]
    expected = kept.sqrt() * noise - (1 - kept).sqrt() * x0.double()
    torch.testing.assert_close(value.double(), expected.square().mean(1), rtol=1e-6, atol=0)


class Halver:
    """D(y; σ) = y / 2 (or half of the last variable of z); keeps what it was shown."""

    def __call__(self, y, sigma):
        self.y, self.sigma = y, sigma
        return 0.5 * y


def test_denoising_is_edms_loss_written_out():
    """λ(σ) = (σ² + s²)/(σs)², log σ ~ N(P_mean, P_std²), y = x₀ + σξ."""
    x0, t = batch()
    network = Halver()
    value = Denoising(0.7, -1.0, 0.9)(ScoreModel(network, CLD(), "denoiser"), x0, t, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(5)
    sigma = (-1.0 + 0.9 * torch.randn(6, dtype=torch.float64, generator=generator)).exp()
    noise = torch.randn(6, 1, 3, 4, dtype=torch.float64, generator=generator)[:, 0]
    y = x0 + sigma[:, None, None] * noise
    torch.testing.assert_close(network.y, y)
    torch.testing.assert_close(network.sigma, sigma)
    weight = (sigma**2 + 0.49) / (sigma * 0.7) ** 2
    torch.testing.assert_close(value, weight * (0.5 * y - x0).square().mean((1, 2)))


@pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.01), HigherOrderLangevin(3)], ids=repr)
def test_denoising_of_states_draws_the_same_noise_levels(process):
    """log σ(t) is N(P_mean, P_std²), and the loss of the exact denoiser is the posterior variance, weighted."""
    data, seen = exact.Gaussian(0.0, 0.7, shape=(4,)), []

    def network(z, t):
        seen.append(process.noise_scale(t).log())
        return data.model(process)(z, t).x0[:, None]

    x0 = data.sample(4000, torch.Generator().manual_seed(0))
    loss = Denoising(0.7, -1.0, 0.9)
    value = loss(ScoreModel(network, process, "x0"), x0, torch.zeros(4000).double(), torch.Generator().manual_seed(1))
    drawn = -1.0 + 0.9 * torch.randn(4000, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert (seen[0] - drawn).abs().max() < 1e-3
    assert float(value.mean()) == pytest.approx(1.0, abs=4 * float(value.std()) / 4000**0.5)


@every_process
def test_denoising_of_v_with_unit_data_is_the_error_of_v(process):
    """λ(σ) = (σ² + 1)/σ² = 1/s²: the squared error of v at EDM's noise levels."""
    x0, unused = batch()
    seen = []

    def network(z, t):
        seen.append((z, t))
        return torch.tanh(z[:, -1:])

    value = Denoising(1.0)(ScoreModel(network, process, "v"), x0, unused, torch.Generator().manual_seed(5))
    (z, t) = seen[0]
    y, sigma = process.statistic(z, t)
    s = (sigma / (1 + sigma**2).sqrt())[:, None, None]
    v = (y / (1 + sigma**2)[:, None, None] - x0) / s
    torch.testing.assert_close(value, (torch.tanh(z[:, -1]) - v).square().mean((1, 2)), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("predicts", ["eps", "score"])
def test_denoising_refuses_what_it_does_not_train(predicts):
    x0, t = batch()
    with pytest.raises(ValueError, match="use HSM or DSM"):
        Denoising()(ScoreModel(Recorder(), CLD(), predicts), x0, t)


@pytest.mark.parametrize("arguments", [(0.0,), (0.5, -1.2, 0.0)])
def test_denoising_refuses_scales(arguments):
    with pytest.raises(ValueError, match="must be a positive"):
        Denoising(*arguments)


# -- any forward process ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("process", LINEAR, ids=repr)
def test_conditional_score_matching_is_the_likelihood_loss_of_a_linear_process(process):
    x0, t = batch()
    t = t * process.T
    value = ConditionalScoreMatching(process)(Recorder(), x0, t, torch.Generator().manual_seed(5))
    model = ScoreModel(Recorder(), process, "score")
    expected = HSM(Likelihood())(model, x0, t, torch.Generator().manual_seed(5))
    torch.testing.assert_close(value, expected, rtol=1e-8, atol=0)


def test_conditional_score_matching_of_a_state_dependent_process():
    """Geometric Brownian motion of constant data: z_t is log-normal, its score is known, and cannot be beaten.

    Against the loss written out: G = √β σ z, and the density of z_t given x₀ differentiated.
    """
    process = GeometricBrownianMotion()
    x0, t = batch()
    x0 = x0.exp()
    loss, network = ConditionalScoreMatching(process), Recorder()
    value = loss(network, x0, t, torch.Generator().manual_seed(5))
    z = network.z.clone().requires_grad_()
    b = t[:, None, None, None]
    law = torch.distributions.LogNormal(x0[:, None].log() - 0.5 * (1 + 0.36) * b, 0.6 * b.sqrt())
    (score,) = torch.autograd.grad(law.log_prob(z).sum(), z)
    expected = (0.6 * z * (torch.tanh(z) - score)).square().mean((1, 2, 3))
    torch.testing.assert_close(value, expected.detach(), rtol=1e-8, atol=0)


def test_conditional_score_matching_refuses_another_shape():
    x0, t = batch()
    with pytest.raises(ValueError, match=r"the shape of its state, \(6, 2, 3, 4\): got \(6, 1, 3, 4\)"):
        ConditionalScoreMatching(CLD())(Recorder(rows=1), x0, t)


# -- what they are made of ---------------------------------------------------------------------------------------------


def test_losses_are_their_arguments():
    assert repr(HSM()) == "HSM()" and repr(Denoising()) == "Denoising()"
    assert repr(DSM(MinSNR(2.0))) == "DSM(weighting=MinSNR(gamma=2))"
    assert HSM(MinSNR(2.0)) == HSM(MinSNR(2)) != HSM(MinSNR(3.0)) and HSM() != DSM()
    assert Denoising(0.7).spec.config()["init_args"] == {"sigma_data": 0.7, "P_mean": -1.2, "P_std": 1.2}


# -- the classifier's --------------------------------------------------------------------------------------------------


@every_process
@pytest.mark.parametrize("jitter", [0.0, 1e-3])
def test_cross_entropy_is_of_the_label_at_the_states_of_hsm(process, jitter):
    x0, t = batch()
    seen = []

    def network(z, t):
        seen.append((z, t))
        return torch.stack([z.flatten(1).sum(1) * slope for slope in (0.1, -0.2, 0.05)], 1)

    label = torch.tensor([0, 1, 2, 2, 1, 0])
    value = CrossEntropy()(ScoreModel(network, process, jitter=jitter), x0, t, torch.Generator().manual_seed(5), label)
    (z, times), z_t = seen[0], by_hand(process, HSM(), x0, t, 5, jitter)[0]
    torch.testing.assert_close(z, z_t, rtol=0, atol=1e-12)
    assert torch.equal(times, t)
    logits = z_t.flatten(1).sum(1, keepdim=True) * torch.tensor([0.1, -0.2, 0.05], dtype=torch.float64)
    chance = logits.exp()[torch.arange(6), label] / logits.exp().sum(1)
    torch.testing.assert_close(value, -chance.log(), rtol=1e-10, atol=1e-12)


def test_cross_entropy_draws_the_noise_of_hsm():
    """One generator a sample: the state of a sample is that of the score's loss, in any batch."""
    x0, t = batch()
    network, shown = Recorder(), []
    HSM()(ScoreModel(network, PSLD(0.25)), x0, t, [torch.Generator().manual_seed(i) for i in range(6)])

    def classifier(z, t):
        shown.append(z)
        return z.flatten(1)[:, :2]

    generators = [torch.Generator().manual_seed(i) for i in (3, 4)]
    CrossEntropy()(ScoreModel(classifier, PSLD(0.25)), x0[3:5], t[3:5], generators, torch.tensor([0, 1]))
    assert torch.equal(shown[0], network.z[3:5])


@pytest.mark.parametrize("process", [VPSDE(), PSLD(0.25)], ids=repr)
def test_cross_entropy_is_least_for_the_exact_posterior(process):
    """Two Gaussians: Bayes' rule against classifiers that are more and less sure, or told another time."""
    parts = [exact.GaussianMixture(torch.full((1, 2), mean, dtype=torch.float64), 0.5) for mean in (0.7, -0.7)]
    source = torch.Generator().manual_seed(0)
    label = torch.arange(4000) % 2
    drawn = torch.stack([part.sample(4000, source) for part in parts])
    x0 = drawn[label, torch.arange(4000)]

    def value(change):
        def network(z, t):
            return change(torch.stack([part.log_prob(process, z, t) for part in parts], 1), t)

        t = torch.full((4000,), 0.15 if process.k == 1 else 0.3, dtype=torch.float64)
        model = ScoreModel(network, process)
        return float(CrossEntropy()(model, x0, t, torch.Generator().manual_seed(1), label).mean())

    best = value(lambda logits, t: logits)
    shifted = value(lambda logits, t: logits + torch.tensor([0.4, 0.0]))
    scaled = [value(lambda logits, t, s=s: s * logits) for s in (0.0, 0.6, 1.6)]
    assert 0.05 < best < min(shifted, *scaled)


def test_cross_entropy_refuses_what_it_cannot_use():
    x0, t = batch()
    with pytest.raises(ValueError, match="needs the label of every sample"):
        CrossEntropy()(ScoreModel(lambda z, t: z.flatten(1), CLD()), x0, t)
    with pytest.raises(ValueError, match=r"must return logits \(6, classes\) for 6 states: got \(6, 2, 3, 4\)"):
        CrossEntropy()(ScoreModel(lambda z, t: z, CLD()), x0, t, label=torch.zeros(6, dtype=torch.int64))
