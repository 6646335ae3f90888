"""Exact scores against autograd of the density and against Bayes' rule; every form of prediction against the others."""

import pytest
import torch
from torch import nn

import laws
from psld import exact
from psld.kernels import mix
from psld.model import Clamped, Prediction, ScoreModel
from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.schedules import Cosine

PROCESSES = [VPSDE(), CLD(), PSLD(0.01), PSLD(0.25), HigherOrderLangevin(3), VESDE(), SubVPSDE()]
DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4], [-0.7, 0.1], [0.1, 1.2]], dtype=torch.float64),
    std=torch.tensor([0.2, 0.5, 0.9], dtype=torch.float64),
    weights=torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64),
)
TIMES = torch.tensor([0.1, 0.2, 0.35, 0.6, 0.9], dtype=torch.float64)

every_process = pytest.mark.parametrize("process", PROCESSES, ids=repr)


def states(process):
    generator = torch.Generator().manual_seed(1)
    x0 = DATA.sample(len(TIMES), generator)
    eps = torch.randn(len(TIMES), process.k, 2, dtype=torch.float64, generator=generator)
    return process.perturb(x0, TIMES, eps)


def worst(a, b):
    return float((a - b).abs().max() / b.abs().max())


def posterior_mean(process, z, t):
    """E[x₀ | z] by Bayes' rule over the components, each a k-dimensional Gaussian in every data dimension."""
    kernel = process.marginal(t)
    results = []
    for i in range(len(z)):
        signal, covariance = kernel.mean_map[i, :, 0], kernel.covariance[i]
        log_weights, means = [], []
        for mu, s, log_w in zip(DATA.means, DATA.std, DATA.log_weights, strict=True):
            joint = covariance + s**2 * torch.outer(signal, signal)
            centres = mu[:, None] * signal
            law = torch.distributions.MultivariateNormal(centres, joint)
            log_weights.append(log_w + law.log_prob(z[i].T).sum())
            means.append(mu + s**2 * (z[i].T - centres) @ torch.linalg.solve(joint, signal))
        weights = torch.softmax(torch.stack(log_weights), 0)
        results.append((weights[:, None] * torch.stack(means)).sum(0))
    return torch.stack(results)


@every_process
def test_exact_score_is_the_gradient_of_the_log_density(process):
    z = states(process).requires_grad_()
    (gradient,) = torch.autograd.grad(DATA.log_prob(process, z, TIMES).sum(), z)
    score = DATA.model(process)(z.detach(), TIMES).score
    for row in range(process.k):
        assert worst(score[:, row], gradient[:, row]) < 1e-8


@every_process
def test_posterior_mean_depends_on_the_statistic_alone(process):
    z = states(process)
    y, sigma = process.statistic(z, TIMES)
    expected = posterior_mean(process, z, TIMES)
    assert worst(DATA.denoiser(y, sigma), expected) < 1e-9
    assert worst(DATA.model(process)(z, TIMES).x0, expected) < 1e-9


@every_process
@pytest.mark.parametrize("matching", ["hsm", "dsm"])
@pytest.mark.parametrize("jitter", [0.0, 1e-9, 1e-3])
def test_eps_of_any_training_convention_gives_the_same_score(process, matching, jitter):
    """The exact ε network of that convention, k rows and the last r: ε = −Lᵀ ∇log p with L as it was trained."""
    z, truth = states(process), DATA.model(process)(states(process), TIMES)
    factor = torch.linalg.cholesky(process.marginal(TIMES, matching, jitter).covariance)
    eps = -mix(factor.mT, truth.score)
    for rows in {process.k, process.noisy_rows}:
        model = ScoreModel(lambda z, t, r=rows: eps[:, -r:], process, "eps", matching, jitter)
        prediction = model(z, TIMES)
        assert worst(prediction.score, truth.score) < 1e-8
        assert worst(prediction.x0, truth.x0) < 1e-7
        assert worst(prediction.eps, -mix(process.marginal(TIMES).cholesky.mT, truth.score)) < 1e-8


@every_process
def test_score_and_x0_networks_agree_with_the_denoiser(process):
    z, truth = states(process), DATA.model(process)(states(process), TIMES)
    from_score = ScoreModel(lambda z, t: truth.score, process, "score")(z, TIMES)
    from_x0 = ScoreModel(lambda z, t: truth.x0[:, None], process, "x0")(z, TIMES)
    for prediction in (from_score, from_x0):
        assert worst(prediction.score, truth.score) < 1e-9
        assert worst(prediction.eps, truth.eps) < 1e-9
        assert worst(prediction.x0, truth.x0) < 1e-7


