"""Exact models that see one sample at a time, for tests of what samplers make of a batch.

On some processors the last bit of a matrix product, and so of a mixture's denoiser, depends on the rows beside it.
"""

import torch

from psld.exact import GaussianMixture
from psld.model import ScoreModel
from psld.processes import Process


def model(data: GaussianMixture, process: Process) -> ScoreModel:
    def denoiser(y: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return torch.cat([data.denoiser(y[row : row + 1], sigma[row : row + 1]) for row in range(len(y))])

    return ScoreModel(denoiser, process, predicts="denoiser")
