"""What every metric promises: figures that a file can hold, of sets that were measured alike and have what it needs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch

from psld.evaluation.features import BundledClassifier
from psld.evaluation.metrics.metric import Metric
from psld.evaluation.metrics.quality import METRICS, compare
from psld.evaluation.statistics import ImageStatistics, measured
from psld.specs import build

every = pytest.mark.parametrize("metric", METRICS, ids=repr)


def statistics(images: torch.Tensor) -> ImageStatistics:
    return measured([images], range(len(images)), len(images), BundledClassifier("digits"))


@pytest.fixture(scope="module")
def sets() -> tuple[ImageStatistics, ImageStatistics]:
    """Noisy digits as samples, and digits."""
    from psld.data import Digits

    images = Digits("all").images
    noise = torch.randn(300, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return statistics((images[:300] + 0.3 * noise).clamp(-1, 1)), statistics(images[300:700])


def numbers(figures: object) -> list[float]:
    """Every number of a metric's answer."""
    if isinstance(figures, dict):
        return [number for value in figures.values() for number in numbers(value)]
    assert isinstance(figures, int | float)
    return [float(figures)]


@every
def test_figures_are_numbers_with_names(metric: Metric, sets):
    figures = metric(*sets)
    assert figures and all(isinstance(name, str) for name in figures)
    assert all(math.isfinite(number) for number in numbers(dict(figures)))
    assert json.loads(json.dumps(figures)) == figures and metric(*sets) == figures
    assert set(metric.with_inception) <= set(figures)


@every
def test_comparing_computes_it_and_refuses_what_was_measured_otherwise(metric: Metric, sets):
    samples, data = sets
    result = compare(samples, data, "Fréchet distance", [metric])
    assert result["figures"] == metric(samples, data) and result["metrics"] == [metric.spec.config()]
    other = replace(samples, measurement=replace(samples.measurement, extractor="another"))
    with pytest.raises(ValueError, match="extractor is another there|extractor is .* here"):
        compare(other, data, "Fréchet distance", [metric])


@every
def test_it_is_left_out_without_what_it_needs(metric: Metric, sets):
    assert metric.applies(*sets)
    assert metric.needs <= {"moments", "features", "logits"}
    bare = [replace(of, features=of.features[:1], inception_score=None, confident=None) for of in sets]
    assert metric.applies(*bare) == (metric.needs == {"moments"})


@every
def test_the_order_of_images_does_not_matter(metric: Metric, sets):
    samples, data = sets
    turned = replace(samples, features=samples.features.flip(0))
    for one, other in zip(numbers(dict(metric(samples, data))), numbers(dict(metric(turned, data))), strict=True):
        assert other == pytest.approx(one, rel=0.1, abs=1e-9)


@every
def test_it_is_made_again_from_its_spec(metric: Metric):
    assert build(metric.spec.config(), trust=True) == metric and repr(metric).startswith(type(metric).__name__)
