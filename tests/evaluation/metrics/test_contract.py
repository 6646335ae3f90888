"""A metric of one's own takes part; one whose needs are not met is left out; the standard ones keep their figures."""

import pytest
import torch

from psld.evaluation.features import BundledClassifier
from psld.evaluation.metrics.kernel_distance import KernelDistance, kernel_distance, unbiased_kernel_distance
from psld.evaluation.metrics.metric import Metric
from psld.evaluation.metrics.neighbours import neighbourhoods
from psld.evaluation.metrics.quality import METRICS, compare
from psld.evaluation.statistics import ImageStatistics, measured


class MeanShift(Metric):
    """The example of the contract."""

    name = "mean shift"
    with_inception = {"mean shift": "FID's first term"}

    def __call__(self, samples: ImageStatistics, data: ImageStatistics) -> dict[str, float]:
        return {"mean shift": float((samples.moments.mean - data.moments.mean).norm())}


class Hundred(MeanShift):
    """As before, of sets that keep a hundred features."""

    name, needs, least = "hundred", frozenset({"features"}), 100


@pytest.fixture(scope="module")
def sets():
    from psld.data import Digits

    extractor = BundledClassifier("digits")
    images = Digits("all").images
    return [measured([part], range(len(part)), len(part), extractor, 99) for part in (images[:300], images[300:700])]


def test_a_metric_of_ones_own(sets):
    samples, data = sets
    expected = float((samples.moments.mean - data.moments.mean).square().sum().sqrt())
    result = compare(samples, data, "Fréchet distance", (*METRICS, MeanShift(), Hundred()))
    assert result["figures"]["mean shift"] == pytest.approx(expected, rel=1e-12)
    assert [config["class_path"].rpartition(".")[2] for config in result["metrics"]][-2:] == ["MeanShift", "Hundred"]
    assert "hundred" not in result["figures"] and not Hundred().applies(samples, data)
    assert list(compare(samples, data, "FID", (MeanShift(),))["figures"]) == ["FID's first term"]


def test_standard_figures_and_their_names_under_inception(sets):
    samples, data = sets
    figures = compare(samples, data, "Fréchet distance")["figures"]
    near, far = (neighbourhoods(data.features, samples.features, k) for k in (3, 5))
    assert (figures["precision"], figures["recall"]) == (near.precision, near.recall)
    assert (figures["density"], figures["coverage"]) == (far.density, far.coverage)
    mean, spread = kernel_distance(data.features, samples.features, 100, 99)
    expected = {"mean": mean, "std": spread, "subsets": 100, "subset_size": 99}
    assert figures["kernel distance over subsets"] == expected
    value, error = unbiased_kernel_distance(data.features, samples.features)
    assert figures["kernel distance"] == {"mean": value, "std": error, "samples": 99, "data": 99}
    names = [("Fréchet distance", "FID"), ("kernel distance", "KID")]
    names += [("kernel distance over subsets", "KID over subsets")]
    names += [(f"classifier score of {of}", f"Inception Score of {of}") for of in ("samples", "data")]
    of_inception = compare(samples, data, "FID")["figures"]
    for name, called in names:
        assert of_inception[called] == figures[name]
    named = compare(samples, data, "Fréchet distance in other features")["figures"]
    assert named["Fréchet distance in other features"] == figures["Fréchet distance"]
    assert named["kernel distance in other features"] == figures["kernel distance"] and "FID" not in named
    few = compare(samples, data, "FID", (KernelDistance(subsets=3, subset_size=10),))["figures"]["KID over subsets"]
    assert (few["subsets"], few["subset_size"]) == (3, 10)


def test_without_features_what_needs_them_is_left_out(sets):
    bare = [ImageStatistics(of.measurement, of.moments, of.features[:1]) for of in sets]
    assert list(compare(bare[0], bare[1], "Fréchet distance")["figures"]) == ["Fréchet distance"]
    assert torch.equal(bare[0].moments.mean, sets[0].moments.mean)
