"""Data sets that the library reads itself, and the order in which training sees them."""

from psld.data.afhq import AFHQ
from psld.data.arrays import ArrayFile, save_arrays
from psld.data.base import ImageData, Images
from psld.data.celeba import CelebA
from psld.data.cifar10 import CIFAR10
from psld.data.decoding import FileImages, Framing, ImageWarning
from psld.data.digits import Digits
from psld.data.folder import ImageFolder
from psld.data.hugging_face import HuggingFace
from psld.data.lfw import LFW
from psld.data.loading import loader
from psld.data.mnist import MNIST
from psld.data.order import ShuffledBatches, derived_seed
from psld.data.photographs import Patches
from psld.data.pixels import PixelArray, PixelData

__all__ = [
    "AFHQ",
    "CIFAR10",
    "LFW",
    "MNIST",
    "ArrayFile",
    "CelebA",
    "Digits",
    "FileImages",
    "Framing",
    "HuggingFace",
    "ImageData",
    "ImageFolder",
    "ImageWarning",
    "Images",
    "Patches",
    "PixelArray",
    "PixelData",
    "ShuffledBatches",
    "derived_seed",
    "loader",
    "save_arrays",
]
