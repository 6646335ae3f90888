"""SIGKILL while a command writes: the same command again finishes, and what is there is what one go gives."""

import random
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import yaml

from killed import Commands, Ended
from psld.training.checkpoint import has_checkpoint
from small_config import SMALL

CONFIG = {**SMALL, "training": {**SMALL["training"], "tensorboard": True, "checkpoint_every": 2}}
SEED = 15
"""Of the calls and moments that are drawn."""
FEW = ["--steps", 3, "--batch_size", 2]
BENCH = ["--data", "ring", "--processes", "VP", "--only", "quadratic", "--nfe", 5, "--num", 8, "--exact", 2]
COMMANDS = {
    "png": ["sample", "RUN", *FEW, "--num", 5, "--out", "OUT/samples"],
    "npz": ["sample", "RUN", *FEW, "--num", 5, "--format", "npz", "--out", "OUT/samples"],
    "inpaint": ["inpaint", "RUN", "PICTURES", "--mask", "half", *FEW, "--draws", 2, "--out", "OUT/filled"],
    "restore": [
        "restore",
        "RUN",
        "PICTURES",
        "--operator",
        "GaussianBlur",
        "--operator.std",
        1,
        *FEW,
        "--out",
        "OUT/restored",
    ],
    "edit": ["edit", "RUN", "PICTURES", "--start", 0.5, *FEW, "--draws", 1, "--allow_diverged"]
    + ["--out", "OUT/edited"],
    "interpolate": ["interpolate", "RUN", "PICTURES/000000.png", "PICTURES/000001.png", "--frames", 3]
    + ["--tolerance", 0.1, "--out", "OUT/path"],
    "stats": ["stats", "PICTURES", "--out", "OUT/statistics.npz"],
    "evaluate": ["evaluate", "RUN", "--against", "KNOWN", "--num", 4, *FEW, "--out", "OUT/judged"],
    "sweep": ["evaluate", "RUN", "--against", "KNOWN", "--num", 4, "--sweep", "--nfe", 5, "--only", "quadratic"]
    + ["--allow_diverged", "--out", "OUT/judged"],
    "report": ["report", "RUN", "--quick", "--num", 4, "--searched", 20, "--steps", 3, "--out", "OUT/report.html"]
    + ["--overwrite"],
    "likelihood": ["likelihood", "RUN", "--data", "PICTURES", "--num", 2, "--rtol", 0.1, "--out", "OUT/bits.json"],
    "bench": ["bench", "samplers", *BENCH, "--out", "OUT/bench"],
    "train": ["train", "--config", "CONFIG", "--run", "OUT/run"],
}


