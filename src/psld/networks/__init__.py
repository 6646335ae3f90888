"""Networks: modules called as `network(z, t)` with z (B, k, *data) and t (B,), returning (B, r, *data)."""

from psld.networks.autocast import Autocast
from psld.networks.classifier import NoiseClassifier
from psld.networks.embeddings import FourierEmbedding, SinusoidalEmbedding
from psld.networks.mlp import MLP
from psld.networks.ncsnpp import NCSNpp
from psld.networks.patches import Patched
from psld.networks.preconditioning import Preconditioned, PreconditionedState
from psld.networks.unet import UNet

__all__ = [
    "MLP",
    "Autocast",
    "FourierEmbedding",
    "NCSNpp",
    "NoiseClassifier",
    "Patched",
    "Preconditioned",
    "PreconditionedState",
    "SinusoidalEmbedding",
    "UNet",
]
