"""What the tests of inpaint, restore and edit share: held-out digits as files, and draws as the library makes them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ending import exit_code
from psld.data import Digits
from psld.model import Clamped
from psld.plots.pictures import load_images, save_images, to_bytes


def digits_in(folder: Path, count: int = 3) -> torch.Tensor:
    """The first held-out digits as PNG files; returns what the files hold, (n, 1, 8, 8) in [−1, 1]."""
    return load_images(save_images(Digits("heldout").images[:count], folder))


def levels(folder: Path) -> np.ndarray:
    """All images of a folder, in the order of their names, (n, H, W[, C])."""
    return np.stack([np.asarray(Image.open(file), dtype=int) for file in sorted(folder.iterdir())])


def drawn(sampler, model, grid, seed, shape=(1, 8, 8)) -> np.ndarray:
    """One draw by itself, by the library, as levels (H, W[, C])."""
    x = sampler.sample(Clamped(model), grid=grid, seeds=[seed], shape=shape).x
    return to_bytes(x.float())[0].squeeze(-1).astype(int) if shape[0] == 1 else to_bytes(x.float())[0].astype(int)


def refused(capsys, arguments, words, out: Path) -> None:
    """An exit code of 1 or 2, these words, and no folder."""
    assert exit_code([str(argument) for argument in arguments]) in (1, 2)
    assert words in capsys.readouterr().err
    assert not out.exists()
