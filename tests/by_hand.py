"""Kernels of a constant-rate process a second way: scipy's matrix exponential, nothing of `psld.kernels`."""

from __future__ import annotations

import numpy as np
from scipy.linalg import expm

from psld.processes import Process


def matrices(process: Process) -> tuple[np.ndarray, np.ndarray]:
    """A and D."""
    return process.drift_matrix.numpy(), process.recipe.diffusion.numpy()


def kernel(process: Process, b: float) -> tuple[np.ndarray, np.ndarray]:
    """Φ and Σ given x₀ after ∫β = b: exp of [[A, 2D], [0, −Aᵀ]] holds both (Van Loan, 1978)."""
    a, d = matrices(process)
    k = len(a)
    block = expm(b * np.block([[a, 2 * d], [np.zeros((k, k)), -a.T]]))
    phi = block[:k, :k]
    return phi, block[:k, k:] @ phi.T + phi @ process.initial_covariance.numpy() @ phi.T
