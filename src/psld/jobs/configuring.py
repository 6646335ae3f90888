"""From images to a configuration that fits them: what is measured, what is chosen, and why.

    setup = psld.setup_for("photos")                  # or an ImageData of your own
    print(setup.text)                                 # an ordinary config.yaml, with its reasons
    psld.train(setup.model, setup.data, setup.loss, setup.settings, "runs/mine")

One denoiser D(y; σ) is trained, which every linear process can sample with. EDM's loss and preconditioning
(Karras et al., 2022, arXiv 2206.00364, table 1) are told the mean and the spread of the images.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from psld.data import HuggingFace, ImageData
from psld.data.decoding import FileImages
from psld.data.opening import training_images
from psld.losses import Objective
from psld.model import ScoreModel
from psld.runs import untrained_model
from psld.specs import SpecError, build, spec_of
from psld.training import TrainingSettings

__all__ = ["Measured", "Setup", "measured", "setup_for"]

MEASURED_IMAGES = 10_000
EDM_SPREAD, EDM_P_MEAN, P_STD = 0.5, -1.2, 1.2
"""EDM's σ_data, and the mean and standard deviation of log σ in training that go with it."""


@dataclass(frozen=True)
class Measured:
    """What of a data set decides how it is trained.

    Attributes:
        number: of items, mirror images counted.
        image_shape: (C, H, W).
        classes: how many; 0 without labels.
        mean: of all pixels of all images, in [−1, 1].
        spread: σ_data, the root mean square of the pixels about `mean`.
    """

    number: int
    image_shape: tuple[int, int, int]
    classes: int
    mean: float
    spread: float

    @property
    def p_mean(self) -> float:
        """Of log σ in training: EDM's, moved with the spread of the data."""
        return EDM_P_MEAN + math.log(self.spread / EDM_SPREAD)

    def __str__(self) -> str:
        channels, height, width = self.image_shape
        classes = f"{self.classes} classes" if self.classes else "no classes"
        return (
            f"{self.number:,} images of {channels}×{height}×{width}, {classes}; mean {self.mean:.3f}, "
            f"σ_data {self.spread:.3f}, P_mean {self.p_mean:.2f}"
        )


def measured(data: ImageData, images: int = MEASURED_IMAGES, seed: int = 0) -> Measured:
    """The shape, classes, mean and spread of a data set.

    Args:
        data: the images.
        images: that mean and spread are measured on, a seeded choice where there are more.
        seed: of the choice.

    Raises:
        ValueError: every pixel of every image has the same value.
    """
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))[:images]
    total = square = torch.zeros((), dtype=torch.float64)
    for indices in order.split(256):
        batch = data.batch(indices.tolist()).double()
        total, square = total + batch.sum(), square + batch.square().sum()
    values = len(order) * math.prod(data.image_shape)
    mean = float(total) / values
    spread = math.sqrt(max(float(square) / values - mean**2, 0.0))
    if spread < 1e-4:
        raise ValueError(f"all pixels of the images have the value {mean:.3f}: there is nothing to learn.")
    classes = 0 if data.labels is None else len(data.classes) or int(data.labels.max()) + 1
    return Measured(len(data), data.image_shape, classes, mean, spread)


@dataclass(frozen=True)
class Setup:
    """Everything that `psld.train` takes but the folder, and the configuration that says the same.

    Attributes:
        text: config.yaml: `psld train --config` takes it.
        measured: what was measured of the data.
        model: the network with initial weights, its process, and what it predicts.
        data: the images.
        loss: how the network is trained.
        settings: numbers of the run.
        chosen: what network it is and what is done to the images, in words.
        seed: of the initial weights; `psld.train` takes it again for the order and the noise.
    """

    text: str
    measured: Measured
    model: ScoreModel
    data: ImageData
    loss: Objective
    settings: TrainingSettings
    chosen: str
    seed: int

    @property
    def described(self) -> str:
        """What was measured, the size of the network, and what was chosen."""
        network = self.model.network
        parameters = sum(own.numel() for own in network.parameters()) if isinstance(network, nn.Module) else 0
        return f"{self.measured}.\n{self.chosen} {parameters / 1e6:.2f} M parameters."


def setup_for(
    images: str | Path | ImageData, image_size: int | None = None, device: str | None = None, seed: int = 0
) -> Setup:
    """What fits a set of images: measured, chosen, and ready for `psld.train`.

    Args:
        images: a folder, an .npz or .zip file, a data set of Hugging Face's (`psld.data.training_images`), or data.
        image_size: height and width that images of a folder are made; None for what they have, or for what the device
            can train where they differ. Not of data, which have theirs.
        device: "cpu" or "cuda", which decides the size of the network; None for what is there.
        seed: of the initial weights.

    Raises:
        ValueError: images that do not fit, or an unknown device.
    """
    device = _device(device)
    if isinstance(images, ImageData):
        if image_size is not None:
            raise ValueError(f"image_size={image_size} is for a folder: data have the size that they were made with.")
        data = images
    else:
        data = training_images(images, image_size, largest=LARGEST[device])
    found = measured(data)
    text = configuration(data, found, device, seed)
    chosen = yaml.safe_load(text)
    torch.manual_seed(seed)
    model, loss = untrained_model(chosen, data.image_shape, trust=False), build(chosen["loss"])
    return Setup(text, found, model, data, loss, TrainingSettings(**chosen["training"]), _said(text), seed)


