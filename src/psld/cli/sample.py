"""`psld sample`: images from a trained run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jsonargparse import ArgumentParser

from psld import grids
from psld.cli.configuration import instances, load_model
from psld.evaluation import save_grid, save_images
from psld.evaluation.pictures import atomic_file
from psld.grids import Grid
from psld.predictions import ScoreModel
from psld.processes import Process
from psld.samplers import Sampler, Samples

__all__ = ["GridName", "generate", "make_grid", "run"]

DESCRIPTION = """Draw images from a trained run: OUT/grid.png, and OUT/images/000000.png … or OUT/samples.npz.

A sample depends on its own seed (--seed, --seed + 1, …) and not on the batch size, so more images later continue the
same set."""

EPILOG = """example: psld sample runs/demo --sampler EulerMaruyama --grid paper-quadratic --steps 50 --out runs/em;
an adaptive sampler with its own options: psld sample runs/demo --sampler RK45 --sampler.rtol 1e-4 --out runs/ode"""

GridName = Literal["log-snr", "uniform", "quadratic", "paper-uniform", "paper-quadratic"]


def parser() -> ArgumentParser:
    """Options of `psld sample`."""
    options = ArgumentParser(prog="psld sample", description=DESCRIPTION)
    options.epilog = EPILOG
    options.add_argument("run", type=str, help="run folder, checkpoint folder, or a folder with model.safetensors")
    options.add_argument("--out", type=str, required=True, help="folder to write; must be new or empty")
    options.add_subclass_arguments(
        Sampler,
        "sampler",
        help="EulerMaruyama, SSCS, Ancestral, Exponential or RK45",
        default={"class_path": "Exponential"},
    )
    options.add_argument("--grid", type=GridName, default="log-snr", help="where the steps lie; paper-* stop at 1e-3")
    options.add_argument(
        "--steps", type=int, default=20, help="network evaluations a sample, the last denoising included"
    )
    options.add_argument("--num", type=int, default=64, help="how many images")
    options.add_argument("--seed", type=int, default=0, help="seed of the first image")
    options.add_argument("--batch_size", type=int, default=256, help="images at a time")
    options.add_argument("--format", type=Literal["png", "npz"], default="png", help="a file an image, or one array")
    options.add_argument("--weights", type=Literal["ema", "online"], default="ema", help="averaged weights or the last")
    options.add_argument("--device", type=str, default="cpu", help="cpu, cuda, cuda:1 …")
    return options


def make_grid(name: GridName, process: Process, nfe: int) -> Grid:
    """The grid of that name for `nfe` evaluations."""
    if name.startswith("paper-"):
        return grids.paper(process, nfe, "uniform" if name == "paper-uniform" else "quadratic")
    return {"log-snr": grids.log_snr, "uniform": grids.uniform, "quadratic": grids.quadratic}[name](process, nfe)


def generate(
    sampler: Sampler,
    model: ScoreModel,
    shape: tuple[int, ...],
    grid: Grid,
    seeds: range,
    batch_size: int,
    device: str = "cpu",
) -> Iterator[Samples]:
    """Samples in batches, one a seed, from tables made once, with a progress bar on a terminal."""
    from tqdm import tqdm

    plan, model = sampler.prepare(model.process, grid), model.tabulate(grid.times)
    with tqdm(total=len(seeds), unit="img", disable=None, desc=type(sampler).__name__) as bar:
        for start in range(0, len(seeds), batch_size):
            batch = sampler.sample(model, shape, grid, seeds[start : start + batch_size], device=device, plan=plan)
            bar.update(len(batch.x))
            yield batch


def run(arguments: list[str]) -> int:
    """Sample; returns 0."""
    options = parser()
    config = options.parse_args(arguments)
    if config.num < 1 or config.batch_size < 1 or config.steps < 1:
        raise ValueError(
            "--num, --steps and --batch_size must be at least 1: "
            f"got {config.num}, {config.steps}, {config.batch_size}."
        )
    out = Path(config.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise FileExistsError(f"{out} is there already and is not an empty folder: give another --out, or remove it.")
    model, shape = load_model(config.run, config.weights, config.device)
    grid = make_grid(config.grid, model.process, config.steps)
    sampler = instances(options, config).sampler
    seeds = range(config.seed, config.seed + config.num)
    batches = list(generate(sampler, model, shape, grid, seeds, config.batch_size, config.device))
    images = torch.cat([batch.x for batch in batches]).float().clamp(-1, 1).cpu()
    nfe = torch.cat([batch.nfe for batch in batches]).double().mean()
    out.mkdir(parents=True, exist_ok=True)
    if config.format == "npz":
        with atomic_file(out / "samples.npz") as file:
            pixels = ((images + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
            np.savez_compressed(file, images=pixels, seeds=np.asarray(seeds))
    else:
        save_images(images, out / "images")
    save_grid(images[:100], out / "grid.png")
    print(f"{len(images)} images in {out}, {float(nfe):.4g} network evaluations each. Look at {out / 'grid.png'}")
    return 0
