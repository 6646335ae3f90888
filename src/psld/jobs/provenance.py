"""What samples depend on, by content: so that a folder never holds samples of two models or two samplers."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from psld.model import Model, ModelWrapper, ScoreModel
from psld.samplers import Sampler
from psld.samplers.grids import Grid
from psld.specs import SpecError, describe, spec_of
from psld.specs.spec import class_path

__all__ = ["described_model", "provenance", "tensor_sha256", "weights_sha256"]


def provenance(model: Model, sampler: Sampler, grid: Grid, seed: int) -> dict[str, Any]:
    """What samples depend on, as JSON holds it; not their number, the devices, or how they are written.

    Args:
        model: a `ScoreModel`, or one with wrappers around it (guidance, clamping), which are described as well.
        sampler: that takes the steps.
        grid: its times.
        seed: of the first sample.

    Raises:
        SpecError: a part does not record how it was made, or a wrapper holds a function.
    """
    return {
        **described_model(model),
        "sampler": sampler.spec.config(),
        "times": grid.times.tolist(),
        "final": grid.final,
        "seed": seed,
    }


def described_model(model: Model) -> dict[str, Any]:
    """A model by the content of its weights, its process, and what is wrapped around it, the outermost first.

    Raises:
        SpecError: as `provenance`.
    """
    wrappers = []
    while isinstance(model, ModelWrapper):
        wrappers.append(_described_wrapper(model))
        model = model.model
    return {**_described_inside(model), "wrappers": wrappers}


def weights_sha256(network: nn.Module) -> str:
    """A hash of parameters and buffers as they are in memory, in their order: 64 hexadecimal digits.

    Names are left out, so compiling a network or running it in 16 bits (`psld.networks.Autocast`) keeps the hash.
    """
    return tensor_sha256(*network.state_dict().values())


def tensor_sha256(*tensors: Tensor) -> str:
    """A hash of values with their types and shapes."""
    digest = hashlib.sha256()
    for tensor in tensors:
        content = tensor.detach().cpu().contiguous()
        digest.update(str((content.dtype, tuple(content.shape))).encode())
        digest.update(content.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _described_inside(model: Model) -> dict[str, Any]:
    spectrum = {} if model.spectrum is None else {"spectrum": model.spectrum.digest}  # where sampling may begin
    if not isinstance(model, ScoreModel):
        return {"model": spec_of(model).config(), **spectrum}
    network = model.network
    known = weights_sha256(network) if isinstance(network, nn.Module) else spec_of(network).config()
    return {
        "weights": known,
        "process": model.process.spec.config(),
        "predicts": model.predicts,
        "matching": model.matching,
        "jitter": model.jitter,
        **spectrum,
    }


def _described_wrapper(wrapper: ModelWrapper) -> dict[str, Any]:
    """Its class and what it holds beside the model."""
    inherited = {"model", "process", "data_shape", "classes", "spectrum"}
    own = {name: value for name, value in vars(wrapper).items() if name not in inherited}
    try:
        held = {name: _described_value(value) for name, value in own.items()}
    except SpecError as error:
        raise SpecError(f"{type(wrapper).__name__} holds what cannot be compared with a later one: {error}") from error
    return {"class_path": class_path(type(wrapper)), **held}


def _described_value(value: Any) -> Any:
    return weights_sha256(value) if isinstance(value, nn.Module) else _plain(describe(value))


def _plain(value: Any) -> Any:
    return value.config() if hasattr(value, "config") else value
