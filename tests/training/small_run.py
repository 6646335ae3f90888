"""A training run of a second, with everything that could break resumption: dropout, mid-epoch, warm-up, EMA ramp.

As a script it can be killed (--killed_at, at a system call of the first process), slowed down (--pause SECONDS a step),
spread over processes (--devices, --strategy) and cut in parts (--accumulate), and trained with labels
(--label_dropout). With --dropout 0 nothing may depend on how: masks are what each process draws itself.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from psld.data import Digits
from psld.model import ScoreModel
from psld.noise import Generators, standard_normal
from psld.processes import VPSDE
from psld.specs import Specified
from psld.training import TrainingSettings, train

STEPS = 40


def small_network(dropout: float = 0.3, levels: int = 1, classes: int | None = None) -> nn.Module:
    from psld.networks import UNet

    torch.manual_seed(0)
    sizes = dict(width=8, multipliers=(1,) * levels, blocks=1, attention_resolutions=(), dropout=dropout)
    return UNet(1, 1, 8, **sizes, classes=classes)  # pyright: ignore[reportArgumentType]


class TwoConvolutions(Specified, nn.Module):
    """For what is slow: compiled in a second, and float16 on a CPU."""

    def __init__(self, dropout: float = 0.1):
        super().__init__()
        self.dropout = dropout
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 1, 3, padding=1)

    def forward(self, z: Tensor, t: Tensor) -> Tensor:
        hidden = torch.tanh(self.first(z[:, 0]) + t[:, None, None, None])
        return self.second(nn.functional.dropout(hidden, self.dropout, self.training))[:, None]


def noise_error(model: ScoreModel, x0: Tensor, t: Tensor, generator: Generators, **condition: Tensor | None) -> Tensor:
    eps = standard_normal((len(x0), 1, *x0.shape[1:]), generator).to(x0)
    z = model.process.perturb(x0, t, eps)
    return (model.network(z, t.to(z), **condition) - eps).square().flatten(1).mean(1)


def small_settings(**changes) -> TrainingSettings:
    numbers = dict(steps=STEPS, batch_size=16, learning_rate=1e-2, warmup_steps=10, ema_decay=0.9, log_every=5)
    where = dict(accelerator="cpu", checkpoint_every=4, tensorboard=False, progress=False)
    return TrainingSettings(**(numbers | where | changes))  # pyright: ignore[reportArgumentType]


def small_run(
    run: Path, loss=noise_error, network: nn.Module | None = None, data=None, seed: int = 3, **options
) -> Path:
    """Options of `train`, or of the settings."""
    of_train = {name: options.pop(name) for name in ("resume", "overwrite") if name in options}
    network = small_network() if network is None else network
    data = Digits("heldout") if data is None else data
    return train(ScoreModel(network, VPSDE()), data, loss, small_settings(**options), run, seed=seed, **of_train)


def launched(
    run: Path, *options: str, python: tuple[str, ...] = (), script: str = __file__, **environment: str
) -> subprocess.Popen:
    """This file, or another, as a script, in a process of its own; `python` options come before it."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return subprocess.Popen(
        [sys.executable, *python, script, str(run), *options],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("run", type=Path)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--pause", type=float, default=0.0)
    parser.add_argument("--checkpoint_every", type=int, default=2)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--num_workers", type=int, default=0)
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--checkpoints", default="whole")
    parser.add_argument("--accumulate", type=int, default=1)
    parser.add_argument("--times", default="uniform")
    parser.add_argument("--levels", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.3)
    parser.add_argument("--label_dropout", type=float, default=None)
    parser.add_argument("--killed_at", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.killed_at and os.environ.get("LOCAL_RANK", "0") == "0":
        from killed import Watch

        Watch(str(arguments.run), arguments.killed_at)

    def slowly(model: ScoreModel, x0: Tensor, t: Tensor, generator: Generators, **condition: Tensor | None) -> Tensor:
        time.sleep(arguments.pause)
        return noise_error(model, x0, t, generator, **condition)

    names = (
        *("resume", "checkpoint_every", "steps", "devices", "nodes", "num_workers", "strategy"),
        *("checkpoints", "accumulate", "times", "label_dropout"),
    )
    options = {name: getattr(arguments, name) for name in names}
    classes = None if arguments.label_dropout is None else 10
    network = small_network(arguments.dropout, arguments.levels, classes)
    small_run(arguments.run, slowly, network, keep_checkpoints=3, **options)


if __name__ == "__main__":
    main()
