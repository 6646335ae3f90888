"""The mean and the principal components of data: what a sampler should know about images before it starts.

    spectrum = Spectrum.measure(data)              # seconds, whatever the size of the data
    spectrum.save("runs/mine")                     # spectrum.safetensors, which psld.load reads
    model.spectrum = spectrum                      # or by hand

A Gaussian with that mean and covariance says where in noise scale images are decided, so that time grids can be derived
from it (`psld.samplers.fitting`), and it is what y = x₀ + σξ looks like at large σ, so that sampling may start there
(`psld.samplers.Projected`). Derivation: docs/derivations/grids.md.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol, runtime_checkable

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor

from psld.files import UnreadableFileError, atomic_file

__all__ = ["SPECTRUM", "Items", "Spectrum"]

SPECTRUM = "spectrum.safetensors"
"""The file, in the folder of a run or of weights."""

VALUES = 2**26
"""Values of images that are held at once, at most: 256 MiB."""

IMAGES = 4096
"""Images that are read, at most."""

OVERSAMPLED, ITERATIONS = 16, 6
"""Of the subspace iteration: directions beside those that are wanted, and how often it goes round."""


@runtime_checkable
class Items(Protocol):
    """A finite set of images: any `psld.data.ImageData`, a tensor (N, *data), a list of tensors."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


