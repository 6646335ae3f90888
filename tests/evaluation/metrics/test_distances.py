"""Distances between features, each against a second implementation written here."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import nn

from psld.data import Digits
from psld.evaluation.features import BundledClassifier
from psld.evaluation.metrics.inception_score import InceptionScore
from psld.evaluation.metrics.kernel_distance import kernel_distance, unbiased_kernel_distance
from psld.evaluation.metrics.neighbours import neighbourhoods
from psld.evaluation.metrics.quality import frechet_between
from psld.evaluation.statistics import measured


@pytest.fixture(scope="module")
def digits():
    return Digits("all").images


@pytest.fixture(scope="module")
def halves(digits):
    """Features of two halves of the digits, from the bundled classifier."""
    features = BundledClassifier("digits")(digits)[0]
    return features[::2], features[1::2]


@pytest.mark.filterwarnings("ignore:Matrix is singular")  # a feature that never fires
def test_frechet_of_two_halves_is_the_matrix_square_root_of_scipy_and_of_torchmetrics(digits, halves):
    from torchmetrics.image.fid import FrechetInceptionDistance

    extractor = BundledClassifier("digits")
    sets = [digits[::2], digits[1::2]]
    a, b = (measured(images.split(100), range(len(images)), len(images), extractor) for images in sets)
    (mean_a, cov_a), (mean_b, cov_b) = ((h.numpy().mean(0), np.cov(h.numpy(), rowvar=False)) for h in halves)
    root = np.real(scipy.linalg.sqrtm(cov_a @ cov_b))
    expected = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    assert expected > 1e-3
    assert frechet_between(a, b) == pytest.approx(expected, abs=1e-6)
    metric = FrechetInceptionDistance(feature=_Given(64))
    metric.update(halves[0], real=True)
    metric.update(halves[1], real=False)
    assert frechet_between(a, b) == pytest.approx(float(metric.compute()), abs=1e-6)


class _Given(nn.Identity):
    """Features that were computed already."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features


def test_kernel_distance_over_the_full_sets_is_the_sum_over_all_pairs(halves):
    a, b = (h[:150].numpy() for h in halves)

    def kernel(x, y):
        return (float(x @ y) / 64 + 1) ** 3

    n = len(a)
    within = sum(kernel(x[i], x[j]) for x in (a, b) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    expected = within - 2 * sum(kernel(x, y) for x in a for y in b) / n**2
    mean, spread = kernel_distance(halves[0][:150], halves[1][:150], subsets=1, subset_size=n)
    assert mean == pytest.approx(expected, rel=1e-9)
    assert spread == 0.0
    assert unbiased_kernel_distance(halves[0][:150], halves[1][:150], chunk=40)[0] == pytest.approx(expected, rel=1e-9)


def test_error_of_the_kernel_distance_is_its_spread_over_draws_and_its_mean_is_unbiased():
    """30 samples and 60 images of two Gaussians, 400 times; MMD² itself from sets of 4,000."""

    def drawn(seed, data, samples):
        generator = torch.Generator().manual_seed(seed)
        x, y = (torch.randn(n, 4, generator=generator, dtype=torch.float64) for n in (data, samples))
        return unbiased_kernel_distance(x, 1.3 * y + 0.5)

    found = torch.tensor([drawn(seed, 60, 30) for seed in range(400)], dtype=torch.float64)
    exact = drawn(1000, 4000, 4000)[0]
    assert float(found[:, 0].mean()) == pytest.approx(exact, abs=4 * float(found[:, 0].std()) / 20)
    assert float(found[:, 1].square().mean().sqrt()) == pytest.approx(float(found[:, 0].std()), rel=0.15)
    with pytest.raises(ValueError, match="needs 3 features of each set: got 2 and 5"):
        unbiased_kernel_distance(torch.zeros(2, 3), torch.zeros(5, 3))


def test_jackknife_of_the_kernel_distance_is_that_of_leaving_out_images_one_by_one(halves):
    a, b = halves[0][:12].double(), halves[1][:9].double()

    def rest(points, i):
        return torch.cat([points[:i], points[i + 1 :]])

    left_out = [
        torch.tensor([unbiased_kernel_distance(rest(a, i), b)[0] for i in range(12)], dtype=torch.float64),
        torch.tensor([unbiased_kernel_distance(a, rest(b, i))[0] for i in range(9)], dtype=torch.float64),
    ]
    expected = sum((len(part) - 1) * float(part.var(correction=0)) for part in left_out) ** 0.5
    assert unbiased_kernel_distance(a, b)[1] == pytest.approx(expected, rel=1e-9)


def test_kernel_distance_depends_on_its_seed_and_leaves_the_global_generator_alone(halves):
    before = torch.get_rng_state()
    one, again, other = (kernel_distance(*halves, subsets=3, subset_size=100, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert one == again != other


def test_neighbourhoods_are_those_of_a_loop_over_points(halves):
    """The samples are moved, so that the four figures are away from 0 and 1."""
    data, samples, k = halves[0][:120].numpy(), halves[1][:90].numpy() * 0.8 + 0.1, 4

    def distance(x, y):
        return np.sqrt(np.sum((x - y) ** 2))

    def reaches(points):
        return [sorted(distance(p, q) for j, q in enumerate(points) if j != i)[k - 1] for i, p in enumerate(points)]

    data_reach, sample_reach = reaches(data), reaches(samples)
    inside = np.array([[distance(x, y) <= r for y in samples] for x, r in zip(data, data_reach, strict=True)])
    inverse = np.array([[distance(x, y) <= r for x in data] for y, r in zip(samples, sample_reach, strict=True)])
    expected = (inside.any(0).mean(), inverse.any(0).mean(), inside.sum() / (k * len(samples)), inside.any(1).mean())
    found = neighbourhoods(torch.from_numpy(data), torch.from_numpy(samples), k, chunk=17)
    assert found == pytest.approx(expected, abs=1e-12)
    assert 0.05 < min(expected[0], expected[1], expected[3]) and max(expected[0], expected[1], expected[3]) < 0.99


def test_neighbourhoods_of_a_set_and_itself():
    points = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
    found = neighbourhoods(points, points, k=3)
    assert (found.precision, found.recall, found.coverage) == (1.0, 1.0, 1.0)
    assert found.density == pytest.approx((3 + 1) / 3)  # each ball holds its own point and three more
    with pytest.raises(ValueError, match="k = 40"):
        neighbourhoods(points, points, k=40)


@pytest.mark.filterwarnings("ignore:Metric `InceptionScore` will save all extracted features")
@pytest.mark.filterwarnings("ignore:std.. degrees of freedom")
def test_inception_score_in_batches_is_that_of_torchmetrics_on_everything():
    from torchmetrics.image.inception import InceptionScore as Reference

    logits = 3 * torch.randn(500, 7, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    reference = Reference(feature=nn.Identity(), splits=1)
    reference.update(logits)
    own = InceptionScore(7, parts=1)
    for start in range(0, 500, 64):
        own.add(logits[start : start + 64], torch.arange(start, min(start + 64, 500)))
    assert own.result()[0] == pytest.approx(float(reference.compute()[0]), rel=1e-10)


def test_inception_score_of_a_certain_classifier_is_the_number_of_classes():
    score = InceptionScore(4)
    score.add(1e6 * torch.eye(4).repeat(10, 1), torch.arange(40) // 4 * 10 + 3)  # all in one part
    assert score.result() == (pytest.approx(4.0), 0.0)
