import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from psld.processes import CLD, PSLD, VESDE, VPSDE, HigherOrderLangevin, SubVPSDE
from psld.recipe import LinearRecipe, Recipe, RecipeError
from random_recipes import random_recipe

ROTATION = [[0.0, -1.0], [1.0, 0.0]]
EYE = [[1.0, 0.0], [0.0, 1.0]]
ZERO = [[0.0, 0.0], [0.0, 0.0]]


def matrix(rows) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


# -- the linear recipe ---------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(random_recipe())
def test_every_recipe_leaves_its_law_stationary(recipe):
    """A S + S Aᵀ + 2D = 0, and A S = −(D + Q)."""
    a, s, d = recipe.drift_matrix, recipe.covariance, recipe.diffusion
    size = float(d.abs().max() + recipe.curl.abs().max())
    assert float((a @ s + s @ a.T + 2 * d).abs().max()) <= 1e-12 * size
    assert float((a @ s + d + recipe.curl).abs().max()) <= 1e-12 * size
    assert recipe.check().stationary


@settings(max_examples=60, deadline=None)
@given(random_recipe(full_rank=True), st.booleans())
def test_an_sde_is_recognised(recipe, solved):
    """The SDE of a known recipe, with G = L V for an arbitrary rotation V, gives back D, Q and S."""
    k = recipe.k
    rotation = torch.linalg.qr(torch.randn(k, k, dtype=torch.float64, generator=torch.Generator().manual_seed(k)))[0]
    values, vectors = torch.linalg.eigh(2 * recipe.diffusion)
    noise = (vectors * values.clamp(min=0).sqrt()) @ rotation
    if solved and float(values[0]) < 1e-3:
        return  # hardly any noise in one direction: S is then known to fewer digits
    found = LinearRecipe.from_sde(recipe.drift_matrix, noise, None if solved else recipe.covariance)
    tolerance = 1e-8 if solved else 1e-12
    for got, want in ((found.diffusion, recipe.diffusion), (found.curl, recipe.curl)):
        assert float((got - want).abs().max()) <= tolerance * float((recipe.diffusion + recipe.curl).abs().max())
    torch.testing.assert_close(found.covariance, recipe.covariance, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("process", [CLD(), PSLD(0.25), HigherOrderLangevin(3), HigherOrderLangevin(4)], ids=repr)
def test_published_processes_are_recognised_from_their_sde(process):
    recipe = process.recipe
    noise = torch.diag((2 * recipe.diffusion.diagonal()).sqrt())
    found = LinearRecipe.from_sde(recipe.drift_matrix, noise)
    torch.testing.assert_close(found.covariance, recipe.covariance, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.diffusion, recipe.diffusion, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(found.curl, recipe.curl, rtol=1e-13, atol=1e-13)


def test_noise_need_not_be_square():
    """dx = −x dt + 1 dw₁ + 2 dw₂ has D = 5/2 and S = 5/2."""
    recipe = LinearRecipe.from_sde([[-1.0]], [[1.0, 2.0]])
    assert recipe.diffusion.item() == recipe.covariance.item() == 2.5


@pytest.mark.parametrize(
    ("drift", "noise", "covariance", "message"),
    [
        ([[0.0]], [[1.0]], None, r"eigenvalue 0 of the drift does not decay .* adds variance at a rate of 1\."),
        ([[1.0, 0.0], [0.0, -2.0]], EYE, None, r"no stationary law: eigenvalue 1 of the drift does not decay"),
        ([[0.0, 1.0], [-1.0, 0.0]], EYE, None, r"eigenvalue -?0?.*1i of the drift does not decay"),
        ([[-1.0]], [[2.0]], [[1.0]], r"max \|A S \+ S Aᵀ \+ G Gᵀ\| = 2 at entry \(0, 0\): .* 0 and 0 keeps growing"),
        ([[-1.0]], [[1.0]], [[1.0]], r"= 1 at entry \(0, 0\): .* keeps falling"),
        ([[0.0]], [[1.0]], [[1.0]], r"= 1 at entry \(0, 0\)"),
        ([[-1.0, 0.0], [0.0, -1.0]], [[1.0], [0.0]], None, r"degenerate: noise reaches only 1 of 2 directions"),
        ([[-1.0, 0.0], [0.0, -1.0]], [[1.0], [1.0]], None, r"degenerate: noise reaches only 1 of 2"),
        ([[-1.0]], [[0.0]], [[0.0]], r"smallest eigenvalue is 0\."),
        ([[-1.0]], [[1.0], [1.0]], None, r"noise must have 1 rows, .* got shape \(2, 1\)"),
        ([[-1.0]], [[1.0]], EYE, r"covariance must be 1×1: got shape \(2, 2\)"),
        (torch.zeros(2, 3), EYE, None, r"drift must be 2×2: got shape \(2, 3\)"),
    ],
)
def test_what_is_not_a_recipe_is_refused_with_the_number(drift, noise, covariance, message):
    with pytest.raises(RecipeError, match=message):
        LinearRecipe.from_sde(drift, noise, covariance)


@pytest.mark.parametrize("noise", [[[0.0], [0.0]], [[1.0], [0.0]]])
def test_a_stable_sde_without_noise_falls_to_zero_and_is_not_said_to_remember(noise):
    with pytest.raises(RecipeError, match="variance of the others falls to 0") as caught:
        LinearRecipe.from_sde([[-1.0, 0.0], [0.0, -1.0]], noise)
    assert "keep what they started with" not in str(caught.value) and "never forgets" not in str(caught.value)


@pytest.mark.parametrize(
    ("diffusion", "curl", "covariance", "message"),
    [
        (
            [[1.0, 0.0], [0.0, -0.5]],
            ROTATION,
            EYE,
            r"diffusion must be positive semi-definite: .* eigenvalue is -0\.5\.",
        ),
        ([[1.0, 2.0], [2.0, 1.0]], ROTATION, EYE, r"positive semi-definite: its smallest eigenvalue is -1\."),
        ([[1.0, 0.3], [0.1, 1.0]], ROTATION, EYE, r"diffusion must be symmetric: .* differ by 0\.2\."),
        (
            EYE,
            [[0.0, 1.0], [1.0, 0.0]],
            EYE,
            r"max \|Q \+ Qᵀ\| = 2 at entry \(0, 1\)\. .*\[\[0\.0, -1\.0\], \[1\.0, 0\.0\]\]",
        ),
        (EYE, [[0.3, -1.0], [1.0, 0.0]], EYE, r"max \|Q \+ Qᵀ\| = 0\.6 at entry \(0, 0\)"),
        (EYE, [[0.0, 2.0], [0.0, 0.0]], EYE, r"Did you mean \[\[0\.0, 2\.0\], \[-2\.0, 0\.0\]\]"),
        (
            EYE,
            ROTATION,
            [[1.0, 0.0], [0.0, 0.0]],
            r"covariance must be positive definite: its smallest eigenvalue is 0\.",
        ),
        (EYE, ROTATION, [[1.0, 3.0], [3.0, 1.0]], r"covariance must be positive definite: .* is -2\."),
        (EYE, ROTATION, [[1.0, 0.5], [0.0, 1.0]], r"covariance must be symmetric: .* differ by 0\.5\."),
        (EYE, [[0.0]], EYE, r"curl must be 2×2: got shape \(1, 1\)"),
        (EYE, ROTATION, [[1.0]], r"covariance must be 2×2: got shape \(1, 1\)"),
        (torch.zeros(2, 3), ROTATION, EYE, r"diffusion must be 2×2: got shape \(2, 3\)"),
        (torch.zeros(3), ROTATION, EYE, r"diffusion must be a matrix: got shape \(3,\)"),
        (torch.zeros(0, 0), ROTATION, EYE, r"diffusion must be a matrix: got shape \(0, 0\)"),
        ([[1.0, 0.0], [0.0, math.nan]], ROTATION, EYE, r"diffusion must be finite: entry \(1, 1\) is nan"),
        (EYE, [[0.0, -math.inf], [1.0, 0.0]], EYE, r"curl must be finite: entry \(0, 1\) is -inf"),
        (EYE, ROTATION, [[math.nan, 0.0], [0.0, 1.0]], r"covariance must be finite: entry \(0, 0\) is nan"),
        ([[1.0], [1.0, 2.0]], ROTATION, EYE, r"diffusion must be a matrix of numbers: "),
    ],
)
def test_construction_refuses_with_the_number(diffusion, curl, covariance, message):
    with pytest.raises(RecipeError, match=message):
        LinearRecipe(diffusion, curl, covariance)


def test_the_curl_that_an_error_suggests_is_accepted():
    LinearRecipe(EYE, [[0.0, -1.0], [1.0, 0.0]], EYE)
    LinearRecipe(EYE, [[0.0, 2.0], [-2.0, 0.0]], EYE)


@settings(max_examples=30, deadline=None)
@given(random_recipe())
def test_repr_is_the_recipe(recipe):
    again = eval(repr(recipe), {"LinearRecipe": LinearRecipe})
    assert torch.equal(again.drift_matrix, recipe.drift_matrix) and torch.equal(again.curl, recipe.curl)


def test_reversed_turns_the_curl_alone():
    recipe = PSLD(0.25).recipe
    assert recipe is not None
    back = recipe.reversed()
    assert torch.equal(back.curl, -recipe.curl) and torch.equal(back.diffusion, recipe.diffusion)
    assert torch.equal(back.reversed().drift_matrix, recipe.drift_matrix)


# -- the report ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.25, 2.0])
@pytest.mark.parametrize(
    ("share", "damping"),
    [
        (1.0, "critical"),
        (1 + 1e-12, "critical"),
        (1 + 1e-5, "over"),
        (1 - 1e-5, "under"),
        (2.0, "over"),
        (0.5, "under"),
    ],
)
def test_damping_of_psld_by_its_mass(gamma, share, damping):
    """λ² + ½(Γ + ν) λ + ¼(Γν + 1/M) = 0: the roots are −¼(Γ + ν) ± ¼ √((Γ − ν)² − 4/M)."""
    critical = 4.0 / 4.0**2
    report = PSLD(gamma, mass=share * critical).check()
    assert report.ok and report.damping == damping
    discriminant = 16.0 - 4.0 / (share * critical)
    slowest = -0.25 * (2 * gamma + 4.0) + 0.25 * math.sqrt(max(0.0, discriminant))
    assert report.spectral_gap == pytest.approx(-slowest, rel=1e-5)


@pytest.mark.parametrize(
    ("process", "gap", "rel"),
    [
        (VPSDE(), 0.5, 1e-14),
        (CLD(), 1.0, 1e-7),
        (PSLD(0.01), 1.005, 1e-7),
        (HigherOrderLangevin(2), 1.0, 1e-7),
        (HigherOrderLangevin(3), math.sqrt(3.0), 1e-4),
        (HigherOrderLangevin(4), math.sqrt(5.0), 2e-3),
    ],
    ids=repr,
)
def test_spectral_gap_in_closed_form(process, gap, rel):
    """A defective eigenvalue of multiplicity n is known to about ε^(1/n)."""
    report = process.check()
    assert report.ok and report.spectral_gap == pytest.approx(gap, rel=rel)
    assert report.damping == ("over" if process.k == 1 else "critical")
    assert report.reached_variables == process.k and not report.reasons
    assert json.loads(json.dumps(report.to_dict()))["eigenvalues"][0][0] == pytest.approx(-gap, rel=rel)


def block(*blocks) -> torch.Tensor:
    return torch.block_diag(*(matrix(b) for b in blocks))


CRITICAL_D, CRITICAL_Q = [[0.0, 0.0], [0.0, 2.0]], ROTATION


@pytest.mark.parametrize(
    ("diffusion", "curl", "damping"),
    [
        (EYE, ZERO, "over"),  # equal rates, but no mode was brought there by a curl
        (EYE, [[0.0, -1e-4], [1e-4, 0.0]], "under"),
        (block(EYE, EYE), block(ROTATION, ZERO) * 1e-4, "under"),
        (block(EYE, [[5.0, 0.0], [0.0, 8.0]]), block(ZERO, ROTATION), "over"),  # a pair that coincides by chance
        (torch.diag(matrix([1.0, 1.0005, 5.0, 8.0])), block(ZERO, ROTATION), "over"),  # nearly so
        (block(CRITICAL_D, EYE), block(CRITICAL_Q, ZERO), "critical"),
        (block(CRITICAL_D, EYE), block(CRITICAL_Q, ROTATION), "under"),
        (block(CRITICAL_D, EYE), block(CRITICAL_Q, ROTATION) @ torch.diag(matrix([1, 1, 1e-4, 1e-4])), "under"),
        (block(CRITICAL_D, CRITICAL_D), block(CRITICAL_Q, CRITICAL_Q), "critical"),
    ],
)
def test_damping_of_several_modes(diffusion, curl, damping):
    """Under when any mode oscillates, critical when two rates meet in one mode, over otherwise."""
    k = len(diffusion)
    assert LinearRecipe(diffusion, curl, torch.eye(k)).check().damping == damping
    scale = torch.diag(10.0 ** torch.arange(k, dtype=torch.float64))  # other units: the same process
    moved = [scale @ torch.as_tensor(m, dtype=torch.float64) @ scale for m in (diffusion, curl, torch.eye(k).double())]
    assert LinearRecipe(*moved).check().damping == damping


def test_cld_is_ergodic_through_its_curl():
    report = CLD().check()
    assert report.ok and report.diffusion_min_eigenvalue == 0.0 and report.reached_variables == 2
    assert report.lyapunov_residual == pytest.approx(0.0, abs=1e-15)
    lines = str(report).splitlines()
    assert any(line.startswith("ergodic") and "noise reaches 2 of 2" in line for line in lines)
    assert any(
        line.startswith("damping") and line.endswith("critical                eigenvalues of A: -1, -1")
        for line in lines
    )


def test_cld_without_its_curl_is_not_ergodic():
    report = LinearRecipe([[0.0, 0.0], [0.0, 0.5]], ZERO, EYE).check()
    assert report.stationary and not report.ergodic and not report.ok
    assert report.reached_variables == 1 and report.spectral_gap == 0.0 and report.damping is None
    assert "noise reaches only 1 of 2 directions" in report.reasons[0] and "noise of their own: 0." in report.reasons[0]


@pytest.mark.parametrize("curl", [ZERO, ROTATION])
def test_no_noise_is_not_ergodic_in_words(curl):
    report = LinearRecipe(ZERO, curl, EYE).check()
    assert report.stationary and not report.ergodic and report.spectral_gap == 0.0
    assert report.damping is None  # there is no law to relax to
    assert report.reasons == ("D is zero, there is no noise: the process never forgets where it started.",)
    assert "  why: D is zero" in str(report) and "NO" in str(report)


def test_reports_of_processes_that_are_no_recipe():
    report = VESDE().check()
    assert not report.stationary and not report.ergodic and report.lyapunov_residual == 1.0
    assert "H is constant" in report.reasons[0] and json.dumps(report.to_dict())
    report = SubVPSDE().check()
    assert not report.ok and not report.stationary
    early = 1 - math.exp(-2 * (0.1 * 0.1 + 19.9 * 0.01 / 2))  # 2b(0.1), b = 0.1 t + 19.9 t²/2
    assert f"{early:.4f} at t = 0.1" in report.reasons[0] and "H depends on time" in report.reasons[0]


# -- the general recipe --------------------------------------------------------------------------------------------


def double_well(z):
    return (z[0] ** 2 - 1) ** 2 + 0.5 * (z[1:] ** 2).sum() + 0.2 * z[0] * z[-1]


def curved_diffusion(z):
    """L Lᵀ with L = [[a, 0], [0.2 m, 1]], a = 1 + 0.3 sin x."""
    x, m = z
    a = 1 + 0.3 * torch.sin(x)
    return torch.stack([torch.stack([a**2, 0.2 * a * m]), torch.stack([0.2 * a * m, 1 + 0.04 * m**2])])


def curved_curl(z):
    q = z[0] ** 2 + torch.cos(z[1])
    return q * torch.tensor(ROTATION, dtype=z.dtype)


def curved_diffusion_3(z):
    root = torch.eye(3, dtype=z.dtype) + 0.3 * torch.outer(torch.sin(z), torch.cos(z.flip(0)))
    return root @ root.T


def curved_curl_3(z):
    root = torch.outer(torch.tanh(z), z.flip(0))
    return root - root.T


RECIPES = {
    2: Recipe(double_well, curved_diffusion, curved_curl),
    3: Recipe(double_well, curved_diffusion_3, curved_curl_3),
}


def points(d: int, n: int = 40) -> torch.Tensor:
    return torch.randn(n, d, dtype=torch.float64, generator=torch.Generator().manual_seed(d))


@pytest.mark.parametrize("d", [2, 3])
def test_any_recipe_is_stationary(d):
    RECIPES[d].validate(points(d))
    assert float(RECIPES[d].stationarity_residual(points(d)).abs().max()) < 1e-10


@pytest.mark.parametrize("d", [2, 3])
def test_without_the_correction_it_is_not(d):
    recipe = RECIPES[d]

    def bare(z):
        return -(recipe.diffusion(z) + recipe.curl(z)) @ torch.func.grad(double_well)(z)

    residual = recipe.stationarity_residual(points(d), drift=bare)
    assert float(residual.abs().median()) > 0.1
    # (∂p/∂t)/p of f − τ exceeds that of f by ∇·τ − τ·∇H
    z = points(d)
    divergence = torch.func.vmap(lambda p: torch.func.jacrev(recipe._correction)(p).diagonal().sum())(z)
    gradient = torch.func.vmap(torch.func.grad(double_well))(z)
    torch.testing.assert_close(residual, divergence - (recipe.correction(z) * gradient).sum(1), rtol=1e-9, atol=1e-9)


def test_correction_by_hand():
    """τ₀ = ∂ₓa² + ∂ₘ(0.2 a m − q), τ₁ = ∂ₓ(0.2 a m + q) + ∂ₘ(0.04 m²), q = x² + cos m."""
    z = points(2)
    x, m = z.T
    a, slope = 1 + 0.3 * torch.sin(x), 0.3 * torch.cos(x)
    want = torch.stack([2 * a * slope + 0.2 * a + torch.sin(m), 0.2 * m * slope + 2 * x + 0.08 * m], dim=1)
    torch.testing.assert_close(RECIPES[2].correction(z), want, rtol=1e-13, atol=1e-13)
    gradient = torch.stack([4 * x * (x**2 - 1) + 0.2 * m, m + 0.2 * x], dim=1)
    q = x**2 + torch.cos(m)
    both = torch.stack([a**2, 0.2 * a * m - q, 0.2 * a * m + q, 1 + 0.04 * m**2], dim=1).reshape(-1, 2, 2)
    torch.testing.assert_close(RECIPES[2].drift(z), want - torch.einsum("nij,nj->ni", both, gradient))


@settings(max_examples=20, deadline=None)
@given(random_recipe())
def test_a_linear_recipe_is_the_general_one_with_a_quadratic_hamiltonian(linear):
    precision = torch.linalg.inv(linear.covariance)
    general = Recipe(lambda z: 0.5 * z @ precision @ z, linear.diffusion, linear.curl)
    z = points(linear.k)
    torch.testing.assert_close(general.drift(z), z @ linear.drift_matrix.T, rtol=1e-9, atol=1e-9)
    assert not general.correction(z).any()
    assert float(general.stationarity_residual(z).abs().max()) < 1e-8


def test_simulate_reaches_a_law_whose_noise_depends_on_the_state():
    """H = z²/2, D = ½ + 1/(1 + z²), from z = 2: ⟨z⟩ = 0, ⟨z²⟩ = 1, ⟨z⁴⟩ = 3, within four standard errors."""
    n = 4000
    recipe = Recipe(lambda z: 0.5 * z @ z, lambda z: (0.5 + 1 / (1 + z**2))[:, None], [[0.0]])
    start = torch.full((n, 1), 2.0, dtype=torch.float64)
    z = recipe.simulate(start, step=0.01, steps=600, generator=torch.Generator().manual_seed(0))
    for power, mean, variance in ((1, 0.0, 1.0), (2, 1.0, 2.0), (4, 3.0, 96.0)):
        assert float((z**power).mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / n))


def test_simulate_reaches_correlated_gaussian_with_half_the_noise():
    """CLD's D and Q with a correlated S: the covariance is S, whatever the curl."""
    n, s = 4000, matrix([[1.0, 0.6], [0.6, 2.0]])
    precision = torch.linalg.inv(s)
    recipe = Recipe(lambda z: 0.5 * z @ precision @ z, [[0.0, 0.0], [0.0, 2.0]], [[0.0, -1.5], [1.5, 0.0]])
    z = recipe.simulate(torch.zeros(n, 2).double(), step=0.01, steps=800, generator=torch.Generator().manual_seed(1))
    error = ((s**2 + s.diagonal()[:, None] * s.diagonal()) / n).sqrt()  # of a covariance of n Gaussian draws
    assert ((z.T @ z / n - s).abs() < 4 * error).all()


def test_simulate_is_decided_by_its_generator():
    start = points(2)
    one, same, other = (RECIPES[2].simulate(start, 0.01, 3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(("step", "steps"), [(0.0, 1), (-0.1, 1), (0.1, 0)])
def test_simulate_refuses(step, steps):
    with pytest.raises(ValueError, match=f"got step = {step}, steps = {steps}"):
        RECIPES[2].simulate(points(2), step, steps)


def test_functions_are_validated_where_they_are_evaluated():
    recipe = Recipe(double_well, lambda z: torch.diag(z), [[0.0, -1.0], [1.0, 0.0]])
    recipe.validate(matrix([[1.0, 2.0]]))
    with pytest.raises(RecipeError, match=r"smallest eigenvalue is -2\."):
        recipe.validate(matrix([[1.0, 2.0], [1.0, -2.0]]))
    with pytest.raises(RecipeError, match=r"max \|Q \+ Qᵀ\| = 4"):
        Recipe(double_well, EYE, lambda z: torch.outer(z, z)).validate(matrix([[1.0, 2.0]]).sqrt())
    with pytest.raises(RecipeError, match=r"smallest eigenvalue is -1\."):
        Recipe(double_well, [[1.0, 0.0], [0.0, -1.0]], ZERO)
    with pytest.raises(RecipeError, match=r"max \|Q \+ Qᵀ\| = 2"):
        Recipe(double_well, EYE, EYE)
