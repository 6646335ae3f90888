"""Images per second of each loader alone, against those of a training step.

    python benchmarks/loading.py [--workers 2] [--seconds 3]

Data sets are written in their real formats into a temporary folder, with real pixels: crops and enlargements of
scikit-image's photographs. Batches of 128 in training's shuffled order, mirror images included; everything is in the
file cache. The training step is that of a U-Net at CIFAR-10 size, width 32, batch 16, timed anew before each loader, so
that both see the same machine. One thread.
"""

from __future__ import annotations

import argparse
import gzip
import io
import pickle
import statistics
import struct
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from psld import PSLD, ScoreModel
from psld.data import (
    AFHQ,
    CIFAR10,
    LFW,
    MNIST,
    ArrayFile,
    CelebA,
    HuggingFace,
    ImageData,
    ImageFolder,
    Patches,
    ShuffledBatches,
    loader,
)
from psld.losses import HSM
from psld.networks import UNet

BATCH, COUNT, LARGE = 128, 5_000, 500


def images_per_second(data: ImageData, workers: int, seconds: float) -> float:
    """After the first batches, with which workers start."""
    batches = iter(loader(data, ShuffledBatches(len(data), BATCH, 0, 0, 10**9), workers))
    for _ in range(2 + 2 * workers):
        next(batches)
    read, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        read += len(next(batches))
    return read / (time.perf_counter() - start)


def training_step(batch: int = 16) -> Callable[[], float]:
    """A call that makes some steps and gives their median speed in images per second."""
    network = UNet(6, 6, image_size=32, width=32, multipliers=(1, 2, 2, 2), blocks=2, attention_resolutions=(16,))
    optimizer = torch.optim.Adam(network.parameters())
    model, loss, data = ScoreModel(network, PSLD()), HSM(), Patches(count=batch)
    x0, t = data.batch(range(batch)), torch.rand(batch, dtype=torch.float64) * 0.99 + 0.01

    def step() -> float:
        start = time.perf_counter()
        optimizer.zero_grad()
        loss(model, x0, t, torch.Generator().manual_seed(0)).mean().backward()
        optimizer.step()
        return time.perf_counter() - start

    return lambda: batch / statistics.median(step() for _ in range(3))


# -- data sets in their real formats -----------------------------------------------------------------------------------


def mnist(root: Path, pixels: np.ndarray) -> ImageData:
    grey = np.ascontiguousarray(pixels[:, 2:30, 2:30, 1])
    for name, values in (("images-idx3", grey), ("labels-idx1", np.zeros(len(grey), np.uint8))):
        header = bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape)
        (root / f"train-{name}-ubyte.gz").write_bytes(gzip.compress(header + values.tobytes(), 1))
    return MNIST(root, "train+heldout", image_size=32, flip=True)


def cifar10(root: Path, pixels: np.ndarray) -> ImageData:
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz", compresslevel=1) as tar:
        for number, part in enumerate(np.array_split(pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1), 5), 1):
            content = pickle.dumps({"data": part, "labels": [0] * len(part)}, protocol=4)
            member = tarfile.TarInfo(f"cifar-10-batches-py/data_batch_{number}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return CIFAR10(root, flip=True)


def array_file(root: Path, pixels: np.ndarray) -> ImageData:
    np.savez(root / "images.npz", pixels)
    return ArrayFile(root / "images.npz", flip=True)


def folder(root: Path, pixels: np.ndarray) -> ImageData:
    for number, picture in enumerate(pixels):
        Image.fromarray(picture).save(root / f"{number:06}.png")
    return ImageFolder(root, 32, flip=True)


def hugging_face(root: Path, pixels: np.ndarray) -> ImageData:
    from datasets import Dataset, Features, disable_progress_bars
    from datasets import Image as ImageFeature

    disable_progress_bars()
    cells = []
    for picture in pixels:
        content = io.BytesIO()
        Image.fromarray(picture).save(content, format="png")
        cells.append({"bytes": content.getvalue(), "path": None})
    Dataset.from_dict({"image": cells}, features=Features({"image": ImageFeature()})).save_to_disk(root / "saved")
    return HuggingFace(root / "saved", 32, flip=True)


def celeba(root: Path, pixels: np.ndarray) -> ImageData:
    (root / "img_align_celeba").mkdir()
    for number, picture in enumerate(pixels[:LARGE]):
        large = Image.fromarray(picture).resize((178, 218), Image.Resampling.BICUBIC)
        large.save(root / "img_align_celeba" / f"{number:06}.jpg", quality=90)
    return CelebA(root, 32, split="all", flip=True)


def afhq(root: Path, pixels: np.ndarray) -> ImageData:
    for kind in ("cat", "dog", "wild"):
        (root / "train" / kind).mkdir(parents=True)
    for number, picture in enumerate(pixels[:LARGE]):
        large = Image.fromarray(picture).resize((512, 512), Image.Resampling.BICUBIC)
        large.save(root / "train" / ("cat", "dog", "wild")[number % 3] / f"{number:06}.png", compress_level=6)
    return AFHQ(root, 32, flip=True)


WRITTEN: dict[str, Callable[[Path, np.ndarray], ImageData]] = {
    "MNIST, padded to 32×32": mnist,
    "CIFAR10": cifar10,
    "ArrayFile": array_file,
    "ImageFolder, PNG 32×32": folder,
    "HuggingFace, PNG 32×32 saved to disk": hugging_face,
    "CelebA, JPEG 178×218 → 32×32": celeba,
    "AFHQ, PNG 512×512 → 32×32": afhq,
}
BUNDLED: dict[str, Callable[[], ImageData]] = {
    "Patches": lambda: Patches(flip=True),
    "LFW": lambda: LFW(flip=True),
}


def main() -> None:
    options = argparse.ArgumentParser(description="Images per second of each loader alone.")
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--seconds", type=float, default=3.0)
    chosen = options.parse_args()
    torch.set_num_threads(1)
    crops = Patches(count=COUNT)
    pixels = torch.stack([crops.pixels(position) for position in range(COUNT)]).permute(0, 2, 3, 1).numpy()
    training = training_step()
    training()
    print(f"| data | training step | no workers | × training | {chosen.workers} workers | × training |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as place:
        for number, name in enumerate([*BUNDLED, *WRITTEN]):
            root = Path(place) / str(number)
            root.mkdir()
            data = BUNDLED[name]() if name in BUNDLED else WRITTEN[name](root, pixels)
            step = training()
            alone, helped = (images_per_second(data, workers, chosen.seconds) for workers in (0, chosen.workers))
            cells = (step, alone, alone / step, helped, helped / step)
            print(f"| {name} | {' | '.join(f'{cell:,.0f}' for cell in cells)} |", flush=True)


if __name__ == "__main__":
    main()