class Place(NamedTuple):
    """A small run, and where commands write."""

    commands: Commands
    folder: Path

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def run(self, name: str, *more: str, **how: object) -> Ended:
        places = {"RUN": "run", "OUT": "out", "PICTURES": "pictures", "KNOWN": "known.npz", "CONFIG": "small.yaml"}
        pattern = re.compile(rf"^({'|'.join(places)})(?=/|$)")
        given = [pattern.sub(lambda found: str(self.folder / places[found[0]]), str(p)) for p in COMMANDS[name]]
        return self.commands.run([*given, *more], self.out, **how)

    def go_on(self, name: str) -> Ended:
        """The same command again; training without a checkpoint is begun anew, with one it is resumed."""
        return self.run(name, *(self.continued() if name == "train" else []))

    def continued(self) -> list[str]:
        """What makes training go on."""
        return ["--resume"] if has_checkpoint(self.out / "run") else ["--overwrite"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Iterator[Place]:
    from psld.data import Digits
    from psld.plots.pictures import save_images

    folder = tmp_path_factory.mktemp("killed")
    (folder / "small.yaml").write_text(yaml.safe_dump(CONFIG))
    save_images(Digits("heldout").images[:3], folder / "pictures")
    with Commands(folder) as commands:
        for arguments in (
            ["train", "--config", folder / "small.yaml", "--run", folder / "run"],
            ["stats", folder / "pictures", "--out", folder / "known.npz"],
        ):
            ended = commands.run(arguments, folder / "out")
            assert ended.code == 0, ended.said
        yield Place(commands, folder)


TIMES = rb'"seconds": [-+.e\d]+|\d+ s\b|\d{4}-\d\d-\d\d \d\d:\d\d'

TIMED = ("state.pt", "SHA256SUMS", "rows.csv", "sweep.csv")  # rows.json and sweep.json say the same


def content(folder: Path) -> dict[str, object]:
    """Every file by name, without the times in it; of a run what its weights and its log say."""
    found: dict[str, object] = {}
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = str(file.relative_to(folder))
        if "tfevents" in name or file.name in TIMED:
            continue
        data = file.read_bytes()
        if file.name == "metrics.csv":
            found[name] = [row.split(",")[:5] for row in data.decode().splitlines()]
        else:
            found[name] = re.sub(TIMES, b"", data)
    return found


def whole(place: Place, name: str) -> tuple[dict[str, object], Ended]:
    """What the command gives in one go."""
    shutil.rmtree(place.out, ignore_errors=True)
    ended = place.run(name)
    assert ended.code == 0, ended.said
    found = content(place.out)
    assert found
    assert not [file for file in found if "partial" in file or "lock" in file]
    return found, ended


def require_finished(place: Place, name: str, want: dict[str, object], killed: str) -> None:
    ended = place.go_on(name)
    assert ended.code == 0, (killed, ended.said)
    got = content(place.out)
    assert got.keys() == want.keys(), killed
    assert [file for file in want if got[file] != want[file]] == [], killed


def drawn(calls: int, chosen: int | None) -> list[int]:
    """So many of the calls, by `SEED`, or all of them."""
    return sorted(random.Random(SEED).sample(range(1, calls + 1), calls if chosen is None else min(chosen, calls)))


def kill_at_calls(place: Place, name: str, chosen: int | None) -> int:
    """At so many of the calls, or at all of them; returns how many there are."""
    want, ended = whole(place, name)
    for call in drawn(ended.calls, chosen):
        shutil.rmtree(place.out)
        killed = place.run(name, killed_at=call)
        assert killed.code == -signal.SIGKILL, (call, killed)
        require_finished(place, name, want, f"{name} killed at call {call} of {ended.calls}")
    return ended.calls


@pytest.mark.parametrize("name", ["png", "evaluate"])
def test_killed_at_a_system_call(place, name):
    assert kill_at_calls(place, name, 2) > 5


MANY = {"png": None, "npz": None, "stats": None, "evaluate": None, "inpaint": 10, "train": 10, "report": 5}
SOME = {"sweep": 4, "bench": 4, "restore": 4, "edit": 4, "interpolate": 4}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "chosen"), (MANY | SOME).items())
def test_killed_at_many_system_calls(place, name, chosen):
    """At each of them where None is chosen."""
    calls = kill_at_calls(place, name, chosen)
    print(f"{name}: killed at {len(drawn(calls, chosen))} of {calls} calls: {drawn(calls, chosen)}")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["png", "npz", "inpaint", "stats", "evaluate", "report", "train"])
def test_killed_at_random_moments(place, name):
    """Three in a row, of which some can come after the end; then the command is finished."""
    (want, ended), moments, killed = whole(place, name), random.Random(SEED), []
    for attempt in range(7):
        shutil.rmtree(place.out)
        kills = 0
        for _ in range(3):
            how = {"killed_after": moments.uniform(0.0, ended.seconds)}
            code = place.run(name, *(place.continued() if name == "train" else []), **how).code
            assert code in (0, -signal.SIGKILL)
            kills += code != 0
        require_finished(place, name, want, f"{name} killed {kills} times, attempt {attempt}")
        killed.append(kills)
    print(f"{name}, {ended.seconds:.1f} s: killed {sum(killed)} times in {len(killed)} attempts {killed}")


