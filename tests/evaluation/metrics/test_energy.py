"""The energy distance against a double loop and against a law whose distance is known."""

import math

import numpy as np
import pytest
import torch

from psld.evaluation.metrics.energy import energy_distance


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_force(a: np.ndarray, b: np.ndarray, unbiased: bool) -> float:
    def mean_distance(x: np.ndarray, y: np.ndarray, pairs: int) -> float:
        return sum(math.sqrt(((p - q) ** 2).sum()) for p in x for q in y) / pairs

    own = 1 if unbiased else 0
    within = sum(mean_distance(x, x, len(x) * (len(x) - own)) for x in (a, b))
    return 2 * mean_distance(a, b, len(a) * len(b)) - within


@pytest.mark.parametrize("unbiased", [False, True])
@pytest.mark.parametrize("chunk", [1, 7, 256])
def test_agrees_with_a_double_loop(unbiased: bool, chunk: int) -> None:
    a, b = normal(0, 23, 4), normal(1, 17, 4) + 0.3
    expected = brute_force(a.numpy(), b.numpy(), unbiased)
    assert energy_distance(a, b, unbiased=unbiased, chunk=chunk) == pytest.approx(expected, rel=1e-12)


def test_identical_samples_are_at_zero() -> None:
    a = normal(0, 300, 64).float()
    assert energy_distance(a, a.clone()) == 0.0


def test_order_of_points_does_not_matter() -> None:
    a = normal(0, 300, 5)
    assert energy_distance(a, a.flip(0)) == pytest.approx(0.0, abs=1e-12)


def test_approaches_the_distance_of_two_normal_laws() -> None:
    """On the line E|N(μ, s²)| = s √(2/π) exp(−μ²/2s²) + μ erf(μ / s√2); here μ = 1, s² = 2 across and μ = 0 within."""
    across = 2 / math.sqrt(math.pi) * math.exp(-0.25) + math.erf(0.5)
    expected = 2 * across - 4 / math.sqrt(math.pi)
    estimate = energy_distance(normal(0, 4000, 1), normal(1, 4000, 1) + 1, unbiased=True)
    assert estimate == pytest.approx(expected, abs=0.05)


def test_unbiased_estimate_averages_to_zero_under_one_law() -> None:
    estimates = [energy_distance(normal(2 * i, 20, 2), normal(2 * i + 1, 20, 2), unbiased=True) for i in range(200)]
    assert abs(np.mean(estimates)) < 4 * np.std(estimates) / math.sqrt(200)
    assert min(estimates) < 0


def test_images_are_flattened() -> None:
    a, b = normal(0, 9, 1, 4, 4), normal(1, 8, 1, 4, 4)
    assert energy_distance(a, b) == energy_distance(a.flatten(1), b.flatten(1))


@pytest.mark.parametrize(("sizes", "unbiased"), [((0, 5), False), ((5, 1), True)])
def test_too_few_points(sizes: tuple[int, int], unbiased: bool) -> None:
    with pytest.raises(ValueError, match="at least"):
        energy_distance(normal(0, sizes[0], 2), normal(1, sizes[1], 2), unbiased=unbiased)
