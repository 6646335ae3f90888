"""Training losses: one number a sample, unreduced.

The network sees z_t = Φ(t) z₀ + L(t) ε and is asked for ε (or what the model predicts). HSM conditions on x₀ and
integrates the auxiliary variables out (Dockhorn et al., 2022, §3.2), DSM conditions on all of z₀ (Vincent, 2011).
`Denoising` asks for x₀ at noise levels of its own choice, weighted as in EDM (Karras et al., 2022).
`ConditionalScoreMatching` needs no Gaussian kernel: it learns the score of any forward process.

A weighting is a metric M(t) for the error e = ε̂ − ε: the loss is eᵀ M e, averaged over data dimensions. A model of x₀
has e = −w (x̂₀ − x₀) with w = L⁻¹Φ₀, so its loss is wᵀMw (x̂₀ − x₀)², the same number; one of v has
x̂₀ − x₀ = −s (v̂ − v). Derivation: docs/derivations/weighting.md.

`CrossEntropy` trains what guides a score model: a classifier of z_t (Dhariwal & Nichol, 2021).
"""

from psld.losses.classification import CrossEntropy
from psld.losses.denoising import Denoising
from psld.losses.objective import Objective
from psld.losses.score_matching import DSM, HSM, ConditionalScoreMatching, ScoreMatching
from psld.losses.weightings import Likelihood, MinSNR, UniformNoise, Weighting

__all__ = [
    "DSM",
    "HSM",
    "ConditionalScoreMatching",
    "CrossEntropy",
    "Denoising",
    "Likelihood",
    "MinSNR",
    "Objective",
    "ScoreMatching",
    "UniformNoise",
    "Weighting",
]