# -- what is chosen ----------------------------------------------------------------------------------------------------

LARGEST = {"cpu": 32, "cuda": 64}
"""Height and width that images of a folder are made where they have several sizes and none is asked for."""


@dataclass(frozen=True)
class Size:
    """A network and a batch that a device trains in the time people wait.

    Attributes:
        resolution: of the features at the top level, at most; larger images are cut into patches.
        width: channels at the top level.
        blocks: a level.
        batch: images a step.
        steps: of the run.
        learning_rate: of Adam.
    """

    resolution: int
    width: int
    blocks: int
    batch: int
    steps: int
    learning_rate: float


SIZES = {
    "cpu": Size(resolution=16, width=48, blocks=1, batch=32, steps=20_000, learning_rate=1.5e-3),
    "cuda": Size(resolution=64, width=128, blocks=2, batch=128, steps=200_000, learning_rate=3e-4),
}


def configuration(data: ImageData, found: Measured, device: str, seed: int) -> str:
    """The YAML of a run on these data.

    Args:
        data: the images, which record how they were made.
        found: what `measured` says of them.
        device: "cpu" or "cuda".
        seed: of the run.

    Raises:
        ValueError: images whose sides no network of that size divides.
    """
    size = SIZES[device]
    channels, height, width = found.image_shape
    patch = _patch(height, width, size.resolution)
    levels = _levels(height // patch, width // patch)
    unet: dict[str, Any] = {
        "width": size.width,
        "multipliers": [1, 2, 2, 2][:levels],
        "blocks": size.blocks,
        "attention_resolutions": [] if levels == 1 else [min(height, width) // patch // 2 ** (levels - 1)],
    }
    if found.classes:
        unet["classes"] = found.classes
    network: dict[str, Any] = {"class_path": "psld.networks.UNet", "init_args": unet}
    if patch > 1:
        network = {"class_path": "psld.networks.Patched", "init_args": {"size": patch, "network": network}}
    mean, spread = round(found.mean, 3), round(found.spread, 3)
    precision = "bf16-mixed" if device == "cuda" or _bfloat16() else "32-true"
    training: dict[str, Any] = {
        "steps": size.steps,
        "batch_size": size.batch,
        "learning_rate": size.learning_rate,
        "warmup_steps": 200,
        "ema_half_life": min(500_000, size.steps * size.batch // 20),
        "precision": precision,
        "checkpoint_every": 1000,
    }
    if found.classes:
        training["label_dropout"] = 0.1
    parts = {
        "seed": seed,
        "process": {"class_path": "psld.PSLD", "init_args": {"gamma": 0.01}},
        "network": {
            "class_path": "psld.networks.Preconditioned",
            "init_args": {"mean_data": mean, "sigma_data": spread, "network": network},
        },
        "predicts": "denoiser",
        "data": _described(data),
        "loss": {
            "class_path": "psld.losses.Denoising",
            "init_args": {"sigma_data": spread, "P_mean": round(found.p_mean, 2), "P_std": P_STD},
        },
        "training": training,
    }
    places = "every pixel" if patch == 1 else f"patches of {patch}×{patch} pixels"
    reasons = [
        f"# {found}.",
        "# One denoiser D(y; σ), which every process can sample with: "
        f"a U-Net of {levels} levels on {places}, for {device}.",
    ]
    if isinstance(data, FileImages | HuggingFace) and data.framing.crop != "none":
        reasons.append(
            f"# The largest centred square of every picture is made {height}×{width}: --image_size changes it."
        )
    if found.classes:
        reasons.append("# A tenth of the labels is dropped, so that it can be sampled with a class and without.")
    return "\n".join(reasons) + "\n" + yaml.safe_dump(parts, sort_keys=False, allow_unicode=True)


def _said(text: str) -> str:
    """What the comments of a configuration say after the first, in one line."""
    return " ".join(line.removeprefix("# ") for line in text.splitlines()[1:] if line.startswith("# "))


def _described(data: ImageData) -> dict[str, Any] | None:
    """The data as a configuration names them; None for images in memory, which it cannot."""
    try:
        return spec_of(data).config()
    except SpecError:
        return None


def _device(device: str | None) -> str:
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device not in SIZES:
        raise ValueError(f"device must be 'cpu' or 'cuda': got {device!r}.")
    return device


def _patch(height: int, width: int, resolution: int) -> int:
    """The smallest power of two that brings the longer side to the resolution.

    Raises:
        ValueError: it does not divide the sides.
    """
    patch = 1
    while max(height, width) > resolution * patch:
        patch *= 2
    if height % patch or width % patch:
        fitting = "×".join(str(side // patch * patch) for side in (height, width))
        raise ValueError(
            f"images of {height}×{width} do not divide into the patches of {patch}×{patch} that this device needs: "
            f"make them {fitting} (--image_size for a folder)."
        )
    return patch


def _levels(height: int, width: int) -> int:
    """How often the features are halved, and one: down to 4 at least, while both sides are even."""
    levels = 1
    while levels < 4 and height % 2 == width % 2 == 0 and min(height, width) >= 12:
        height, width, levels = height // 2, width // 2, levels + 1
    return levels


def _bfloat16() -> bool:
    """Whether this processor multiplies in bfloat16; no, where torch is too old to say."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
