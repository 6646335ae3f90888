"""A data set of one's own: discs of two sizes, each image computed when it is asked for.

    python examples/own_data.py
    PYTHONPATH=examples psld train --config configs/digits.yaml --data own_data.Discs --data.side 8 --run runs/discs

Its numbers are known: a disc of radius r covers πr² pixels, in the data and in samples drawn with their exact score.
"""

import math

import torch
from torch import Tensor

from psld import PSLD
from psld.data import ImageData
from psld.exact import Empirical


class Discs(ImageData):
    """Grey discs, 1 on −1, with a soft edge, anywhere inside the image; small ones have label 0, large ones label 1.

    Args:
        count: how many images.
        side: of an image, in pixels.
        seed: of the centres.
    """

    classes = ("small", "large")

    def __init__(self, count: int = 1000, side: int = 16, seed: int = 0):
        self.image_shape = (1, side, side)
        labels = torch.arange(count) % 2
        self.labels = labels
        self.radii = side * torch.tensor([0.15, 0.3])
        room = side / 2 - self.radii[labels] - 1.0
        shift = 2 * torch.rand(2, count, generator=torch.Generator().manual_seed(seed)) - 1
        self.centres = (side / 2 + room * shift).T

    def __len__(self) -> int:
        return len(self.centres)

    def __getitem__(self, index: int) -> Tensor:
        places = torch.arange(self.image_shape[-1]) + 0.5
        y, x = self.centres[index]
        distance = torch.hypot(places[:, None] - y, places[None] - x)
        return (2 * (self.radii[index % 2] + 0.5 - distance).clamp(0, 1) - 1)[None]


def area(images: Tensor) -> float:
    """Pixels that are white, on average over the images."""
    return float(((images + 1) / 2).sum((1, 2, 3)).mean())


if __name__ == "__main__":
    data = Discs()
    expected = float((math.pi * data.radii**2).mean())
    images = data.batch(range(len(data)))
    samples = Empirical(images.double(), std=0.02).model(PSLD()).sample(2000, steps=10)
    print(f"area in pixels: expected {expected:.2f}, data {area(images):.2f}, samples {area(samples.x):.2f}")
    assert Discs().fingerprint() == data.fingerprint() != Discs(seed=1).fingerprint()  # a resumed run compares these
