"""Frames from one image to another through the prior, drawn into a folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from psld.editing import decode, encode, slerp
from psld.files import claim_folder, locked
from psld.jobs.drawing import SETTINGS
from psld.jobs.provenance import described_model, tensor_sha256
from psld.jobs.stores import Pictures
from psld.model import Model
from psld.specs.arguments import checked, device_name, positive, seed_number, whole

__all__ = ["interpolate"]


MOST_FRAMES = 10**6


@checked
def interpolate(
    out: str | Path,
    model: Model,
    ends: Float[Tensor, "2 C H W"],
    frames: int = 9,
    seed: int = 0,
    t_min: float = 1e-3,
    tolerance: float = 1e-5,
    batch_size: int = 64,
    settings: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    show: Callable[[Tensor], None] | None = None,
) -> Float[Tensor, "frames C H W"]:
    """Both images are carried to T by the probability flow, joined there along the sphere, and carried back.

    Args:
        out: the folder: new, or of the same command before. Frames are images/000000.png …
        model: any, on the device.
        ends: the two images, in [−1, 1].
        frames: how many, both ends included.
        seed: of the momenta of the first image; + 1 of the last.
        t_min: time that images are taken for states of.
        tolerance: of the solver, absolute and relative.
        batch_size: frames at a time.
        settings: what the frames depend on besides, to be recorded and compared.
        device: of the states.
        show: gets all frames while the folder is still locked, to write what shows them there.

    Returns:
        All frames, as 8 bits have kept them.

    Raises:
        FileExistsError: the folder holds something else.
        FolderInUseError: another process writes there.
        ValueError: fewer than two frames, no tolerance, or a time outside the process.
    """
    from tqdm import tqdm

    whole("frames", frames, least=2, most=MOST_FRAMES)
    whole("batch_size", batch_size)
    positive("tolerance", tolerance)
    device_name("device", device)
    seed_number("seed", seed)
    if not 0.0 < t_min < model.process.T:
        raise ValueError(f"t_min must lie between 0 and {model.process.T:g}: got {t_min}.")
    known = {"seed": seed, "t_min": t_min, "tolerance": tolerance, "frames": frames, "images": tensor_sha256(ends)}
    with locked(out, "frames"):
        claim_folder(Path(out), SETTINGS, {**(settings or {}), **known, **described_model(model)}, "frames")
        store = Pictures(Path(out))
        missing = sorted(set(range(frames)) - store.present())
        z = encode(model, ends.to(device, torch.float64), (seed, seed + 1), t_min, tolerance) if missing else ends
        with tqdm(total=len(missing), unit="img", disable=None, desc="interpolate") as bar:
            for start in range(0, len(missing), batch_size):
                batch = missing[start : start + batch_size]
                states = torch.cat([slerp(z[:1], z[1:], i / (frames - 1)) for i in batch])
                store.add(batch, decode(model, states, t_min, tolerance).float().clamp(-1, 1).cpu())
                bar.update(len(batch))
        found = store.first(frames)
        if show is not None:
            show(found)
        return found
