"""Samples that diverged: not finite, or far outside what the process allows where sampling ends.

The statistic of an exact state at time s is y = x₀ + σ(s) ξ, so with data within c ± R

    |y − c| ≤ R + 10 σ(s)         in all but 10⁻²³ of all pixels

A sampler and a network are not exact. An exact step that holds x̂₀ keeps y between itself and x̂₀; one of second order
extrapolates x̂₀ by at most its own change, 2R, and arrives within 3R. A network that is not held within the range adds
an error of its own. Hence the limit 4R + 10 σ(s). What diverges grows from step to step and passes it by far; what is
merely noisy, or wrong within the range, does not, and is not counted.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from psld.processes import LinearProcess

__all__ = ["DivergedError", "DivergedWarning", "diverged", "listed", "refusal", "shown", "warn_of_diverged"]

RANGES = 4.0
"""How many times the half-width of the data a sample may be from their middle."""

DEVIATIONS = 10.0
"""How many standard deviations of the noise that is left it may be away besides."""

ADVICE = "take more steps, another sampler or grid, weaker guidance, or a larger noise of the measurement"

LISTED = 10
"""Seeds that a message names."""


class DivergedError(ValueError):
    """Samples or images are not finite, or far outside what the process allows."""


class DivergedWarning(RuntimeWarning):
    """Some samples of a call diverged; `Samples.diverged` says which."""


def diverged(
    process: LinearProcess,
    x: Float[Tensor, "B *data"],
    z: Float[Tensor, "B k *data"],
    end: float | Float[Tensor, ""],
    data_range: tuple[float, float] | None = None,
) -> Bool[Tensor, " B"]:
    """Which samples diverged, by their images and by the statistic of their last states.

    The state is looked at too, since x̂₀ that is held within the range is within it whatever the state is. An image
    that is a position, not x̂₀, has the noise of the position, √Σ₀₀(s).

    Args:
        process: that was reversed.
        x: images.
        z: last states.
        end: their time s, positive.
        data_range: of the data's values. Where it is not known the half-width R is σ(T): the prior can stand for data
            only that are small beside the noise at T.

    Returns:
        One value per sample, on the CPU.
    """
    if x.is_meta:  # no values to judge
        return torch.zeros(len(x), dtype=torch.bool)
    kernel = process.marginal(end)
    y, sigma = process.statistic(z, end)
    if data_range is None:
        middle, half = 0.0, float(process.noise_scale(process.T))
    else:
        middle, half = 0.5 * (data_range[0] + data_range[1]), 0.5 * (data_range[1] - data_range[0])

    def within(values: Tensor, noise: float) -> Tensor:
        """NaN is within nothing."""
        distance = (values.reshape(len(values), -1) - middle).abs().amax(1)
        return distance <= RANGES * half + DEVIATIONS * noise

    of_position = max(float(sigma), float(kernel.covariance[0, 0].sqrt()))
    return ~(within(y, float(sigma)) & within(x, of_position)).cpu()


def listed(seeds: Sequence[int]) -> str:
    """The first ten as words: seed 3, or seeds 3, 7, 9."""
    few = ", ".join(map(str, seeds[:LISTED]))
    return f"seed{'s' if len(seeds) > 1 else ''} {few}{' …' if len(seeds) > LISTED else ''}"


def warn_of_diverged(which: Bool[Tensor, " B"], seeds: Sequence[int]) -> None:
    """Warns who asked for the samples, with the count and the seeds, if there are any."""
    wrong = [seed for seed, bad in zip(seeds, which.tolist(), strict=True) if bad]
    if wrong:
        warnings.warn(
            f"{len(wrong)} of {len(seeds)} samples diverged ({listed(wrong)}; see Samples.diverged): {ADVICE}.",
            DivergedWarning,
            stacklevel=_level_of_caller(),
        )


def _level_of_caller() -> int:
    """For a warning of the function that calls this: the first line outside psld and torch is who asked."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in ("psld", "torch"):
        frame, level = frame.f_back, level + 1
    return level


def shown(x: Float[Tensor, "B *data"]) -> Float[Tensor, "B *data"]:
    """Images as they are written and judged, within [−1, 1]: NaN is the middle, infinity an end."""
    return torch.nan_to_num(x.float(), nan=0.0, posinf=1.0, neginf=-1.0).clamp(-1, 1)


def refusal(seeds: Sequence[int], kept: str) -> DivergedError:
    """The error for these seeds; `kept` says what became of them and of the others."""
    count = f"{len(seeds)} sample{'s' if len(seeds) > 1 else ''} diverged ({listed(seeds)})"
    return DivergedError(
        f"{count}: not finite, or far outside what the process allows. {kept}: {ADVICE}, or accept them with "
        "--allow_diverged (allow_diverged=True)."
    )
