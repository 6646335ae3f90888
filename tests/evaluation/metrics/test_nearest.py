"""Nearest distances against scipy, and the memorised share of samples whose origin is known."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from psld.evaluation.metrics.nearest import memorised_share, nearest_distance


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("chunk", [1, 13, 512])
def test_agrees_with_scipy(chunk: int) -> None:
    a, b = normal(0, 50, 1, 4, 4), normal(1, 70, 1, 4, 4)
    expected = cdist(a.flatten(1).double().numpy(), b.flatten(1).double().numpy()).min(1)
    np.testing.assert_allclose(nearest_distance(a, b, chunk=chunk).numpy(), expected, rtol=1e-12)


def test_a_copy_is_at_zero_and_a_near_copy_at_its_offset() -> None:
    """|a|² + |b|² − 2ab alone would be off by 1e-7 here."""
    b = normal(0, 40, 64).double() + 10
    a = b[[3, 17]].clone()
    a[1, 0] += 1e-9
    distance = nearest_distance(a, b)
    assert distance[0] == 0.0
    assert float(distance[1]) == pytest.approx(1e-9, rel=1e-5)


def test_nothing_to_search() -> None:
    with pytest.raises(ValueError, match="b is empty"):
        nearest_distance(normal(0, 3, 2), normal(0, 0, 2))


def test_typical_is_the_median_of_heldout_distances() -> None:
    train = torch.zeros(1, 1)
    heldout, samples = torch.tensor([[1.0], [2.0], [4.0], [8.0]]), torch.tensor([[0.0], [2.9], [3.0], [3.1]])
    share = memorised_share(samples, train, heldout)
    assert (share.typical, share.heldout, share.samples) == (3.0, 0.5, 0.5)


def test_copies_fresh_draws_and_noise() -> None:
    train, heldout, fresh = normal(0, 500, 8), normal(1, 500, 8), normal(2, 2000, 8)
    assert memorised_share(train[:100], train, heldout).samples == 1.0
    assert memorised_share(fresh, train, heldout).samples == pytest.approx(0.5, abs=0.06)
    assert memorised_share(fresh + 20, train, heldout).samples == 0.0


def test_an_empty_set_is_named() -> None:
    with pytest.raises(ValueError, match="0 samples, 5 training and 5 held-out"):
        memorised_share(normal(0, 0, 2), normal(1, 5, 2), normal(2, 5, 2))
