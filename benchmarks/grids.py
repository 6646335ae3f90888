"""Grids that know the data, beside diffusers' samplers on their own: exact scores of mixtures, few evaluations.

    python benchmarks/grids.py --mnist data/mnist --emoji data/emoji/train.npz --out runs/grids

Mixtures of digits, MNIST, colour emoji and patches of photographs (those that there are files for), the network held
exact. For VP, CLD and PSLD what `model.sample` does by itself, knowing the spectrum of the data and knowing nothing;
beside it DPM-Solver++ 2M and UniPC of diffusers, driven with the same exact score of VP, on their default grids.
Fréchet distance in the leading principal components of the data to five sets of fresh draws of equal size: mean and
standard deviation, and the same of other fresh draws as the floor. Rows are kept; an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, pstdev

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from psld import CLD, PSLD, VPSDE
from psld.data import MNIST, Digits
from psld.evaluation import frechet_distance
from psld.exact import Empirical
from psld.files import write_json
from psld.noise import SeededNoise
from psld.samplers.defaults import default_sampler
from psld.spectrum import Spectrum

NFE = (4, 5, 6, 8, 10, 20)
PROCESSES = (VPSDE(), CLD(), PSLD())
STD = {"digits": 0.05, "MNIST": 0.05, "emoji": 0.02, "photographs": 0.03}
COMPONENTS, SETS, IMAGES = 40, 5, 1500


def some(images: Tensor) -> Tensor:
    """At most 1,500 of them, drawn with seed 0; float64."""
    chosen = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))[:IMAGES]
    return images[chosen].double()


def photographs() -> Tensor:
    """Patches of 16×16 of three colour photographs that scikit-image ships."""
    from skimage import data

    draw, patches = np.random.default_rng(0), []
    pictures = [data.astronaut(), data.coffee(), data.chelsea()]
    for i in range(IMAGES):
        picture = pictures[i % len(pictures)]
        top, left = (int(draw.integers(0, size - 16)) for size in picture.shape[:2])
        patches.append(picture[top : top + 16, left : left + 16].transpose(2, 0, 1))
    return torch.from_numpy(np.stack(patches)).double() / 127.5 - 1.0


def opened(arguments: argparse.Namespace) -> dict[str, Callable[[], Tensor]]:
    """The data that there are files for."""
    known: dict[str, Callable[[], Tensor]] = {"digits": lambda: some(Digits("all").images)}
    if arguments.mnist is not None:
        known["MNIST"] = lambda: some(MNIST(root=arguments.mnist, split="train").batch(range(10_000)))
    if arguments.emoji is not None:
        known["emoji"] = lambda: some(
            torch.from_numpy(np.load(arguments.emoji)["images"]).permute(0, 3, 1, 2).double() / 127.5 - 1.0
        )
    known["photographs"] = lambda: some(photographs())
    return known


def of_diffusers(name: str, nfe: int, data: Empirical, count: int) -> Tensor:
    """Samples of a scheduler of diffusers on its default grid, from the noise that VP gets."""
    import diffusers

    beta = {"num_train_timesteps": 1000, "beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
    kind = {"DPM-Solver++ 2M": "DPMSolverMultistepScheduler", "UniPC": "UniPCMultistepScheduler"}[name]
    scheduler = getattr(diffusers, kind)(**beta)
    scheduler.set_timesteps(nfe)
    x = SeededNoise(range(count), (1, *data.data_shape), torch.float64, torch.device("cpu"))()[:, 0]
    for i, t in enumerate(scheduler.timesteps):
        sigma = scheduler.sigmas[i].double()
        y = x * (1.0 + sigma**2).sqrt()
        eps = (y - data.denoiser(y, sigma.expand(len(y)))) / sigma
        x = scheduler.step(eps, t, x).prev_sample
    return x


def of_psld(process, spectrum: Spectrum | None, nfe: int, data: Empirical, count: int) -> Tensor:
    """What `model.sample` draws by itself."""
    model = data.model(process)
    model.spectrum = spectrum
    sampler, shape = default_sampler(model, nfe), (1, *data.data_shape)
    y = process.noise_scale(process.T) * SeededNoise(range(count), shape, torch.float64, torch.device("cpu"))()[:, 0]
    more = SeededNoise(range(count), (process.k, *shape[1:]), torch.float64, torch.device("cpu"))
    z = process.from_statistic(y, process.T, more())  # the noise that all have in common is that of the image
    return sampler.carry(model, z, sampler.best_grid(process, nfe, spectrum), more).x


class Judge:
    """Fréchet distances in leading principal components to five sets of fresh draws."""

    def __init__(self, data: Empirical, count: int):
        flat = data.means.flatten(1)
        self.components = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:COMPONENTS]
        self.sets = [self.seen(self._drawn(data, count, seed)) for seed in range(SETS)]
        others = [self.seen(self._drawn(data, count, 100 + seed)) for seed in range(SETS)]
        self.floor = [fmean(frechet_distance(other, one) for one in self.sets) for other in others]

    @staticmethod
    def _drawn(data: Empirical, count: int, seed: int) -> Tensor:
        return data.sample(count, torch.Generator().manual_seed(1000 + seed))

    def seen(self, images: Tensor) -> Tensor:
        return images.flatten(1) @ self.components.T

    def row(self, images: Tensor) -> dict[str, float]:
        found = [frechet_distance(self.seen(images), one) for one in self.sets]
        return {"distance": fmean(found), "spread": pstdev(found)}


def measure(arguments: argparse.Namespace) -> list[dict]:
    """What is not measured yet."""
    target = arguments.out / "rows.json"
    rows = json.loads(target.read_text()) if target.exists() else []
    done = {(row["data"], row["sampler"], row["nfe"]) for row in rows}
    wanted: list[tuple[str, Callable[[int, Empirical, Spectrum], Tensor]]] = []
    for name in ("DPM-Solver++ 2M", "UniPC"):
        wanted.append((name, lambda nfe, data, _, name=name: of_diffusers(name, nfe, data, arguments.num)))
    for process in PROCESSES:
        named = type(process).__name__
        make = lambda nfe, data, spectrum, process=process: of_psld(process, spectrum, nfe, data, arguments.num)  # noqa: E731
        wanted.append((f"psld, {named}", make))
    nothing = lambda nfe, data, _: of_psld(PSLD(), None, nfe, data, arguments.num)  # noqa: E731
    wanted.append(("psld, PSLD, nothing known", nothing))
    for name, images in opened(arguments).items():
        cells = [
            (label, nfe, make) for nfe in arguments.nfe for label, make in wanted if (name, label, nfe) not in done
        ]
        if not cells:
            continue
        data = Empirical(images(), std=STD[name])
        judge, spectrum = Judge(data, arguments.num), Spectrum.measure(data.means)
        if (name, "floor", 0) not in done:
            rows.append({"data": name, "sampler": "floor", "nfe": 0, "distance": fmean(judge.floor)})
            rows[-1]["spread"] = pstdev(judge.floor)
        for label, nfe, make in tqdm(cells, desc=name):
            rows.append({"data": name, "sampler": label, "nfe": nfe, **judge.row(make(nfe, data, spectrum))})
            write_json(rows, target)
    return rows


def table(rows: list[dict], budgets: list[int]) -> str:
    """One row a sampler and data set; cells of psld that are behind the better peer by more than the spread in bold."""
    lines = [
        f"| data | sampler | {' | '.join(f'NFE {nfe}' for nfe in budgets)} |",
        "| --- |" + " --- |" * (1 + len(budgets)),
    ]
    found = {(row["data"], row["sampler"], row["nfe"]): row for row in rows}
    for data in dict.fromkeys(row["data"] for row in rows):
        floor = found[data, "floor", 0]
        lines.append(f"| {data} | floor {floor['distance']:.3g} ± {floor['spread']:.2g} |" + " |" * len(budgets))
        for label in dict.fromkeys(row["sampler"] for row in rows if row["nfe"]):
            cells = []
            for nfe in budgets:
                row = found.get((data, label, nfe))
                peers = [found.get((data, peer, nfe)) for peer in ("DPM-Solver++ 2M", "UniPC")]
                if row is None:
                    cells.append("")
                    continue
                best = min((peer for peer in peers if peer), key=lambda peer: peer["distance"], default=row)
                behind = row["distance"] > best["distance"] + max(row["spread"], best["spread"])
                text = f"{row['distance']:.3g} ± {row['spread']:.2g}"
                cells.append(f"**{text}**" if behind and label.startswith("psld") else text)
            lines.append(f"| {data} | {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, keep."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--mnist", type=Path, help="folder with MNIST's training files")
    options.add_argument("--emoji", type=Path, help=".npz with images (N, H, W, 3), uint8")
    options.add_argument("--out", type=Path, default=Path("runs/grids"))
    options.add_argument("--num", type=int, default=400, help="samples of each cell, and of each set of draws")
    options.add_argument("--nfe", type=int, nargs="+", default=list(NFE))
    arguments = options.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    text = table(measure(arguments), arguments.nfe)
    (arguments.out / "table.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
