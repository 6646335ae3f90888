"""Masks by name, and as pictures."""

import numpy as np
import pytest
import torch
from PIL import Image

from psld.inverse.masks import load_mask, named_mask


def test_by_name():
    center, half, random = (named_mask(name, (3, 8, 8)) for name in ("center", "half", "random"))
    assert not center[:, 2:6, 2:6].any() and int((~center).sum()) == 3 * 16
    assert half[:, :, :4].all() and not half[:, :, 4:].any()
    assert int(random[0].sum()) == 32 and torch.equal(random[0], random[2])
    assert torch.equal(random, named_mask("random", (3, 8, 8)))
    assert not torch.equal(random, named_mask("random", (3, 8, 8), seed=1))
    with pytest.raises(ValueError, match="one of center, random, half"):
        named_mask("left", (3, 8, 8))
    with pytest.raises(ValueError, match="knows no pixel"):
        named_mask("center", (1, 2, 2))


def test_pictures(tmp_path):
    levels = np.full((4, 6), 255, dtype=np.uint8)
    levels[1, 2:4] = [0, 127]
    for mode in ("L", "RGB"):
        path = tmp_path / f"{mode}.png"
        Image.fromarray(levels).convert(mode).save(path)
        known = load_mask(path, (3, 4, 6))
        assert not known[:, 1, 2:4].any() and int((~known).sum()) == 6
    with pytest.raises(ValueError, match="is 4×6 pixels and the images are 8×8: they must agree"):
        load_mask(path, (1, 8, 8))
    for level, message in ((255, "knows every pixel"), (0, "knows no pixel")):
        Image.new("L", (6, 4), level).save(path)
        with pytest.raises(ValueError, match=message):
            load_mask(path, (1, 4, 6))
    path.write_text("no picture")
    with pytest.raises(ValueError, match="cannot be read as an image"):
        load_mask(path, (1, 4, 6))
