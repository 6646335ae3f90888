"""Networks: modules called as `network(z, t)` with z (B, k, *data) and t (B,), returning (B, r, *data)."""

from psld.networks.autocast import Autocast
from psld.networks.channels import Interface, filled_channels, interface_of
from psld.networks.class_conditional import ClassConditional, is_class_conditional
from psld.networks.dit import DiT
from psld.networks.embeddings import FourierEmbedding, FourierTime, PositionalTime, SinusoidalEmbedding, TimeEmbedding
from psld.networks.image_network import ImageNetwork
from psld.networks.levels import ResidualInput, SkipInput
from psld.networks.mlp import MLP
from psld.networks.ncsnpp import NCSNpp
from psld.networks.noise_classifier import NoiseClassifier
from psld.networks.patched import Patched
from psld.networks.preconditioning import Preconditioned, PreconditionedState
from psld.networks.resampling import FIR
from psld.networks.unet import UNet
from psld.networks.wrapping import Wrapping

__all__ = [
    "FIR",
    "MLP",
    "Autocast",
    "ClassConditional",
    "DiT",
    "FourierEmbedding",
    "FourierTime",
    "ImageNetwork",
    "Interface",
    "NCSNpp",
    "NoiseClassifier",
    "Patched",
    "PositionalTime",
    "Preconditioned",
    "PreconditionedState",
    "ResidualInput",
    "SinusoidalEmbedding",
    "SkipInput",
    "TimeEmbedding",
    "UNet",
    "Wrapping",
    "filled_channels",
    "interface_of",
    "is_class_conditional",
]
