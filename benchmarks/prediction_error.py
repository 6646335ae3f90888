"""How far x̂₀ of a trained network is from the exact one, at several noise scales, on digits.

    python benchmarks/prediction_error.py runs/digits

Exact: the posterior mean over the training images. Root mean square a pixel over held-out images with fresh noise.
"""

from __future__ import annotations

import argparse

import torch

from psld.data import Digits
from psld.exact import Empirical
from psld.noise import SeededNoise
from psld.runs import load

SIGMAS = (0.2, 0.5, 1.0, 4.6, 16.0, 64.0)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("run", help="run folder, or the name of a published checkpoint")
    model = load(options.parse_args().run)
    shape = model.known_shape()
    process = model.process
    exact = Empirical(Digits("train").images.double(), std=0.0).model(process)
    x0 = Digits("heldout").images.double()
    noise = SeededNoise(range(len(x0)), (process.k, *shape))()
    top = float(process.noise_scale(process.T))
    print(f"| σ | {' | '.join(f'{sigma:.3g}' for sigma in (*SIGMAS, top))} |")
    print("| --- " * (len(SIGMAS) + 2) + "|")
    errors = []
    for sigma in (*SIGMAS, top):
        t = process.time_of(torch.tensor(sigma, dtype=torch.float64))
        z_t = process.perturb(x0, t, noise)
        with torch.no_grad():
            errors.append(float((model(z_t, t).x0 - exact(z_t, t).x0).square().mean().sqrt()))
    print(f"| RMS error of x̂₀ | {' | '.join(f'{error:.3f}' for error in errors)} |")


if __name__ == "__main__":
    main()
