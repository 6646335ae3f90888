"""Which pixels are known: from a PNG, or by name."""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Bool
from torch import Tensor

from psld.inverse.operators import require_mask
from psld.specs.arguments import checked, image_shape, seed_number

__all__ = ["NAMES", "load_mask", "named_mask"]

NAMES = ("center", "random", "half")


@checked
def named_mask(name: str, shape: tuple[int, ...], seed: int = 0) -> Bool[Tensor, "C H W"]:
    """A mask for images of that shape, the same in every channel.

    Args:
        name: "center": the middle half of height and width is unknown; "random": half of the pixels are;
            "half": the right half is.
        shape: (C, H, W).
        seed: of "random".

    Raises:
        ValueError: another name, or an image so small that nothing or everything would be known.
    """
    if name not in NAMES:
        raise ValueError(f"a built-in mask is one of {', '.join(NAMES)}: got {name!r}.")
    seed_number("seed", seed)
    image_shape("shape", shape)
    height, width = shape[-2:]
    known = torch.ones(height, width, dtype=torch.bool)
    if name == "center":
        top, left = height // 4, width // 4
        known[top : height - top, left : width - left] = False
    elif name == "half":
        known[:, width // 2 :] = False
    else:
        order = torch.randperm(height * width, generator=torch.Generator().manual_seed(seed))
        known.view(-1)[order[: height * width // 2]] = False
    return require_mask(known.expand(shape).clone())


@checked
def load_mask(path: str | Path, shape: tuple[int, ...]) -> Bool[Tensor, "C H W"]:
    """A PNG (or another picture) as a mask: white where pixels are known, black where they are to be filled in.

    Args:
        path: of the picture, read as every picture is; transparency is white, colours become grey, and pixels are known
            from 128 of 255 on.
        shape: (C, H, W) of the images.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableFileError: no picture.
        ValueError: another size than the images, or all white or all black.
    """
    from psld.data.decoding import Framing, decode, read_header

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: a mask is a PNG, white where pixels are known.")
    header = read_header(path, str(path))
    if (header.height, header.width) != tuple(shape[-2:]):
        given, needed = f"{header.height}×{header.width}", "×".join(map(str, shape[-2:]))
        raise ValueError(f"the mask {path} is {given} pixels and the images are {needed}: they must agree.")
    levels = decode(path, str(path), 1, Framing(header.own_size(str(path))))[0]
    return require_mask((levels >= 128).expand(shape).clone())
