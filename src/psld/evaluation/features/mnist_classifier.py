"""A classifier of MNIST digits whose weights come with the package, for features and labels without a download.

Its 64 features take the place of Inception's in the Fréchet distance. `psld.evaluation.features.bundled` holds the
command that trained it, on the first 50,000 images of the training file.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from psld.evaluation.features.digit_classifier import fit_classifier

__all__ = ["MNISTClassifier", "train_mnist_classifier"]


class MNISTClassifier(nn.Module):
    """Five 3×3 convolutions, three poolings, 64 features, ten logits; 107 k parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64 * 3 * 3, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)

    def features(self, x: Float[Tensor, "n 1 28 28"]) -> Float[Tensor, "n 64"]:
        """The penultimate layer, ≥ 0, of images in [−1, 1]."""
        return self.body(x)

    def forward(self, x: Float[Tensor, "n 1 28 28"]) -> Float[Tensor, "n 10"]:
        """Logits of the digits 0…9."""
        return self.head(self.features(x))


def train_mnist_classifier(
    images: Float[Tensor, "n 1 28 28"],
    labels: Int[Tensor, " n"],
    seed: int = 0,
    steps: int = 1500,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
) -> MNISTClassifier:
    """A classifier trained on images in [−1, 1] and labels 0…9, in evaluation mode, on the device of the images.

    AdamW with a one-cycle learning rate, label smoothing, and every batch shifted by up to two pixels each way. The
    result depends on the arguments alone: the global generator is neither read nor moved.

    Args:
        images: (n, 1, 28, 28) in [−1, 1].
        labels: (n,) in 0…9.
        seed: of the initial weights, the batches and the shifts.
        steps: of the optimizer; 1500 take about three minutes on one CPU core.
        batch_size: images a step, drawn with replacement.
        learning_rate: the peak of the cycle.
    """

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(images), (batch_size,), generator=generator).to(images.device)
        down, across = torch.randint(0, 5, (2,), generator=generator).tolist()
        shifted = F.pad(images[chosen], (2, 2, 2, 2), value=-1.0)[..., down : down + 28, across : across + 28]
        return shifted, labels[chosen]

    return fit_classifier(MNISTClassifier, batch, seed, steps, learning_rate, images.device)
