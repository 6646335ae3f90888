"""How much of psld lies between a user who trains and the network, as the stack shows it."""

import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import psld
from psld import CLD, ScoreModel, Specified
from psld.data import Images
from psld.losses import DSM, HSM, Denoising, Likelihood
from training.small_run import small_settings


class Depth(Specified, nn.Module):
    """A network that keeps the names of psld's functions above it."""

    def __init__(self, rows: int = 2):
        super().__init__()
        self.rows, self.weight = rows, nn.Parameter(torch.zeros(()))
        self.stacks: list[list[str]] = []

    def forward(self, z, t):
        frame, stack = sys._getframe(), []
        while frame is not None:
            if frame.f_code.co_filename.startswith(str(Path(psld.__file__).parent)):
                stack.append(frame.f_code.co_name)
            frame = frame.f_back
        self.stacks.append(stack)
        return self.weight * z[:, -self.rows :]


@pytest.mark.parametrize(
    "loss, told",
    [
        (HSM(), {"predicts": "eps"}),
        (HSM(Likelihood()), {"predicts": "score"}),
        (DSM(), {"predicts": "eps", "matching": "dsm"}),
        (Denoising(0.5), {"predicts": "denoiser"}),
    ],
    ids=repr,
)
def test_few_frames_lie_between_a_batch_and_its_loss(loss, told, tmp_path):
    """train, its arguments checked → its loop → the step → the loss → the model's answer → the network: at most 8."""
    network = Depth()
    model = ScoreModel(network, CLD(), **told)
    psld.train(model, Images(torch.randn(8, 1, 2, 2)), loss, small_settings(steps=2, batch_size=4), tmp_path / "run")
    of_steps = [stack for stack in network.stacks if "advance" in stack]
    assert len(of_steps) == 2 and all(stack[-2:] == ["train", "call"] for stack in of_steps)
    assert max(map(len, of_steps)) <= 8
    assert max(stack.index("advance") + 1 for stack in of_steps) <= 5  # from the batch itself
