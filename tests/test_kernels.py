import json
from pathlib import Path

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psld.kernels import Kernel, cholesky, linear_kernel, mix, outer, product
from psld.processes import CLD, PSLD, HigherOrderLangevin, Process
from psld.recipe import LinearRecipe
from psld.schedules import Constant, Linear
from random_recipes import random_recipe

TABLE = json.loads((Path(__file__).parent / "reference" / "perturbation_kernel.json").read_text())


def number(t: float) -> torch.Tensor:
    return torch.tensor(t, dtype=torch.float64)


def worst_entry(got: torch.Tensor, want) -> float:
    """Largest relative error of any entry, taken in 40 digits; an entry that is zero must be zero."""
    errors = []
    with mpmath.workdps(40):
        for i, row in enumerate(want):
            for j, entry in enumerate(row):
                exact, value = mpmath.mpf(entry), mpmath.mpf(float(got[i, j]))
                errors.append(float(abs(value - exact) / abs(exact)) if exact else float(abs(value)))
    return max(errors)


@pytest.mark.parametrize("matching", ["hsm", "dsm"])
@pytest.mark.parametrize("beta", [(8.0, 8.0), (0.1, 16.0)], ids=["constant", "linear"])
def test_every_entry_of_the_80_digit_table(beta, matching):
    schedule = Constant(beta[0]) if beta[0] == beta[1] else Linear(*beta)
    rows = [r for r in TABLE if (r["beta_min"], r["beta_max"], r["conditioning"]) == (*beta, matching)]
    assert len(rows) == 36
    for row in rows:
        kernel = PSLD(row["gamma"], row["nu"], row["kappa"], schedule).marginal(row["t"], matching)
        assert worst_entry(kernel.mean_map, row["exact"]["mean_map"]) < 1e-13, row
        assert worst_entry(kernel.covariance, row["exact"]["cov"]) < 1e-13, row


def exact_kernel(recipe: LinearRecipe, db: float) -> tuple[list, list]:
    """Φ and Σ from one 60-digit matrix exponential of [[−A, 2D], [0, Aᵀ]] (Van Loan, 1978)."""
    k = recipe.k
    a, d = mpmath.matrix(recipe.drift_matrix.tolist()), mpmath.matrix(recipe.diffusion.tolist())
    block = mpmath.zeros(2 * k)
    for i in range(k):
        for j in range(k):
            block[i, j], block[i, k + j], block[k + i, k + j] = -a[i, j], 2 * d[i, j], a[j, i]
    power = mpmath.expm(block * mpmath.mpf(db))
    phi = power[k:, k:].T
    return phi.tolist(), (phi * power[:k, k:]).tolist()


@pytest.mark.parametrize("db", [1e-9, 1e-4, 0.03, 0.6, 2.0, 8.0])
@pytest.mark.parametrize("process", [CLD(), PSLD(0.25), HigherOrderLangevin(3), HigherOrderLangevin(4)], ids=repr)
def test_every_entry_against_a_60_digit_exponential(process, db):
    """For any k: before relaxation sets in, no entry of either form loses more than 1e-14."""
    kernel = linear_kernel(process.drift_matrix, process.recipe.diffusion, number(db))
    with mpmath.workdps(60):
        mean_map, covariance = exact_kernel(process.recipe, db)
    assert worst_entry(kernel.mean_map, mean_map) < (1e-14 if db < 1 else 1e-12)
    if db < 1:
        assert worst_entry(kernel.covariance, covariance) < 1e-14
    relaxed = process.transition(0.0, db / 8.0).covariance
    assert worst_entry(relaxed, covariance) < (1e-14 if db < 1 else 1e-12)


@settings(max_examples=12, deadline=None)
@given(random_recipe(), st.sampled_from([1e-6, 0.01, 0.5, 3.0]))
def test_random_recipes_against_a_60_digit_exponential(recipe, db):
    kernel = linear_kernel(recipe.drift_matrix, recipe.diffusion, number(db))
    with mpmath.workdps(60):
        mean_map, covariance = (
            torch.tensor([[float(v) for v in row] for row in m], dtype=torch.float64) for m in exact_kernel(recipe, db)
        )
    scale = recipe.covariance.diagonal().sqrt()
    torch.testing.assert_close(
        kernel.mean_map * scale / scale[:, None], mean_map * scale / scale[:, None], rtol=0, atol=2e-13
    )
    spread = covariance.diagonal().sqrt()
    relative = (kernel.covariance - covariance).abs() / (spread[:, None] * spread).clamp(min=1e-300)
    assert float(relative.max()) < 1e-12


@settings(max_examples=60, deadline=None)
@given(random_recipe(), st.floats(1e-6, 3.0), st.floats(1e-6, 3.0))
def test_semigroup_and_chapman_kolmogorov(recipe, first, second):
    """Φ(s,t) Φ(r,s) = Φ(r,t) and Σ(r,t) = Φ(s,t) Σ(r,s) Φ(s,t)ᵀ + Σ(s,t), in units of the stationary deviation."""
    process = Process(recipe, 1.0, T=8.0)
    r, s, t = 0.25, 0.25 + first, 0.25 + first + second
    one, two, both = process.transition(r, s), process.transition(s, t), process.transition(r, t)
    scale = recipe.covariance.diagonal().sqrt()
    gap = (two.mean_map @ one.mean_map - both.mean_map) * scale / scale[:, None]
    assert float(gap.abs().max()) < 1e-12
    gap = two.mean_map @ one.covariance @ two.mean_map.T + two.covariance - both.covariance
    assert float((gap / (scale[:, None] * scale)).abs().max()) < 1e-12


