"""Intervals and floors of Fréchet distances against closed forms, direct recomputation and repeated draws."""

import pytest
import torch

from psld.evaluation.metrics.frechet import frechet_distance
from psld.evaluation.metrics.moments import Moments
from psld.evaluation.metrics.resampling import FrechetReference, equal_sizes, frechet_interval


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(("count", "reference"), [(50, 200), (8, 200), (50, 9), (8, 9)])
def test_distances_from_a_reference_are_frechet_distances(count: int, reference: int) -> None:
    """12 features: sets of more and of fewer images than that, whose covariances have no full rank."""
    data, samples = normal(0, reference, 12) @ normal(1, 12, 12) + 3, normal(2, count, 12) + 3.5
    measured = FrechetReference(Moments.of(data))
    assert measured.distance(samples) == pytest.approx(frechet_distance(samples, data), rel=1e-6)
    groups = torch.arange(count).tensor_split(4)
    rests = [torch.cat([group for j, group in enumerate(groups) if j != i]) for i in range(4)]
    expected = [frechet_distance(samples[rest], data) for rest in rests]
    assert measured.without_each(samples, groups) == pytest.approx(expected, rel=1e-6)


def test_standard_error_is_that_of_the_closed_form_in_one_dimension() -> None:
    """d² = Δμ² + Δσ², and sample means and deviations vary by σ²/n and σ²/2n: s² = 4 Δμ² σ²/n + 2 Δσ² σ²/n."""
    reference = FrechetReference(Moments(10_000, torch.zeros(1).double(), torch.full((1, 1), 9_999.0).double()))
    count, mean, std = 400, 0.8, 1.5
    expected = ((4 * mean**2 + 2 * (std - 1) ** 2) * std**2 / count) ** 0.5
    errors = []
    for seed in range(60):
        samples = mean + std * normal(seed, count, 1)
        interval = frechet_interval(reference.distance(samples), samples, count, reference, seed)
        assert interval is not None
        errors.append(interval.standard_error)
    assert sum(errors) / 60 == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(("dimension", "count"), [(6, 150), (40, 40)])
def test_intervals_cover_what_samples_have_on_average(dimension: int, count: int) -> None:
    """Also where there are no more images than features, and there the bootstrap's distances lie off by many errors."""
    spread = torch.linspace(1, 0.1, dimension, dtype=torch.float64)
    reference = FrechetReference(Moments.of(normal(0, 400, dimension) * spread))

    def draw(seed: int) -> torch.Tensor:
        return (1.2 * normal(seed, count, dimension) + 0.4) * spread

    average = sum(reference.distance(draw(seed)) for seed in range(1000, 1300)) / 300
    covered, off = 0, []
    for seed in range(1, 101):
        samples = draw(seed)
        value = reference.distance(samples)
        interval = frechet_interval(value, samples, count, reference, seed)
        assert interval is not None and interval.low < value < interval.high
        covered += interval.low <= average <= interval.high
        if seed <= 10:
            again = torch.randint(count, (20, count), generator=torch.Generator().manual_seed(seed))
            bootstrapped = sum(reference.distance(samples[rows]) for rows in again) / 20
            off.append((bootstrapped - value) / interval.standard_error)
    assert 90 <= covered <= 100
    if count <= dimension:
        assert sum(off) / len(off) > 3


def test_features_that_were_not_kept_narrow_the_interval() -> None:
    samples, reference = normal(1, 100, 3), FrechetReference(Moments.of(normal(0, 100, 3) + 1))
    few, many = (frechet_interval(1.0, samples, count, reference) for count in (100, 400))
    assert few is not None and many is not None
    assert few.standard_error == pytest.approx(2 * many.standard_error, rel=1e-12)
    assert frechet_interval(1.0, samples[:39], 39, reference) is None


def test_the_floor_is_of_as_many_images_as_there_are_samples() -> None:
    """Of one law, samples are at the floor; against the floor of fewer images, 2,000 seemed to be far below it."""
    data, samples, heldout = normal(0, 4000, 10), normal(1, 2000, 10), normal(2, 200, 10)
    equal = equal_sizes(2000, data, Moments.of(data))
    assert (equal.images, equal.against, len(equal.floors)) == (2000, 2000, 5)
    assert equal.of(samples) / equal.floor == pytest.approx(1, abs=0.25)
    beside = equal_sizes(2000, data, Moments.of(data), heldout)
    assert (beside.images, beside.against, beside.floor_std) == (200, 4000, None)
    assert beside.floor == pytest.approx(frechet_distance(heldout, data), rel=1e-9)
    assert beside.of(samples) / beside.floor == pytest.approx(1, abs=0.35)
    assert frechet_distance(samples, data) / beside.floor < 0.3


def test_real_images_and_the_reference_have_none_in_common() -> None:
    """Two clusters of one point each: any m of n points and the other n − m, distances of two-valued variables."""
    data = torch.cat([torch.zeros(6, 1), torch.ones(6, 1)]).double()
    equal = equal_sizes(12, data, Moments.of(data), splits=20)
    assert (equal.images, equal.against) == (6, 6)
    expected = set()
    for ones in range(7):  # among the m real images; the reference has the others
        a, b = ([1.0] * k + [0.0] * (6 - k) for k in (ones, 6 - ones))
        expected.add(round(frechet_distance(torch.tensor(a)[:, None], torch.tensor(b)[:, None]), 6))
    assert {round(floor, 6) for floor in equal.floors} <= expected
    assert equal.floor_std is not None and equal.floor_std > 0


def test_too_few_features_are_said() -> None:
    with pytest.raises(ValueError, match="3 of the data were kept, and two disjoint sets"):
        equal_sizes(100, normal(0, 3, 2), Moments.of(normal(0, 3, 2)))
    with pytest.raises(ValueError, match="0 features of samples and 9 of held-out images were kept"):
        equal_sizes(0, normal(0, 3, 2), Moments.of(normal(0, 3, 2)), normal(0, 9, 2))
