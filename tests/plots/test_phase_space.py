"""The picture of trajectories: what it refuses, and that colour is time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from psld.plots.phase_space import save_phase_space

TIMES = torch.linspace(0, 1, 21)


def spiral() -> torch.Tensor:
    """(21, 2, 2): two pixels that circle inwards."""
    angle = 6 * TIMES[:, None] + torch.tensor([0.0, 3.0])
    return torch.stack([angle.cos(), angle.sin()], dim=-1) * (2 - TIMES[:, None, None])


def test_two_panels_with_the_same_lines(tmp_path: Path) -> None:
    """A reverse run that retraces the forward one has the same colours: they are of time, not of order."""
    path = tmp_path / "phase.png"
    save_phase_space(spiral(), list(spiral().flip(0)), TIMES, path, stationary=torch.diag(torch.tensor([1.0, 0.25])))
    picture = np.asarray(Image.open(path).convert("RGB")).astype(int)
    assert picture.shape == (750, 1650, 3)
    colourful = (picture.max(-1) - picture.min(-1)) > 60
    left, right = colourful[:, :800].sum(), colourful[:, 800:1500].sum()
    assert left > 3000
    assert right == pytest.approx(left, rel=0.05)
    assert list(tmp_path.iterdir()) == [path]


def test_grids_of_different_length(tmp_path: Path) -> None:
    save_phase_space(spiral(), spiral()[::4].flip(0), TIMES, tmp_path / "phase.png", TIMES[::4].flip(0))
    assert (tmp_path / "phase.png").stat().st_size > 0


def test_states_and_times_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"reverse has 6 states but its times are of shape \(21,\)"):
        save_phase_space(spiral(), spiral()[::4], TIMES, tmp_path / "phase.png")


def test_one_state_is_no_trajectory(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"forward must be .*\(1, 2, 2\)"):
        save_phase_space(spiral()[:1], spiral(), TIMES[:1], tmp_path / "phase.png")