@settings(max_examples=60, deadline=None)
@given(random_recipe(), st.floats(0.1, 4.0))
def test_covariance_is_what_the_stationary_law_has_forgotten(recipe, db):
    """Σ = S − Φ S Φᵀ: true of the doubled Taylor series because S is stationary, nowhere used in it."""
    kernel = linear_kernel(recipe.drift_matrix, recipe.diffusion, number(db))
    s = recipe.covariance
    scale = s.diagonal().sqrt()
    gap = kernel.covariance - (s - kernel.mean_map @ s @ kernel.mean_map.T)
    assert float((gap / (scale[:, None] * scale)).abs().max()) < 1e-12


@settings(max_examples=60, deadline=None)
@given(random_recipe(), st.floats(1e-4, 3.0))
def test_the_reversal_swaps_the_two_times(recipe, db):
    """Cov(z_s, z_t) = S Φᵀ read from t: the stationary process backwards has the map S Φᵀ S⁻¹."""
    forward = linear_kernel(recipe.drift_matrix, recipe.diffusion, number(db)).mean_map
    backward = recipe.reversed()
    got = linear_kernel(backward.drift_matrix, backward.diffusion, number(db)).mean_map
    scale = recipe.covariance.diagonal().sqrt()
    gap = got @ recipe.covariance - recipe.covariance @ forward.T
    assert float((gap / (scale[:, None] * scale)).abs().max()) < 1e-12


def test_a_batch_of_times_is_the_times_one_by_one():
    recipe = HigherOrderLangevin(3).recipe
    assert recipe is not None
    db = torch.tensor([[0.0, 1e-7, 0.01], [0.3, 2.0, 40.0]], dtype=torch.float64)
    batch = linear_kernel(recipe.drift_matrix, recipe.diffusion, db)
    for i in range(2):
        for j in range(3):
            alone = linear_kernel(recipe.drift_matrix, recipe.diffusion, db[i, j])
            assert torch.equal(batch.mean_map[i, j], alone.mean_map)
            assert torch.equal(batch.covariance[i, j], alone.covariance)
    assert torch.equal(batch.mean_map[0, 0], torch.eye(3, dtype=torch.float64)) and not batch.covariance[0, 0].any()


def gaussian() -> tuple[Kernel, torch.Tensor, torch.Tensor]:
    """A kernel for two samples in k = 3, with z₀ and ε of two data dimensions."""
    draw = torch.Generator().manual_seed(3)
    mean_map = torch.randn(2, 3, 3, dtype=torch.float64, generator=draw)
    root = torch.randn(2, 3, 3, dtype=torch.float64, generator=draw)
    z0, eps = torch.randn(2, 2, 3, 2, dtype=torch.float64, generator=draw)
    return Kernel(mean_map, root @ root.mT + 0.1 * torch.eye(3)), z0, eps


def test_log_prob_is_that_of_torch_distributions():
    kernel, z0, eps = gaussian()
    z = kernel.sample(z0, eps)
    want = torch.zeros(2, dtype=torch.float64)
    for j in range(2):
        mean = (kernel.mean_map @ z0[:, :, j, None])[..., 0]
        law = torch.distributions.MultivariateNormal(mean, covariance_matrix=kernel.covariance)
        want += law.log_prob(z[:, :, j])
    torch.testing.assert_close(kernel.log_prob(z, z0), want, rtol=1e-13, atol=0)


def test_score_is_the_gradient_of_log_prob():
    kernel, z0, eps = gaussian()
    z = kernel.sample(z0, eps).requires_grad_()
    (gradient,) = torch.autograd.grad(kernel.log_prob(z, z0).sum(), z)
    torch.testing.assert_close(kernel.score(eps), gradient, rtol=1e-12, atol=1e-12)


def test_cholesky_is_that_of_torch_and_covers_what_torch_refuses():
    kernel, _, _ = gaussian()
    torch.testing.assert_close(
        cholesky(kernel.covariance), torch.linalg.cholesky(kernel.covariance), rtol=1e-13, atol=0
    )
    half_noise = torch.tensor([[0.0, 0.0, 0.0], [0.0, 4.0, 2.0], [0.0, 2.0, 5.0]], dtype=torch.float64)
    want = torch.tensor([[0.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    assert torch.equal(cholesky(half_noise), want)


def test_no_score_without_noise():
    with pytest.raises(ValueError, match="singular in float64, it has no score: use a larger t"):
        _ = PSLD().marginal(torch.tensor([0.1, 0.0])).whitener


def test_mix_outer_and_product_are_their_einsum():
    draw = torch.Generator().manual_seed(5)
    matrix, other = torch.randn(2, 4, 3, 3, dtype=torch.float64, generator=draw)
    z = torch.randn(4, 3, 2, 5, dtype=torch.float64, generator=draw)
    torch.testing.assert_close(mix(matrix, z), torch.einsum("brk,bkcd->brcd", matrix, z), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(mix(matrix[0], z), torch.einsum("rk,bkcd->brcd", matrix[0], z), rtol=1e-13, atol=1e-14)
    torch.testing.assert_close(mix(matrix[:, :1], z), torch.einsum("brk,bkcd->brcd", matrix[:, :1], z))
    torch.testing.assert_close(outer(matrix[:, 0], z[:, 0]), torch.einsum("bk,bcd->bkcd", matrix[:, 0], z[:, 0]))
    torch.testing.assert_close(product(matrix, other), matrix @ other, rtol=1e-13, atol=1e-14)


def test_mix_of_a_sample_does_not_depend_on_its_batch():
    draw = torch.Generator().manual_seed(6)
    matrix, z = torch.randn(64, 3, 3, generator=draw), torch.randn(64, 3, 1, 7, 7, generator=draw)
    assert torch.equal(mix(matrix, z)[5:6], mix(matrix[5:6], z[5:6]))
