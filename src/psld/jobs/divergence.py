"""The record that a folder of samples keeps of those that diverged and were written all the same."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from psld.files import read_json, write_json

__all__ = ["DivergedSeeds"]


class DivergedSeeds:
    """OUT/diverged.json: the seeds of images in OUT that diverged; until all are there, a file a process.

    Args:
        out: the folder.
        rank: of this process.
    """

    def __init__(self, out: Path, rank: int):
        self.out, self.path = out, out / (f"diverged-{rank}.json" if rank else "diverged.json")

    def add(self, seeds: Iterable[int]) -> None:
        """Names some more, in one piece."""
        if own := set(seeds):
            write_json({"seeds": sorted(own | self._read(self.path))}, self.path)

    def seeds(self) -> list[int]:
        """Those that any process named."""
        return sorted(set[int]().union(*(self._read(path) for path in self._files())))

    def finish(self) -> None:
        """One file; by the first process alone."""
        if others := [path for path in self._files() if path != self.path]:
            write_json({"seeds": self.seeds()}, self.path)
            for path in others:
                path.unlink()

    def _files(self) -> list[Path]:
        return sorted(self.out.glob("diverged*.json"))

    @staticmethod
    def _read(path: Path) -> set[int]:
        """Raises ValueError where the file holds something else."""
        if not path.is_file():
            return set()
        known = read_json(path)
        seeds = known.get("seeds") if isinstance(known, dict) else None
        if not (isinstance(seeds, list) and all(type(seed) is int for seed in seeds)):
            raise ValueError(f'{path} must hold {{"seeds": [3, …]}}: delete it, and draw into another folder.')
        return set(seeds)