class Spectrum:
    """A Gaussian N(mean, C) with C = Σᵢ λᵢ uᵢuᵢᵀ + ρ (I − Σᵢ uᵢuᵢᵀ): leading components, and one variance for the rest.

    Args:
        mean: of the data, (*data).
        components: uᵢ, orthonormal, (r, *data), r ≥ 1.
        variances: λᵢ > 0, decreasing, (r,).
        remainder: ρ ≥ 0, the mean variance in the other directions.

    Raises:
        ValueError: shapes that do not fit each other, values that are not finite, or variances that do not decrease.
    """

    def __init__(
        self,
        mean: Float[Tensor, "*data"],
        components: Float[Tensor, "r *data"],
        variances: Float[Tensor, " r"],
        remainder: float = 0.0,
    ):
        if components.shape[1:] != mean.shape or variances.shape != components.shape[:1] or len(variances) < 1:
            raise ValueError(
                f"mean (*data), components (r, *data) and variances (r,) must fit: got {tuple(mean.shape)}, "
                f"{tuple(components.shape)}, {tuple(variances.shape)}."
            )
        self.mean = mean.detach().to("cpu", torch.float32)
        self.components = components.detach().to("cpu", torch.float32)
        self.variances = variances.detach().to("cpu", torch.float64)
        self.remainder = float(remainder)
        finite = all(bool(values.isfinite().all()) for values in (self.mean, self.components, self.variances))
        if not (finite and math.isfinite(self.remainder) and self.remainder >= 0.0):
            raise ValueError("a spectrum's values must be finite, and the remainder ≥ 0.")
        if not (self.variances[-1] > 0 and (self.variances.diff() <= 0).all()):
            raise ValueError("variances must be positive and decreasing: largest first.")

    @classmethod
    def measure(cls, data: Items, rank: int = 64, seed: int = 0) -> Spectrum:
        """Mean and leading components of data, from a seeded choice of at most 4,096 images.

        Fewer are read where they are large (2²⁶ values at once, and at least `rank` + 1 images), so it takes seconds
        for any data. Components are found by subspace iteration; they are those of the images that were read.

        Args:
            data: images of one shape, at least two that differ.
            rank: components that are kept, at most.
            seed: of the choice of images.

        Raises:
            ValueError: fewer than two images, images that are all the same, or a rank below 1.
        """
        if rank < 1:
            raise ValueError(f"rank must be at least 1: got {rank}.")
        if len(data) < 2:
            raise ValueError(f"a spectrum needs at least two images: got {len(data)}.")
        generator = torch.Generator().manual_seed(seed)
        size = data[0].numel()
        count = min(len(data), IMAGES, max(VALUES // size, rank + 1))
        chosen = torch.randperm(len(data), generator=generator)[:count].sort().values.tolist()
        images = _read(data, chosen)
        shape, flat = images.shape[1:], images.flatten(1)
        mean = flat.mean(0)
        flat = flat - mean
        total = float(flat.square().sum(dtype=torch.float64)) / count
        if not total > 0:
            raise ValueError("all images are the same, and a spectrum needs at least two that differ.")
        variances, components = _leading(flat, min(rank, count - 1, size), generator)
        kept = variances > 1e-8 * variances[0]
        variances, components = variances[kept], components[kept]
        others = size - len(variances)
        remainder = max(total - float(variances.sum()), 0.0) / others if others else 0.0
        return cls(mean.reshape(shape), components.reshape(-1, *shape), variances, remainder)

    @property
    def data_shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.mean.shape)

    @property
    def scale(self) -> float:
        """The leading standard deviation, √λ₁."""
        return math.sqrt(float(self.variances[0]))

    @property
    def pixel_scale(self) -> float:
        """Standard deviation of one value, root mean square over all of them."""
        total = float(self.variances.sum()) + self.remainder * (self.mean.numel() - len(self.variances))
        return math.sqrt(total / self.mean.numel())

    @cached_property
    def mean_components(self) -> Float[Tensor, " r"]:
        """The mean in each component, float64."""
        return self.components.flatten(1).double() @ self.mean.flatten().double()

    def noisy(self, noise: Float[Tensor, "B *data"], sigma: float) -> Float[Tensor, "B *data"]:
        """y of the law N(mean, C + σ²), from standard normal draws: where the flow of the Gaussian carries them.

        Args:
            noise: standard normal, on any device and in any floating type; y is made there.
            sigma: σ ≥ 0.
        """
        rest = math.sqrt(self.remainder + sigma**2)
        mean, components = self.mean.to(noise).flatten(), self.components.to(noise).flatten(1)
        more = ((self.variances + sigma**2).sqrt() - rest).to(noise)
        flat = noise.flatten(1)
        return (mean + rest * flat + (flat @ components.T * more) @ components).reshape(noise.shape)

    def coordinates(self, images: Float[Tensor, "n *data"]) -> Float[Tensor, "n r"]:
        """Of images in the components, about the mean; float64."""
        return (images.flatten(1).double() - self.mean.flatten()) @ self.components.flatten(1).double().T

    @cached_property
    def digest(self) -> str:
        """SHA-256 of all values."""
        known = hashlib.sha256(str((self.data_shape, len(self.variances), self.remainder)).encode())
        for values in (self.mean, self.components, self.variances):
            known.update(values.contiguous().numpy().tobytes())
        return known.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spectrum) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return (
            f"Spectrum(of {'×'.join(map(str, self.data_shape))}, {len(self.variances)} components, "
            f"leading standard deviation {self.scale:.3g})"
        )

    # -- files -----------------------------------------------------------------------------------------------------

    def to_bytes(self) -> bytes:
        """The content of spectrum.safetensors."""
        tensors = {
            "mean": self.mean.contiguous(),
            "components": self.components.contiguous(),
            "variances": self.variances.contiguous(),
            "remainder": torch.tensor([self.remainder], dtype=torch.float64),
        }
        return safetensors.torch.save(tensors)

    def save(self, folder: str | Path) -> Path:
        """Writes spectrum.safetensors into a folder, in one piece; returns the file."""
        path = Path(folder) / SPECTRUM
        with atomic_file(path) as file:
            file.write(self.to_bytes())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Spectrum:
        """Reads it, from the file or its folder.

        Raises:
            FileNotFoundError: there is none.
            UnreadableFileError: the file holds something else.
        """
        path = Path(path)
        path = path / SPECTRUM if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"there is no file {path}.")
        try:
            tensors = safetensors.torch.load_file(path)
            found = {name: tensors[name] for name in ("mean", "components", "variances", "remainder")}
            return cls(found["mean"], found["components"], found["variances"], float(found["remainder"]))
        except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
            raise UnreadableFileError(
                f"{path} is no spectrum of psld ({error}): delete it, or measure it again (psld tune)."
            ) from error


def _read(data: Items, chosen: Sequence[int]) -> Float[Tensor, "n *data"]:
    if isinstance(data, Tensor):
        return data[torch.tensor(chosen)].float()
    return torch.stack([data[index] for index in chosen]).float()


def _leading(
    flat: Float[Tensor, "n d"], rank: int, generator: torch.Generator
) -> tuple[Float[Tensor, " r"], Float[Tensor, "r d"]]:
    """Leading eigenvalues (float64) and eigenvectors of flatᵀflat / n, by subspace iteration from seeded directions."""
    width = min(rank + OVERSAMPLED, *flat.shape)
    basis = torch.randn(flat.shape[1], width, generator=generator)
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(flat.T @ (flat @ basis)).Q
    seen = (flat @ basis).double()
    variances, turn = torch.linalg.eigh(seen.T @ seen / len(flat))
    order = variances.argsort(descending=True)[:rank]
    components = (basis.double() @ turn[:, order]).T
    strongest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return variances[order], components * strongest.sign()  # signs are arbitrary: the largest entry is positive
