"""Published denoisers in the layout of `diffusers`, as D(y; σ): they drive VP, CLD, PSLD or any other linear process.

A DDPM network saw x_τ = √ᾱ x₀ + √(1 − ᾱ) ε at step τ, which is y = x₀ + σξ times √ᾱ, with

    σ_τ = √((1 − ᾱ_τ) / ᾱ_τ),      y = x_τ / √ᾱ_τ = x_τ √(1 + σ²)

so it is asked at y/√(1 + σ²) and at the step that has this σ, and its answer is turned into x̂₀. Networks of EDM and of
the variance-exploding SDE are functions of (y, σ) already. `diffusers` itself is needed for loading alone.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from torch import Tensor, nn

from psld.files import read_json
from psld.kernels import per_sample
from psld.model import ScoreModel
from psld.networks.preconditioning import Preconditioned
from psld.processes import LinearProcess
from psld.specs import Specified, bounded

__all__ = [
    "DiscreteDenoiser",
    "Output",
    "VarianceExplodingDenoiser",
    "denoiser_of",
    "load_denoiser",
    "load_score_model",
]

Output = Literal["epsilon", "v_prediction", "sample"]
"""What a network returns, in the words of diffusers: ε, v = √ᾱ ε − √(1 − ᾱ) x₀, or x₀."""

SNAP = 1e-3


class DiscreteDenoiser(Specified, nn.Module):
    """D(y; σ) of a network that was trained at the steps of a DDPM.

    A σ below σ_0 or above that of the last step is asked at that step, with its own y/√(1 + σ²).

    Args:
        network: called as network(x, step, **condition) with x (B, C, H, W) and step (B,); returns a tensor, or an
            object with `.sample`, (B, C, H, W); of 2C channels (a learned variance) the first C are used.
        alphas_cumprod: ᾱ_τ for τ = 0, 1, …, decreasing, in (0, 1); steps with ᾱ = 0 at the end are left out.
        predicts: "epsilon", "v_prediction" or "sample".
        steps: "interpolated", fractional and linear in log σ, or "nearest", the integer whose log σ is nearest.
            Within 1/1000 of an integer both are that integer.

    Raises:
        ValueError: ᾱ is not as above, or an unknown word.
    """

    def __init__(
        self,
        network: nn.Module,
        alphas_cumprod: Float[Tensor, " n"],
        predicts: Output = "epsilon",
        steps: Literal["interpolated", "nearest"] = "interpolated",
    ):
        super().__init__()
        if predicts not in ("epsilon", "v_prediction", "sample"):
            raise ValueError(f"predicts must be 'epsilon', 'v_prediction' or 'sample': got {predicts!r}.")
        if steps not in ("interpolated", "nearest"):
            raise ValueError(f"steps must be 'interpolated' or 'nearest': got {steps!r}.")
        alphas = torch.as_tensor(alphas_cumprod, dtype=torch.float64).detach().cpu()
        alphas = alphas[alphas > 0]
        if alphas.ndim != 1 or len(alphas) < 2 or not ((alphas < 1).all() and (alphas.diff() < 0).all()):
            raise ValueError("alphas_cumprod must be two or more decreasing numbers in (0, 1), one a training step.")
        self.network, self.predicts, self.steps = network, predicts, steps
        self.sigmas = ((1 - alphas) / alphas).sqrt()

    def step_of(self, sigma: Float[Tensor, " B"]) -> Tensor:
        """τ with σ_τ = σ: a float, or an integer if `steps` is "nearest"; (B,)."""
        known = self.sigmas.log().to(sigma)
        wanted = sigma.log().clamp(known[0], known[-1])
        right = torch.searchsorted(known, wanted).clamp(1, len(known) - 1)
        share = (wanted - known[right - 1]) / (known[right] - known[right - 1])
        step = (right - 1) + share
        whole = step.round()
        if self.steps == "nearest":
            return whole.long()
        return torch.where((step - whole).abs() < SNAP, whole, step)

    def forward(self, y: Float[Tensor, "B C H W"], sigma: Float[Tensor, " B"], **condition: Any) -> Tensor:
        """D(y; σ), (B, C, H, W)."""
        level = per_sample(sigma, y)
        signal = (1 + level.square()).rsqrt()  # √ᾱ
        output = _answer(self.network, signal * y, self.step_of(sigma), condition)
        if self.predicts == "epsilon":
            return y - level * output
        if self.predicts == "v_prediction":
            return signal.square() * y - signal * level * output  # √ᾱ x − √(1 − ᾱ) v
        return output


class VarianceExplodingDenoiser(Specified, nn.Module):
    """D(y; σ) = y + σ² score(y, σ) of a score network of the variance-exploding SDE (Song et al., 2021).

    Args:
        network: the score, called as network(y, σ, **condition).
        sigma_min, sigma_max: it is told a σ within these.
    """

    def __init__(self, network: nn.Module, sigma_min: float = 0.01, sigma_max: float = 1348.0):
        super().__init__()
        self.network, self.sigma_min, self.sigma_max = network, sigma_min, sigma_max

    def forward(self, y: Float[Tensor, "B C H W"], sigma: Float[Tensor, " B"], **condition: Any) -> Tensor:
        """D(y; σ), (B, C, H, W)."""
        score = _answer(self.network, y, sigma.clamp(self.sigma_min, self.sigma_max), condition)
        return y + per_sample(sigma.square(), y) * score


class _Answering(nn.Module):
    """A network of diffusers as `Preconditioned` calls one: states of one variable; ± the output."""

    def __init__(self, network: nn.Module, sign: float):
        super().__init__()
        self.network, self.sign = network, sign

    def forward(self, z: Float[Tensor, "B 1 C H W"], told: Float[Tensor, " B"], **condition: Any) -> Tensor:
        return self.sign * _answer(self.network, z[:, 0], told, condition).unsqueeze(1)


def _answer(network: nn.Module, x: Tensor, step: Tensor, condition: Mapping[str, Any]) -> Tensor:
    output = network(x, step, **condition)
    output = output if isinstance(output, Tensor) else output.sample
    return output[:, : x.shape[1]] if output.shape[1] == 2 * x.shape[1] else output


def denoiser_of(
    network: nn.Module, scheduler: Any, steps: Literal["interpolated", "nearest"] = "interpolated"
) -> nn.Module:
    """D(y; σ) of a network and the scheduler it was published with.

    Args:
        network: e.g. a `diffusers.UNet2DModel`.
        scheduler: a scheduler of diffusers, or the content of its scheduler_config.json. Those of EDM and of the
            variance-exploding SDE, and all that have a `beta_schedule` (DDPM, DDIM, PNDM, DPM-Solver, Euler …).
        steps: as for `DiscreteDenoiser`.

    Raises:
        ValueError: a scheduler of another kind, e.g. of flow matching.
    """
    if isinstance(scheduler, Mapping):
        config, kind = scheduler, str(scheduler.get("_class_name", ""))
    else:
        config, kind = scheduler.config, type(scheduler).__name__
    predicts = config.get("prediction_type", "epsilon")
    if kind.startswith("EDM"):
        sign = {"epsilon": 1.0, "v_prediction": -1.0}.get(predicts)
        if sign is None:
            raise ValueError(f"{kind} with prediction_type {predicts!r} is not known: epsilon or v_prediction.")
        low, high = config.get("sigma_min", 0.002), config.get("sigma_max", 80.0)
        return Preconditioned(_Answering(network, sign), config.get("sigma_data", 0.5), low, high)
    if kind.startswith("ScoreSdeVe"):
        return VarianceExplodingDenoiser(network, config.get("sigma_min", 0.01), config.get("sigma_max", 1348.0))
    if "beta_schedule" not in config:
        raise ValueError(
            f"the scheduler {kind or 'without a _class_name'} has no beta_schedule and is none of EDM or the "
            "variance-exploding SDE: its network is not a denoiser of x₀ + σξ that is known here."
        )
    known = {name: value for name, value in config.items() if name in _ALPHAS}
    alphas = _class_of_diffusers("DDPMScheduler").from_config(known).alphas_cumprod
    return DiscreteDenoiser(network, alphas, predicts, steps)


_ALPHAS = (
    "num_train_timesteps",
    "beta_start",
    "beta_end",
    "beta_schedule",
    "trained_betas",
    "rescale_betas_zero_snr",
)
"""What ᾱ depends on."""


def load_denoiser(folder: str | Path, steps: Literal["interpolated", "nearest"] = "interpolated") -> nn.Module:
    """D(y; σ) of an unconditional or class-conditional pipeline that was saved to a folder; nothing is downloaded.

    Args:
        folder: with unet/ (a `UNet2DModel`, weights in safetensors) and scheduler/scheduler_config.json.
        steps: as for `DiscreteDenoiser`.

    Returns:
        A module called as D(y, σ, class_labels=…), in evaluation mode, without gradients.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: weights in another format than safetensors, another kind of network or scheduler, a configuration
            that is broken or describes something far larger than the weights.
        ModuleNotFoundError: diffusers is not installed.
    """
    folder = Path(folder)
    unet, scheduler = folder / "unet", folder / "scheduler" / "scheduler_config.json"
    for file in (unet / "config.json", scheduler):
        if not file.is_file():
            raise FileNotFoundError(f"no {file}: a diffusers pipeline has unet/ and scheduler/ (save_pretrained).")
    described, about = read_json(unet / "config.json"), read_json(scheduler)
    kind = described.get("_class_name")
    if kind != "UNet2DModel":
        raise ValueError(f"{unet} holds a {kind}: only a UNet2DModel is a denoiser of images by itself.")
    if "quantization_config" in described:
        raise ValueError(f"{unet} is quantised, which needs code of other packages: convert it with save_pretrained.")
    if not any(unet.glob("*.safetensors")):
        raise ValueError(
            f"{unet} has no weights in safetensors. Other formats can run code when they are read and are refused: "
            "convert them with save_pretrained where you trust them."
        )
    kind = _class_of_diffusers("UNet2DModel")
    size = sum(file.stat().st_size for file in unet.glob("*.safetensors"))
    refusal = (
        f"{unet / 'config.json'} or {scheduler} describes something far larger than the weights ({size / 1e6:.1f} MB), "
        "so it was not made. Copy the folder again."
    )
    with bounded(ROOM + 8 * size, CALLS + 2 * size // 64, refusal):
        try:
            network = kind.from_pretrained(unet, use_safetensors=True, local_files_only=True)
            network.eval().requires_grad_(False)
            return denoiser_of(network, about, steps).eval()
        except UNREADABLE as error:
            said = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise ValueError(f"{folder} cannot be read by diffusers: {said[:300]}") from error


ROOM, CALLS = 64 * 1024**2, 100_000
"""Bytes and calls that any network may be made with, beside what its weights account for."""

UNREADABLE = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, SafetensorError, TypeError)
"""What diffusers raises about configurations and weights that it does not look at itself."""


def _class_of_diffusers(name: str) -> Any:
    try:
        return getattr(importlib.import_module("diffusers"), name)
    except ModuleNotFoundError as error:
        if error.name != "diffusers":
            raise
        raise ModuleNotFoundError(
            "published denoisers are read by diffusers, which is not installed: pip install diffusers", name=error.name
        ) from error


def load_score_model(folder: str | Path, process: LinearProcess) -> ScoreModel:
    """The score of any linear process, from a published denoiser; arguments and errors of `load_denoiser`."""
    return ScoreModel(load_denoiser(folder), process, predicts="denoiser")
