"""Recipes drawn by hypothesis: any rank of D, any curl, any covariance."""

import torch
from hypothesis import strategies as st

from psld.recipe import LinearRecipe


@st.composite
def random_recipe(draw, full_rank: bool = False) -> LinearRecipe:
    """k = 1 … 4, D of rank 0 … k, Q random skew-symmetric, S random with a condition number up to about 100."""
    k = draw(st.integers(1, 4))
    rank = k if full_rank else draw(st.integers(0, k))
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    noise = torch.randn(k, rank, dtype=torch.float64, generator=source)
    curl = draw(st.sampled_from([0.0, 0.3, 2.0])) * torch.randn(k, k, dtype=torch.float64, generator=source)
    axes = torch.linalg.qr(torch.randn(k, k, dtype=torch.float64, generator=source))[0]
    variances = 0.2 * 10.0 ** (2.0 * torch.rand(k, dtype=torch.float64, generator=source))
    covariance = (axes * variances) @ axes.T
    return LinearRecipe(0.5 * noise @ noise.T, curl - curl.T, 0.5 * (covariance + covariance.T))