@pytest.mark.parametrize("process", [VPSDE(), VPSDE(beta=Cosine())], ids=repr)
def test_v_of_vp_is_that_of_salimans_and_ho(process):
    """z_t = α x₀ + σ ε, v = α ε − σ x₀, x̂₀ = α z − σ v̂, ε̂ = σ z + α v̂ (Salimans & Ho, ICLR 2022, appendix D)."""
    z = states(process)
    v = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    kernel = process.marginal(TIMES)
    alpha, sigma = kernel.mean_map[:, 0], kernel.covariance[:, 0].sqrt()
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones_like(alpha))
    prediction = ScoreModel(lambda z, t: v[:, None], process, "v")(z, TIMES)
    torch.testing.assert_close(prediction.x0, alpha * z[:, 0] - sigma * v, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(prediction.eps[:, 0], sigma * z[:, 0] + alpha * v, rtol=1e-9, atol=1e-12)


@every_process
def test_v_goes_there_and_back(process):
    """v = α ξ − s x₀ of the exact x̂₀, ξ = (y − x̂₀)/σ: every form of the prediction is the exact one again."""
    z, truth = states(process), DATA.model(process)(states(process), TIMES)
    y, sigma = process.statistic(z, TIMES)
    scale = (1 + sigma**2).sqrt()
    v = ((y - truth.x0) / sigma[:, None] - sigma[:, None] * truth.x0) / scale[:, None]
    prediction = ScoreModel(lambda z, t: v[:, None], process, "v")(z, TIMES)
    assert worst(prediction.x0, truth.x0) < 1e-10
    assert worst(prediction.eps, truth.eps) < 1e-9
    assert worst(prediction.score, truth.score) < 1e-9


def test_one_row_is_enough_for_cld_and_two_for_psld():
    assert [p.noisy_rows for p in PROCESSES] == [1, 1, 2, 2, 1, 1, 1]


@pytest.mark.parametrize("rows", [1, 3])
def test_psld_needs_every_row(rows):
    z = states(PSLD())
    model = ScoreModel(lambda z, t: z.new_zeros(len(z), rows, 2), PSLD())
    with pytest.raises(ValueError, match=r"must return shape \(5, 2, 2\): got"):
        model(z, TIMES)


@pytest.mark.parametrize(
    "predicts, shape", [("score", (5, 1, 2)), ("x0", (5, 2, 2)), ("x0", (5, 2)), ("v", (5, 2, 2)), ("eps", (5, 2, 3))]
)
def test_network_output_of_the_wrong_shape_is_refused(predicts, shape):
    model = ScoreModel(lambda z, t: torch.zeros(shape), CLD(), predicts)
    with pytest.raises(ValueError, match=f"predicts {predicts} under CLD"):
        model(states(CLD()), TIMES)


def test_denoiser_output_of_the_wrong_shape_is_refused():
    model = ScoreModel(lambda y, sigma: y[:, None], CLD(), "denoiser")
    with pytest.raises(ValueError, match="must return shape"):
        model(states(CLD()), TIMES)


@pytest.mark.parametrize("shape", [(5,), (5, 1, 2), (5, 3, 2)])
def test_state_of_the_wrong_shape_is_refused(shape):
    with pytest.raises(laws.REFUSALS):
        DATA.model(CLD())(torch.zeros(shape, dtype=torch.float64), TIMES)


def test_unknown_meaning_is_refused():
    with pytest.raises(laws.REFUSALS):
        ScoreModel(lambda z, t: z, CLD(), "noise")  # pyright: ignore[reportArgumentType]


def test_prediction_wants_exactly_one_form():
    z, kernel = states(CLD()), CLD().marginal(TIMES)
    with pytest.raises(ValueError, match="exactly one"):
        Prediction(z, kernel)
    with pytest.raises(ValueError, match="exactly one"):
        Prediction(z, kernel, x0=z[:, 0], score=z)


@pytest.mark.parametrize("predicts", ["eps", "denoiser"])
def test_network_keeps_its_own_precision(predicts):
    """A float32 network inside a float64 state is called with float32 and answers in float64."""

    class Halver(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale, self.seen = nn.Parameter(torch.tensor(0.5)), []

        def forward(self, z, t):
            self.seen.append((z.dtype, t.dtype, tuple(t.shape)))
            return self.scale * z

    network, process = Halver(), PSLD()
    prediction = ScoreModel(network, process, predicts)(states(process), 0.5)
    assert network.seen == [(torch.float32, torch.float32, (5,))]
    assert prediction.score.dtype == prediction.x0.dtype == prediction.eps.dtype == torch.float64


def test_condition_reaches_the_network():
    model = ScoreModel(lambda z, t, label: label[:, None, None].expand_as(z), VPSDE(), "score")
    label = torch.arange(5, dtype=torch.float64)
    assert torch.equal(model(states(VPSDE()), TIMES, label=label).score[:, 0, 0], label)


@pytest.mark.parametrize("process", [VPSDE(), CLD(), PSLD(0.25)], ids=repr)
def test_a_clamped_model_moves_only_what_is_outside(process):
    """x̂₀ is cut at the range, and ε and score are those of the cut x̂₀."""
    z = torch.randn(5, process.k, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    wild = torch.tensor([[-3.0, 0.2, 0.9]] * 5, dtype=torch.float64)
    model = Clamped(ScoreModel(lambda z, t: wild[:, None], process, "x0")).tabulate(torch.tensor([0.5]).double())
    prediction = model(z, 0.5)
    held = torch.tensor([-1.0, 0.2, 0.9], dtype=torch.float64)
    assert torch.equal(prediction.x0, held.expand(5, 3))
    kernel = process.marginal(0.5)
    residual = z - kernel.mean_map[:, 0][None, :, None] * held
    expected = -torch.einsum("ij,bjc->bic", torch.linalg.inv(kernel.covariance), residual)
    torch.testing.assert_close(prediction.score, expected, rtol=1e-9, atol=1e-9)
    with pytest.raises(ValueError, match="low must be below high"):
        Clamped(model, 1.0, -1.0)
