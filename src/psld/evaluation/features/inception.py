"""Inception-v3 as the FID was defined with it: the TensorFlow graph of 5 December 2015, in PyTorch.

Parameters carry the names of the published weights file (pt_inception-2015-12-05). Against the Inception-v3 of Szegedy
et al. (2016): 1008 classes, no auxiliary head, average pooling that leaves padding out of the mean, and maximum pooling
in the pooling branch of the last block. Images are 0 … 255, resized to 299×299 by TensorFlow 1's bilinear rule (pixel i
of the result is taken at i · size / 299, without half a pixel of shift and without smoothing), then (x − 128) / 128.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from psld.evaluation.features.weight_files import PublishedFile, load_tensors, weights_file

__all__ = ["PUBLISHED", "Inception2015", "load_inception", "resize_tensorflow1"]

SIDE = 299

PUBLISHED = PublishedFile(
    name="pt_inception-2015-12-05-6726825d.pth",
    address="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size=95_628_359,
)
"""TensorFlow's weights of 5 December 2015, converted by pytorch-fid (Apache-2.0). torch-fidelity's release v0.2.0 has
the same file, of the same hash, as weights-inception-2015-12-05-6726825d.pth."""


class Inception2015(nn.Module):
    """24 M parameters; forward gives the 2048 features, so it can be the `feature` of metrics of torchmetrics."""

    num_features = 2048

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Convolution(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Convolution(32, 32, 3)
        self.Conv2d_2b_3x3 = Convolution(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Convolution(64, 80, 1)
        self.Conv2d_4a_3x3 = Convolution(80, 192, 3)
        self.Mixed_5b = BlockA(192, pooled=32)
        self.Mixed_5c = BlockA(256, pooled=64)
        self.Mixed_5d = BlockA(288, pooled=64)
        self.Mixed_6a = ReductionB(288)
        self.Mixed_6b = BlockC(128)
        self.Mixed_6c = BlockC(160)
        self.Mixed_6d = BlockC(160)
        self.Mixed_6e = BlockC(192)
        self.Mixed_7a = ReductionD(768)
        self.Mixed_7b = BlockE(1280, "average")
        self.Mixed_7c = BlockE(2048, "maximum")
        self.fc = nn.Linear(2048, 1008)

    def forward(self, images: UInt8[Tensor, "n C H W"]) -> Float[Tensor, "n 2048"]:
        """Features of images 0 … 255 of any size, of 3 channels or of 1, which is then repeated."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"Inception takes (n, 3, H, W) or (n, 1, H, W): got {tuple(images.shape)}.")
        x = images.to(self.fc.weight.dtype).expand(-1, 3, -1, -1)
        x = (resize_tensorflow1(x, SIDE) - 128) / 128
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = F.max_pool2d(x, 3, stride=2)
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x))
        x = F.max_pool2d(x, 3, stride=2)
        for name, block in self.named_children():
            if name.startswith("Mixed"):
                x = block(x)
        return x.mean((2, 3))

    def logits(self, features: Float[Tensor, "n 2048"]) -> Float[Tensor, "n 1008"]:
        """Logits of the 1008 classes, without the bias: the Inception Score is computed from these."""
        return features @ self.fc.weight.mT


class Convolution(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        padding: int | tuple[int, int] = 0,
    ):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outputs, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.bn(self.conv(x)))


