"""Features in batches give what they give at once."""

import numpy as np
import pytest
import torch

from psld.evaluation.metrics.moments import Moments


def test_batches_add_up_to_numpy_on_everything_at_once():
    """A mean of 1e6 against a spread of 1: Σ f fᵀ − n mean meanᵀ would be off by 1e-3 and more."""
    features = torch.randn(1001, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1e6
    total = sum((Moments.of(rows) for rows in features.split(64)), Moments.none(5))
    assert total.count == 1001
    np.testing.assert_allclose(total.mean.numpy(), features.numpy().mean(0), rtol=1e-14)
    centred = features.numpy() - 1e6
    np.testing.assert_allclose(total.covariance.numpy(), np.cov(centred, rowvar=False), atol=1e-9)


def test_one_image_has_no_covariance():
    with pytest.raises(ValueError, match="at least 2 images: there are 1"):
        _ = Moments.of(torch.zeros(1, 3)).covariance
