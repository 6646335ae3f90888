"""`psld interpolate`: from one image to another, along the geodesic between their states in the prior."""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse import ArgumentParser
from torch import Tensor

from psld.cli.arguments import add_model_arguments
from psld.cli.configuration import instances
from psld.cli.restoring import ENLARGED, fingerprint, open_pictures, rms
from psld.cli.sample import Pictures, process_of
from psld.distributed import launch
from psld.editing import decode, encode, slerp
from psld.files import claim_folder
from psld.model import Clamped
from psld.plots import save_grid
from psld.pretrained.published import published_checkpoint
from psld.runs import load
from psld.training import latest_checkpoint

__all__ = ["run"]

DESCRIPTION = """Interpolate between two images: both are carried to T by the probability flow, the states there are
joined along the sphere, variable by variable, and carried back: OUT/images/000000.png …, and all in OUT/strip.png.

The first frame and the last are the two images again, to the tolerance of the solver and 8 bits."""

EPILOG = """example: psld interpolate vp-digits 3 8 --of digits --out runs/between;
two image files: psld interpolate runs/faces a.png b.png --frames 12 --out runs/faces-between"""


def parser() -> ArgumentParser:
    """Options of `psld interpolate`."""
    options = ArgumentParser(prog="psld interpolate", description=DESCRIPTION)
    options.epilog = EPILOG
    options.add_argument("run", type=str, help="run, checkpoint or weights folder, or a published name")
    options.add_argument("first", type=str, help="an image file; with --of, a position there, from 0")
    options.add_argument("last", type=str, help="another")
    options.add_argument("--of", type=str | None, default=None, help="a folder of images, digits, an .npz file …")
    options.add_argument("--split", type=str | None, default=None, help="of digits and MNIST: train, heldout …")
    options.add_argument("--out", type=str, required=True, help="folder to write: new, or of the same command before")
    options.add_argument("--frames", type=int, default=9, help="how many images, both ends included")
    options.add_argument("--seed", type=int, default=0, help="of the momenta of the first image; + 1 of the last")
    options.add_argument("--t_min", type=float, default=1e-3, help="time that images are taken for states of")
    options.add_argument("--tolerance", type=float, default=1e-5, help="of the solver, absolute and relative")
    options.add_argument("--batch_size", type=int, default=64, help="frames at a time")
    add_model_arguments(options)
    return options


def run(arguments: list[str]) -> int:
    """Write the frames that are missing; returns 0."""
    from tqdm import tqdm

    options = parser()
    config = options.parse_args(arguments)
    if config.frames < 2 or config.batch_size < 1:
        raise ValueError(
            f"--frames must be at least 2, both ends, and --batch_size at least 1: got {config.frames}, "
            f"{config.batch_size}."
        )
    if not config.tolerance > 0:
        raise ValueError(f"--tolerance must be positive: got {config.tolerance}.")
    checkpoint = published_checkpoint(config.run)
    device = launch(config.accelerator, devices=1, nodes=1).device
    process = instances(options, config).get("process")
    model = load(checkpoint, config.weights, str(device), process)
    shape = model.known_shape()
    if not 0.0 < config.t_min < model.process.T:
        raise ValueError(f"--t_min must lie between 0 and {model.process.T:g}: got {config.t_min}.")
    ends = _ends(config, shape)
    out = Path(config.out)
    settings = {name: config[name] for name in ("weights", "clamp", "seed", "t_min", "tolerance", "frames")}
    settings |= {"checkpoint": str(latest_checkpoint(checkpoint)), "process": process_of(config)}
    claim_folder(out, "sampling.json", settings | {"images": fingerprint(ends), "command": "interpolate"}, "frames")
    store = Pictures(out)
    missing = sorted(set(range(config.frames)) - store.present())
    asked = Clamped(model) if config.clamp else model
    if missing:
        seeds = (config.seed, config.seed + 1)
        z = encode(asked, ends.to(device, torch.float64), seeds, config.t_min, config.tolerance)
        with tqdm(total=len(missing), unit="img", disable=None, desc="interpolate") as bar:
            for start in range(0, len(missing), config.batch_size):
                batch = missing[start : start + config.batch_size]
                states = torch.cat([slerp(z[:1], z[1:], i / (config.frames - 1)) for i in batch])
                x = decode(asked, states, config.t_min, config.tolerance)
                store.add(batch, x.float().clamp(-1, 1).cpu())
                bar.update(len(batch))
    frames = store.first(config.frames)
    strip = out / "strip.png"
    save_grid(frames, strip, columns=config.frames, scale=max(1, ENLARGED // max(shape[-2:])))
    error = rms(frames[[0, -1]] - ends)
    print(
        f"{config.frames} frames in {out}; both ends came back to {error:.4f} RMS (pixels in [−1, 1]). Look at {strip}"
    )
    return 0


def _ends(config, shape: tuple[int, ...]) -> Tensor:
    """The two images, (2, C, H, W)."""
    if config.of is None:
        return torch.cat([open_pictures(end, config.split, shape).batch([0]) for end in (config.first, config.last)])
    images = open_pictures(config.of, config.split, shape)
    positions = []
    for given in (config.first, config.last):
        if not given.isdecimal() or int(given) >= len(images):
            raise ValueError(f"with --of, an image is a position, 0 … {len(images) - 1}: got {given}.")
        positions.append(int(given))
    return images.batch(positions)