def across(inputs: int, outputs: int, length: int = 7) -> Convolution:
    """A row: 1 × length."""
    return Convolution(inputs, outputs, (1, length), padding=(0, length // 2))


def down(inputs: int, outputs: int, length: int = 7) -> Convolution:
    """A column: length × 1."""
    return Convolution(inputs, outputs, (length, 1), padding=(length // 2, 0))


def average_around(x: Tensor) -> Tensor:
    """The mean over 3×3, of those pixels that are there."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


class BlockA(nn.Module):
    """35×35: branches 1×1, 5×5, two 3×3, and pooling."""

    def __init__(self, inputs: int, pooled: int):
        super().__init__()
        self.branch1x1 = Convolution(inputs, 64, 1)
        self.branch5x5_1 = Convolution(inputs, 48, 1)
        self.branch5x5_2 = Convolution(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, padding=1)
        self.branch_pool = Convolution(inputs, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(average_around(x))], 1)


class ReductionB(nn.Module):
    """35×35 to 17×17."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3 = Convolution(inputs, 384, 3, stride=2)
        self.branch3x3dbl_1 = Convolution(inputs, 64, 1)
        self.branch3x3dbl_2 = Convolution(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = Convolution(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        twice = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), twice, F.max_pool2d(x, 3, stride=2)], 1)


class BlockC(nn.Module):
    """17×17: branches 1×1, one pair and two pairs of a row and a column of seven, and pooling."""

    def __init__(self, width: int):
        super().__init__()
        self.branch1x1 = Convolution(768, 192, 1)
        self.branch7x7_1 = Convolution(768, width, 1)
        self.branch7x7_2 = across(width, width)
        self.branch7x7_3 = down(width, 192)
        self.branch7x7dbl_1 = Convolution(768, width, 1)
        self.branch7x7dbl_2 = down(width, width)
        self.branch7x7dbl_3 = across(width, width)
        self.branch7x7dbl_4 = down(width, width)
        self.branch7x7dbl_5 = across(width, 192)
        self.branch_pool = Convolution(768, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        twice = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        twice = self.branch7x7dbl_5(self.branch7x7dbl_4(twice))
        return torch.cat([self.branch1x1(x), once, twice, self.branch_pool(average_around(x))], 1)


class ReductionD(nn.Module):
    """17×17 to 8×8."""

    def __init__(self, inputs: int):
        super().__init__()
        self.branch3x3_1 = Convolution(inputs, 192, 1)
        self.branch3x3_2 = Convolution(192, 320, 3, stride=2)
        self.branch7x7x3_1 = Convolution(inputs, 192, 1)
        self.branch7x7x3_2 = across(192, 192)
        self.branch7x7x3_3 = down(192, 192)
        self.branch7x7x3_4 = Convolution(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, F.max_pool2d(x, 3, stride=2)], 1)


class BlockE(nn.Module):
    """8×8: branches that end in a row and a column of three side by side, and pooling, "average" or "maximum"."""

    def __init__(self, inputs: int, pooling: str):
        super().__init__()
        self.pooling = pooling
        self.branch1x1 = Convolution(inputs, 320, 1)
        self.branch3x3_1 = Convolution(inputs, 384, 1)
        self.branch3x3_2a = across(384, 384, 3)
        self.branch3x3_2b = down(384, 384, 3)
        self.branch3x3dbl_1 = Convolution(inputs, 448, 1)
        self.branch3x3dbl_2 = Convolution(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = across(384, 384, 3)
        self.branch3x3dbl_3b = down(384, 384, 3)
        self.branch_pool = Convolution(inputs, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        once = self.branch3x3_1(x)
        twice = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = average_around(x) if self.pooling == "average" else F.max_pool2d(x, 3, stride=1, padding=1)
        ends = [self.branch3x3_2a(once), self.branch3x3_2b(once)]
        ends += [self.branch3x3dbl_3a(twice), self.branch3x3dbl_3b(twice)]
        return torch.cat([self.branch1x1(x), *ends, self.branch_pool(pooled)], 1)


def resize_tensorflow1(images: Float[Tensor, "n C H W"], side: int) -> Float[Tensor, "n C side side"]:
    """Bilinear, pixel i at i · size / side of the original, the last pixel repeated beyond the edge."""
    rows, columns = (_interpolation(size, side).to(images) for size in images.shape[-2:])
    return rows @ images @ columns.mT


def _interpolation(size: int, side: int) -> Float[Tensor, "side size"]:
    """The matrix that takes `size` pixels to `side`."""
    at = torch.arange(side, dtype=torch.float64) * size / side
    low = at.floor().long().clamp(max=size - 1)
    weight = at - low
    matrix = torch.zeros(side, size, dtype=torch.float64)
    matrix.scatter_add_(1, low[:, None], (1 - weight)[:, None])
    return matrix.scatter_add_(1, (low + 1).clamp(max=size - 1)[:, None], weight[:, None])


def load_inception(
    weights: str | Path = PUBLISHED.address, sha256: str | None = None, download: bool = False
) -> tuple[Inception2015, str]:
    """The network with published weights, in evaluation mode, and the SHA-256 of the file.

    Args:
        weights: a file, or the address of one (see `weights_file`); by default the published one.
        sha256: what the file must hash to; needed for another address than the published one.
        download: fetch the address, if it was not fetched before.

    Raises:
        ValueError: no hash for an address, another hash, or weights of another network.
        FileNotFoundError: there is no such file.
    """
    file, found = weights_file(PUBLISHED if weights == PUBLISHED.address else weights, sha256, download)
    network = Inception2015()
    load_tensors(network, file)
    return network.eval().requires_grad_(False), found
