"""From discrete pixel values to a density: noise within the bin of each value.

Values are L levels evenly spaced over [−1, 1], 2 / (L − 1) apart, each the centre of its bin. With v = x + w (u − ½),
u ∈ (0, 1) a pixel and w the width of a bin, Jensen's inequality bounds the probability of the discrete image:

    log P(x) ≥ E_{u ~ q(u|x)} [ log p(v) + n log w − log q(u | x) ]

q = 1 is uniform dequantisation (Theis, van den Oord & Bethge, 2016), a learned q is variational (Ho et al., Flow++,
2019). Derivation: docs/derivations/likelihood.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from psld.model import Model
from psld.noise import standard_normal
from psld.specs.arguments import checked, positive, seed_number, whole

__all__ = ["Dequantised", "Dequantiser", "LogitNormal", "Uniform", "fit", "on_levels"]

LOGISTIC_SCALE = 1.6  # of the normal law nearest the logistic, whose sigmoid is uniform
NARROWEST, WIDEST = -5.0, 2.0  # range of the logarithm of a logit's scale


class Dequantised(NamedTuple):
    """Continuous images (B, *data), and log q(u | x) − n log w, their log density given x, (B,)."""

    x: Tensor
    log_density: Tensor


WIDEST_NETWORK, MOST_IMAGES = 2**14, 2**20

Dequantiser = Callable[[Tensor, Tensor], Dequantised]
"""Called with images on the levels, (B, *data), and standard normal draws of the same shape."""


def width_of(levels: int) -> float:
    """w, of `levels` values over [−1, 1]. Raises ValueError for fewer than two."""
    return 2.0 / (whole("levels", levels, least=2, most=2**24) - 1)


def on_levels(x: Float[Tensor, "B *data"], levels: int, tolerance: float = 1e-3) -> bool:
    """Whether every value is one of the levels, to a share of the width of a bin."""
    position = (x.double() + 1.0) / width_of(levels)
    inside = (position > -0.5) & (position < levels - 0.5)
    return bool((inside & ((position - position.round()).abs() < tolerance)).all())


class Uniform:
    """u uniform on (0, 1): every value of the bin alike.

    Args:
        levels: L, how many values a pixel can have; 256 for 8-bit images.

    Raises:
        ValueError: fewer than two levels.
    """

    @checked
    def __init__(self, levels: int = 256):
        self.levels, self.width = levels, width_of(levels)

    def __call__(self, x: Float[Tensor, "B *data"], eps: Float[Tensor, "B *data"]) -> Dequantised:
        u = torch.special.ndtr(eps.double())
        log_density = torch.full((len(x),), -x[0].numel() * math.log(self.width), dtype=torch.float64, device=x.device)
        return Dequantised(x.double() + self.width * (u - 0.5), log_density)

    def __repr__(self) -> str:
        return f"Uniform(levels={self.levels})"


class LogitNormal(nn.Module):
    """u = sigmoid(μ(x) + s(x) ε): a learned law within the bin, its parameters from a small convolutional network.

    It begins as nearly uniform, the same everywhere; `fit` trains it.

    Args:
        channels: C of the images.
        levels: L, how many values a pixel can have.
        hidden: channels of the network.

    Raises:
        ValueError: fewer than two levels.
    """

    @checked
    def __init__(self, channels: int, levels: int = 256, hidden: int = 32):
        super().__init__()
        self.levels, self.width = levels, width_of(levels)
        whole("channels", channels, most=WIDEST_NETWORK)
        whole("hidden", hidden, most=WIDEST_NETWORK)
        self.network = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.SiLU(),
            nn.Conv2d(hidden, 2 * channels, 3, padding=1),
        )
        last = self.network[-1]
        nn.init.zeros_(last.weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(last.bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Float[Tensor, "B C H W"], eps: Float[Tensor, "B C H W"]) -> Dequantised:
        """Images within the bins of x, and their log density given x."""
        weight = next(self.parameters())
        mean, raw = self.network(x.to(weight)).double().chunk(2, dim=1)
        log_scale = (raw + math.log(LOGISTIC_SCALE)).clamp(NARROWEST, WIDEST)
        logit = mean + log_scale.exp() * eps.double()
        u = torch.sigmoid(logit)
        log_slope = nn.functional.logsigmoid(logit) + nn.functional.logsigmoid(-logit)
        log_normal = -0.5 * eps.double().square() - 0.5 * math.log(2.0 * math.pi)
        log_density = log_normal - log_scale - log_slope - math.log(self.width)
        return Dequantised(x.double() + self.width * (u - 0.5), log_density.flatten(1).sum(1))


@checked
def fit(
    dequantiser: LogitNormal,
    model: Model,
    images: Float[Tensor, "N C H W"],
    t: float,
    steps: int = 500,
    batch_size: int = 64,
    learning_rate: float = 3e-3,
    seed: int = 0,
    watch: Callable[[int], object] | None = None,
) -> LogitNormal:
    """Raises the bound in the parameters of q, the model held fixed.

    The gradient of log p_t along v is the score, so no ODE is solved: a step costs one evaluation of the model at time
    t, where the likelihood starts.

    Args:
        dequantiser: trained in place, and returned.
        model: gives the score at time t.
        images: on the levels; not those that are evaluated.
        t: the first time of the likelihood.
        steps: of Adam.
        batch_size: images a step.
        learning_rate: at first; it falls to zero along a cosine.
        seed: of batches and noise.
        watch: called with the number of each step.

    Raises:
        RuntimeError: the bound is no longer finite.
    """
    process = model.process
    if not 0.0 < t <= process.T:
        raise ValueError(f"t must lie in (0, {process.T:g}]: got {t}.")
    whole("steps", steps)
    whole("batch_size", batch_size, most=MOST_IMAGES)
    positive("learning_rate", learning_rate)
    generator = torch.Generator().manual_seed(seed_number("seed", seed))
    kernel = process.marginal(t)
    model = model.tabulate(process.times(torch.tensor([t], dtype=torch.float64)))
    optimiser = torch.optim.Adam(dequantiser.parameters(), learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    device = next(dequantiser.parameters()).device
    for step in range(steps):
        chosen = torch.randint(len(images), (batch_size,), generator=generator)
        x = images[chosen].to(device)
        eps = standard_normal(tuple(x.shape), generator, torch.float64).to(device)
        noise = standard_normal((len(x), process.k, *x.shape[1:]), generator, torch.float64).to(device)
        with torch.enable_grad():
            dequantised = dequantiser(x, eps)
            z = kernel.sample(process.lift(dequantised.x), noise)
            with torch.no_grad():
                score = model(z, t).score
            pull = (score * z).flatten(1).sum(1)  # its gradient is that of log p_t(z)
            loss = (dequantised.log_density - pull).mean() / x[0].numel()
        if not loss.isfinite():
            raise RuntimeError(f"the dequantiser's bound is no longer finite at step {step}: lower the learning rate.")
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if watch is not None:
            watch(step)
    return dequantiser.eval().requires_grad_(False)
