"""Bits per dimension of a set of images under a score model: their mean, and its standard error over the images."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from psld.likelihood.bounds import Start, bits_per_dimension, bound
from psld.likelihood.dequantisation import Dequantiser, LogitNormal, Uniform, fit, on_levels
from psld.likelihood.flow import ProbabilityFlow
from psld.likelihood.traces import ExactTrace, Hutchinson
from psld.model import Model
from psld.specs.arguments import checked_fields, positive, seed_number, whole

__all__ = ["ImageBits", "LikelihoodSettings", "chosen_dequantiser", "image_bits", "summary"]


@dataclass(frozen=True)
class LikelihoodSettings:
    """How bits are computed.

    Attributes:
        draws: of dequantisation, auxiliary variables and perturbation, of each image.
        probes: for the trace, of each image; 0 for the exact trace.
        probe_law: of the probes.
        rtol: tolerance of the ODE, absolute and relative.
        t_min: time at which the ODE starts, in (0, T).
        start: from the data perturbed to t_min, or from the data taken for a state there.
        seed: of the first image; the others follow.
        batch_size: images at a time.

    Raises:
        ValueError: a number below its smallest.
    """

    draws: int = 1
    probes: int = 1
    probe_law: Literal["rademacher", "gaussian"] = "rademacher"
    rtol: float = 1e-4
    t_min: float = 1e-5
    start: Start = "perturbed"
    seed: int = 0
    batch_size: int = 64

    def __post_init__(self):
        checked_fields(self)
        for name, least in {"draws": 1, "probes": 0, "batch_size": 1}.items():
            whole(name, getattr(self, name), least)
        positive("rtol", self.rtol)
        positive("t_min", self.t_min)
        seed_number("seed", self.seed)


@dataclass(frozen=True)
class ImageBits:
    """Bits per dimension of each image.

    Attributes:
        bound: an upper bound, mean over draws.
        importance: the importance-weighted bound, which more draws make tighter.
        nfe: mean number of network evaluations of one draw of one image.
    """

    bound: Float[Tensor, " n"]
    importance: Float[Tensor, " n"]
    nfe: float

    def result(self, draws: int) -> dict[str, Any]:
        """As JSON: means with standard errors over images, the second bound where there are several draws."""
        return {
            "bits_per_dimension": _mean_and_error(self.bound),
            "importance_weighted": _mean_and_error(self.importance) if draws > 1 else None,
            "nfe": self.nfe,
            "bits_of_each_image": self.bound.tolist(),
        }


def _mean_and_error(bits: Float[Tensor, " n"]) -> dict[str, float | None]:
    """No error of a single one."""
    error = float(bits.std()) / math.sqrt(len(bits)) if len(bits) > 1 else None
    return {"mean": float(bits.mean()), "standard_error": error}


def image_bits(
    model: Model,
    images: Float[Tensor, "n *data"],
    settings: LikelihoodSettings,
    dequantiser: Dequantiser | None = None,
    device: str = "cpu",
) -> ImageBits:
    """Bits per dimension of images, each of which depends on its own seed and not on the batch size.

    Args:
        model: whose probability flow is followed.
        images: in [−1, 1].
        settings: how.
        dequantiser: None for the density of the values as they are.
        device: of the model.

    Raises:
        ValueError: t_min is not between 0 and the horizon of the process.
    """
    from tqdm import tqdm

    if not 0.0 < settings.t_min < model.process.T:
        raise ValueError(f"--t_min must lie between 0 and {model.process.T:g}: got {settings.t_min}.")
    trace = Hutchinson(settings.probes, settings.probe_law) if settings.probes else ExactTrace()
    flow = ProbabilityFlow(model, trace, settings.rtol, settings.rtol)
    size, pixels = settings.batch_size, math.prod(images.shape[1:])
    bounds, weighted, calls = [], [], []
    with tqdm(total=len(images), unit="img", disable=None, desc="likelihood") as bar:
        for first in range(0, len(images), size):
            x = images[first : first + size].to(device)
            seeds = range(settings.seed + first, settings.seed + first + len(x))
            found = bound(flow, x, settings.t_min, seeds, settings.draws, dequantiser, settings.start)
            bounds.append(bits_per_dimension(found.evidence, pixels).cpu())
            weighted.append(bits_per_dimension(found.importance, pixels).cpu())
            calls.append(found.nfe)
            bar.update(len(x))
    nfe = float(torch.cat(calls).double().mean()) / settings.draws
    return ImageBits(torch.cat(bounds), torch.cat(weighted), nfe)


def chosen_dequantiser(
    kind: Literal["uniform", "variational", "none"],
    levels: int,
    model: Model,
    settings: LikelihoodSettings,
    images: Float[Tensor, "n *data"],
    fit_on: Float[Tensor, "m *data"] | None = None,
    steps: int = 500,
    device: str = "cpu",
) -> Dequantiser | None:
    """Noise within a level; a variational one is trained first, on other images than those that are evaluated.

    Args:
        kind: of the noise; "none" takes the values as they are.
        levels: values that a pixel can have.
        model: that a variational one is trained for.
        settings: t_min and seed of the training.
        images: to be evaluated, which must be on the levels.
        fit_on: for "variational" only.
        steps: of its training.
        device: of the model.

    Raises:
        ValueError: a pixel is between levels, or `fit_on` is missing, or given for another kind.
    """
    from tqdm import tqdm

    for on in (images, fit_on):
        if kind != "none" and on is not None and not on_levels(on, levels):
            raise ValueError(
                f"the images are not on {levels} levels over [−1, 1], which dequantisation needs: give --levels, or "
                "--dequantise none for the density of the values as they are."
            )
    if kind != "variational":
        if fit_on is not None:
            raise ValueError(f"--fit_on is for --dequantise variational: got {kind}.")
        return Uniform(levels) if kind == "uniform" else None
    if fit_on is None:
        raise ValueError("--dequantise variational is trained first: give --fit_on, such as the training split.")
    torch.manual_seed(settings.seed)
    dequantiser = LogitNormal(images.shape[1], levels).to(device)
    with tqdm(total=steps, unit="step", disable=None, desc="dequantiser") as bar:
        return fit(dequantiser, model, fit_on, settings.t_min, steps, seed=settings.seed, watch=lambda _: bar.update())


def summary(result: dict[str, Any]) -> str:
    """The numbers of a result with its settings, each with how it was measured."""

    def number(part: dict[str, float | None]) -> str:
        error = part["standard_error"]
        return f"{part['mean']:.4f}" + ("" if error is None else f" ± {error:.4f}")

    chosen = result["settings"]
    what = (
        "of the density, pixels taken as continuous"
        if chosen["dequantise"] == "none"
        else f"upper bound, {chosen['dequantise']} dequantisation of {chosen['levels']} levels"
    )
    trace = f"{chosen['probes']} {chosen['probe_law']} probes" if chosen["probes"] else "exact trace"
    lines = [
        f"{number(result['bits_per_dimension'])} bits/dim ({what}; mean and standard error over {chosen['num']} images)"
    ]
    if result["importance_weighted"]:
        lines.append(f"{number(result['importance_weighted'])} bits/dim (importance-weighted, {chosen['draws']} draws)")
    lines.append(
        f"{chosen['process']}, {chosen['start']} start at t = {chosen['t_min']:g}, {trace}, rtol {chosen['rtol']:g}, "
        f"{result['nfe']:.4g} network evaluations a draw."
    )
    return "\n".join(lines)