def test_seeds_of_a_killed_npz_are_there_once(place):
    _, ended = whole(place, "npz")
    for call in (ended.calls // 2, ended.calls - 8):  # the last of them while the parts are put together
        shutil.rmtree(place.out)
        assert place.run("npz", killed_at=call).code == -signal.SIGKILL
        assert (place.folder / "out/.samples.lock").exists()
        assert place.run("npz").code == 0
        with np.load(place.out / "samples/samples.npz") as arrays:
            assert arrays["seeds"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.slow
def test_requeued_twenty_times(place):
    """SIGTERM, resume, SIGTERM …: weights and averages bit for bit, and the log row by row."""
    more = ["--training.steps", "160", "--training.log_every", "7", "--training.tensorboard", "false"]
    shutil.rmtree(place.out, ignore_errors=True)
    assert place.run("train", *more).code == 0
    want, stops = content(place.out), []
    shutil.rmtree(place.out)
    while len(stops) < 20:
        ended = place.run("train", *more, *place.continued(), killed_at=random.randrange(1, 50), signal=signal.SIGTERM)
        assert ended.code in (-signal.SIGTERM, 143), ended  # the former while it starts
        if ended.code == 143:
            stops.append(int(max(place.out.rglob("step-*")).name.removeprefix("step-")))
    assert place.run("train", *more, "--resume").code == 0
    got = content(place.out)
    assert got.keys() == want.keys()
    assert [file for file in want if got[file] != want[file]] == []
    print(f"20 times SIGTERM, after steps {stops}")


# -- full disks --------------------------------------------------------------------------------------------------------


def require_told(place: Place, ended: Ended, when: str) -> None:
    """One line that names a file or folder of the command and says what to do, and no lock and nothing half-written."""
    assert ended.code == 1, (when, ended)
    (said,) = [line for line in ended.said.splitlines() if "cannot be written" in line]
    assert str(place.out) in said and "No space left on device" in said, (when, said)
    assert "free some space, or choose a folder on another disk" in said, (when, said)
    assert "Traceback" not in ended.said or "tensorboard" in ended.said, (when, ended.said)  # its thread prints one
    assert [str(file) for file in place.out.rglob(".*") if "step-" not in file.name] == [], when


def fill_disk(place: Place, name: str, chosen: int) -> None:
    (want, ended), told = whole(place, name), []
    for call in drawn(ended.calls, chosen):
        shutil.rmtree(place.out)
        full = place.run(name, full_at=call)
        if full.code == 0:  # nothing needed space after that call
            assert content(place.out) == want
            continue
        told.append(call)
        require_told(place, full, f"{name} with a disk full at call {call} of {ended.calls}")
        grown = ("run/metrics.csv", "bench/rows.json")  # of as many steps or cells as there are
        known = {file: text for file, text in content(place.out).items() if file in want and file not in grown}
        assert [file for file in known if known[file] != want[file]] == [], "what is there is whole"
        require_finished(place, name, want, f"{name} after a full disk at call {call}")
    print(f"{name}: told at calls {told} of {ended.calls}")


@pytest.mark.parametrize("name", ["npz", "stats"])
def test_a_full_disk_is_told_with_the_file_and_advice(place, name):
    fill_disk(place, name, 3)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_of_every_command(place, name):
    fill_disk(place, name, 6)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_files_that_may_not_grow(place, name):
    """Here the system itself refuses the write, half-way."""
    whole(place, name)
    largest = max(file.stat().st_size for file in place.out.rglob("*") if file.is_file())
    shutil.rmtree(place.out)
    ended = place.run(name, largest=largest // 2)
    assert ended.code == 1, ended
    assert "cannot be written (File too large)" in ended.said and str(place.out) in ended.said, ended.said
