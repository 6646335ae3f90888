"""Processes that train in slices, several runs one after the other, because starting processes takes longest.

FOLDER/whole has whole checkpoints, FOLDER/slices sharded ones. FOLDER/parts is resumed twice, first from a whole one.
"""

import sys
from pathlib import Path

from training.small_run import small_network, small_run

STEPS = 6


def main(folder: Path, devices: int) -> None:
    def trained(run: str, **options) -> None:
        where = dict(devices=devices, batch_size=12, strategy="fsdp", checkpoint_every=3)
        small_run(folder / run, network=small_network(levels=2), **where, **options)

    trained("whole", steps=STEPS)
    trained("slices", steps=STEPS, checkpoints="sharded")
    trained("parts", steps=2)
    trained("parts", steps=4, checkpoints="sharded", resume=True)
    trained("parts", steps=STEPS, checkpoints="sharded", resume=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
