"""`psld sample --format npz` that is killed while it puts its parts together."""

import shutil

import numpy as np
import pytest
import torch

from psld.cli import main
from psld.jobs import Arrays


def image(i: int) -> torch.Tensor:
    return torch.full((1, 2, 2), i / 127.5 - 1)


def drawn(store: Arrays, indices: range) -> None:
    for first in indices[::3]:
        batch = [i for i in indices if first <= i < first + 3]
        store.add(batch, torch.stack([image(i) for i in batch]))


def content(store: Arrays) -> tuple[list[int], list[int]]:
    """The seeds, and the grey level of each image, which is its index."""
    with np.load(store.path) as arrays:
        return arrays["seeds"].tolist(), arrays["images"][:, 0, 0, 0].tolist()


def killed_while_merging(store: Arrays, monkeypatch: pytest.MonkeyPatch, removed: int) -> None:
    """samples.npz is written, and so many of its parts are gone."""

    def dies(folder):
        for part in sorted(folder.iterdir())[:removed]:
            part.unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", dies)
        store.finish(seed=50)


@pytest.mark.parametrize("removed", [0, 1, 4])
def test_each_seed_is_there_once(tmp_path, monkeypatch, removed):
    store = Arrays(tmp_path)
    drawn(store, range(10))
    killed_while_merging(store, monkeypatch, removed)
    assert store.present() == set(range(10))
    store.finish(seed=50)
    assert content(store) == (list(range(50, 60)), list(range(10)))
    assert not store.parts.exists()
    drawn(store, range(10, 14))  # a larger --num, killed again
    killed_while_merging(store, monkeypatch, removed=1)
    again = Arrays(tmp_path)
    again.finish(seed=50)
    assert content(again) == (list(range(50, 64)), list(range(14)))
    assert not again.parts.exists()


def test_parts_that_overlap_are_counted_once(tmp_path):
    """As two commands at once left them."""
    store = Arrays(tmp_path)
    drawn(store, range(6))
    store.add([4, 5, 6], torch.stack([image(i) for i in (4, 5, 6)]))
    store.finish(seed=0)
    assert content(store) == (list(range(7)), list(range(7)))


def test_the_same_command_again(tmp_path, monkeypatch, capsys):
    command = ["sample", "psld-digits", "--num", "4", "--steps", "2", "--format", "npz", "--out", str(tmp_path)]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        main(command)
    assert {path.name for path in tmp_path.iterdir()} >= {"samples.npz", "parts"}
    assert main(command) == 0
    with np.load(tmp_path / "samples.npz") as arrays:
        assert arrays["seeds"].tolist() == [0, 1, 2, 3]
        assert len(arrays["images"]) == 4
