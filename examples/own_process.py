"""A forward process of one's own: checked, and sampled beside PSLD, with the exact score of the digits.

python examples/own_process.py
"""

from __future__ import annotations

import torch

from psld import PSLD, Exponential, LinearRecipe, Process
from psld.data import Digits
from psld.evaluation.metrics.energy import energy_distance
from psld.exact import Empirical

SHAPE = (1, 8, 8)

# Position, momentum and a third variable that only momentum talks to; noise enters in the first and the last.
mine = Process(
    LinearRecipe(
        diffusion=[[0.01, 0, 0], [0, 0, 0], [0, 0, 2.0]],
        curl=[[0, -1, 0], [1, 0, -1.5], [0, 1.5, 0]],
        covariance=[[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    ),
    schedule=8.0,
    auxiliary_covariance=0.04,
)
print(mine.check())

images = Digits("train").images.double()
held_out = Digits("heldout").images.double()
print(f"\nenergy distance to held-out digits; training digits: {energy_distance(images[:360], held_out):.4f}")
for process in (PSLD(gamma=0.01), mine):
    model = Empirical(images, std=0.1).model(process)
    samples = Exponential(order=2).sample(model, 360, shape=SHAPE)
    assert torch.isfinite(samples.x).all()
    print(f"{energy_distance(samples.x, held_out):.4f}  {process!r}")
