"""A classifier of 8×8 digits that trains in seconds, for features and labels where Inception has nothing to say.

Its 64 features take the place of Inception's in the Fréchet distance, and its labels say whether a conditional sample
shows the digit that was asked for. On the 1797 digits of scikit-learn it is right on about 99 % of held-out images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from psld.specs.arguments import checked, positive, seed_number, whole

__all__ = ["DigitClassifier", "classifier_accuracy", "fit_classifier", "train_digit_classifier"]

Classifier = TypeVar("Classifier", bound=nn.Module)


class DigitClassifier(nn.Module):
    """Three 3×3 convolutions, one pooling, 64 features, ten logits; 52 k parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, 10)

    def features(self, x: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 64"]:
        """The penultimate layer, ≥ 0, of images in [−1, 1]."""
        return self.body(x)

    def forward(self, x: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 10"]:
        """Logits of the digits 0…9."""
        return self.head(self.features(x))


MOST_IMAGES = 2**20
"""Of a batch, at most."""


@checked
def train_digit_classifier(
    images: Float[Tensor, "n 1 8 8"],
    labels: Int[Tensor, " n"],
    seed: int = 0,
    steps: int = 400,
    batch_size: int = 128,
    learning_rate: float = 3e-3,
) -> DigitClassifier:
    """A classifier trained on images in [−1, 1] and labels 0…9, in evaluation mode, on the device of the images.

    AdamW with a one-cycle learning rate, label smoothing, and every image shifted by up to one pixel each way. The
    result depends on the arguments alone: the global generator is neither read nor moved.

    Args:
        images: (n, 1, 8, 8) in [−1, 1].
        labels: (n,) in 0…9.
        seed: of the initial weights, the batches and the shifts.
        steps: of the optimizer; 400 take about 4 s on two CPU threads.
        batch_size: images a step, drawn with replacement.
        learning_rate: the peak of the cycle.
    """
    whole("batch_size", batch_size, most=MOST_IMAGES)
    shifts = _one_pixel_shifts(images)

    def batch(generator: torch.Generator) -> tuple[Tensor, Tensor]:
        chosen = torch.randint(len(images), (batch_size,), generator=generator).to(images.device)
        shift = torch.randint(shifts.shape[1], (batch_size,), generator=generator).to(images.device)
        return shifts[chosen, shift], labels[chosen]

    return fit_classifier(DigitClassifier, batch, seed, steps, learning_rate, images.device)


def fit_classifier(
    build: Callable[[], Classifier],
    batch: Callable[[torch.Generator], tuple[Tensor, Tensor]],
    seed: int,
    steps: int,
    learning_rate: float,
    device: torch.device,
) -> Classifier:
    """A classifier trained by AdamW with a one-cycle learning rate and label smoothing, in evaluation mode.

    Args:
        build: makes it, with initial weights from the global generator, which is put back afterwards.
        batch: images and labels of one step, drawn with the generator it is given.
        seed: of the initial weights and of that generator.
        steps: of the optimizer.
        learning_rate: the peak of the cycle.
        device: of the images.
    """
    seed_number("seed", seed)
    whole("steps", steps)
    positive("learning_rate", learning_rate)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = build().to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=learning_rate, total_steps=steps)
    for _ in range(steps):
        images, labels = batch(generator)
        loss = F.cross_entropy(classifier(images), labels, label_smoothing=0.05)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return classifier.eval()


@checked
@torch.no_grad()
def classifier_accuracy(classifier: nn.Module, images: Float[Tensor, "n 1 H W"], labels: Int[Tensor, " n"]) -> float:
    """The share, in [0, 1], of images whose largest logit is that of their label."""
    return float((classifier(images).argmax(1) == labels).double().mean())


def _one_pixel_shifts(images: Float[Tensor, "n 1 8 8"]) -> Float[Tensor, "n 9 1 8 8"]:
    """Each image moved by −1, 0, 1 pixels down and across, background (−1) coming in at the edge."""
    windows = F.pad(images, (1, 1, 1, 1), value=-1.0).unfold(2, 8, 1).unfold(3, 8, 1)  # (n, 1, 3, 3, 8, 8)
    return windows.flatten(2, 3).transpose(1, 2).contiguous()
