"""Every option of every command, given what it does not take: one sentence, before any work, and never a traceback.

The cases are made from the parsers, by the types of their options, so an option that is added is tested as well. What
starts the work of a command is replaced by something that stops it: a case that gets so far was accepted.
"""

import contextlib
import errno
import functools
import importlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, Literal, NamedTuple, get_args, get_origin

import pytest
import torch
import yaml
from PIL import Image

from psld import PSLD, ScoreModel
from psld.cli import COMMANDS, MODULES, main
from psld.networks import UNet
from psld.pretrained.presets import published_config
from psld.runs import save

BLUR = ["--operator", "GaussianBlur", "--operator.std", "1"]
BASES = {
    "train": ["--config", "{digits}", "--run", "{new}"],
    "train-classifier": ["--config", "{classifier}", "--run", "{new}"],
    "sample": ["{run}", "--out", "{new}", "--num", "2", "--steps", "4"],
    "inpaint": ["{run}", "Digits", "--mask", "half", "--out", "{new}", "--num", "1", "--steps", "4"],
    "restore": ["{run}", "Digits", *BLUR, "--out", "{new}", "--num", "1", "--steps", "4"],
    "edit": ["{run}", "Digits", "--start", "0.3", "--out", "{new}", "--num", "1", "--steps", "4"],
    "interpolate": ["{run}", "1", "2", "--of", "Digits", "--out", "{new}"],
    "likelihood": ["{run}", "--data", "Digits", "--out", "{new}.json"],
    "evaluate": ["{run}", "--against", "Digits", "--out", "{new}"],
    "stats": ["Digits", "--out", "{new}.npz"],
    "tune": ["{run}", "--images", "Digits"],
    "report": ["{run}", "--out", "{new}.html"],
    "bench": ["samplers", "--out", "{new}"],
    "config": ["--images", "{pictures}"],
    "presets": ["cifar10-sota-0.01"],
    "import": ["{text}", "--preset", "cifar10-sota-0.01", "--out", "{new}"],
    "recipe": ["--matrices", "{matrices}"],
    "demo": ["--run", "{new}", "--steps", "4"],
}
"""A command line of each command that is accepted, beside import's: its file is no checkpoint."""

WORK = {
    **{command: ["training.loop.Session"] for command in ("train", "train-classifier", "demo")},
    **{command: ["jobs.drawing.own_share"] for command in ("sample", "inpaint", "restore", "edit")},
    "interpolate": ["jobs.interpolation.encode"],
    "likelihood": ["cli.likelihood.chosen_dequantiser"],
    "evaluate": ["cli.measuring.statistics_of"],
    "stats": ["cli.stats.statistics_of"],
    "tune": ["spectrum.Spectrum.measure"],
    "config": ["jobs.configuring.measured"],
    "report": ["report.build._pictures"],
    "bench": ["cli.bench.exact_reference"],
}
"""Where the work of a command starts."""


class Started(BaseException):
    """The work would start now."""


def parser_of(command: str) -> Any:
    return importlib.import_module(f"psld.cli.{MODULES.get(command, command)}").parser()


# -- cases -------------------------------------------------------------------------------------------------------------

HUGE = "9" * 24
NUMBERS = {"a word": "many", "nothing": "", "NaN": ".nan", "a list": "[1]", "infinity": ".inf", "text nan": "nan"}
WHOLE = {"a fraction": "1.5", "huge": HUGE, "negative": "-1", "zero": "0"}
REAL = {"negative": "-1", "zero": "0"}
CLASSES = {
    "nothing": "",
    "an unknown class": "Zzz",
    "a function": "os.system",
    "an unknown path": "psld.Zzz",
    "another class": "psld.data.Framing",
    "a number": "17",
    "a list": "[1]",
}
MISSING, FOLDER, TEXT, EMPTY = "{here}/not-there", "{folder}", "{text}", "{empty}"
A_FILE = {"a missing file": MISSING, "a folder for a file": FOLDER, "text": TEXT, "an empty file": EMPTY}
A_FOLDER = {"a missing folder": MISSING, "a file for a folder": TEXT, "an empty folder": FOLDER}
NEW_FOLDER = {"a file for a folder": TEXT, "below a file": "{text}/below"}
NEW_FILE = {"a folder for a file": FOLDER, "below a file": "{text}/below.json"}
A_NAME = {"an unknown name": "zzz"}
PATHS = {
    **{f"{command} {name}": A_FOLDER for command in BASES for name in ("run", "checkpoint", "classifier")},
    **{f"{command} out": NEW_FOLDER for command in BASES},
    **{f"{command} {name}": A_FILE for command in BASES for name in ("config", "mask", "matrices", "sweep", "grid")},
    **{f"{command} out": NEW_FILE for command in ("likelihood", "stats", "report")},
    **{f"{command} run": NEW_FOLDER for command in ("train", "train-classifier", "demo")},
    **{f"{command} preset": A_NAME for command in BASES},
    **{f"{command} device": A_NAME | {"not there": "cuda:99"} for command in BASES},
    **{f"{command} only": A_NAME for command in BASES},
    **{f"{command} extractor": A_NAME | A_FILE for command in BASES},
    **{f"{command} extractor_{name}": {"needless": MISSING} for command in BASES for name in ("weights", "sha256")},
    **{f"{command} extractor_class": {"needless": "zzz"} for command in BASES},
    "import checkpoint": A_FILE,
    "presets name": A_NAME,
    "interpolate first": A_NAME | {"negative": "-1", "huge": HUGE},
    "interpolate last": A_NAME | {"a fraction": "1.5"},
}
"""What options of text are given beside nothing, by command and destination."""
PICTURES = {"a missing file": f"{MISSING}.png", "text": TEXT, "an empty file": EMPTY, "an empty folder": FOLDER}

BESIDE = {"recipe config": "--matrices", "recipe process": "--matrices", "sample checkpoint": "{run}"}
"""What two options say, of which only one may be there."""

NEEDED_WITH = {"evaluate only": ["--sweep"], "likelihood fit_on": ["--dequantise", "variational"]}
"""What makes a command look at an option."""


class Case(NamedTuple):
    """One malformed value of one option."""

    command: str
    option: str | int  # its name, or the place of a positional argument
    dest: str
    what: str
    value: str

    def __str__(self) -> str:
        return f"{self.command} {self.dest} {self.what}"


def cases() -> Iterator[Case]:
    for command in BASES:
        place = 0
        for action in parser_of(command)._actions:
            kind = getattr(action, "_typehint", None)
            if action.choices:
                kind = Literal[tuple(action.choices)]
            if kind is None and not hasattr(action, "apply_config"):
                continue  # a flag
            if (action.dest.endswith(".help") and command != "evaluate") or (
                action.dest.startswith("training.") and command != "train"
            ):
                continue  # the same in every command
            option = action.option_strings[0] if action.option_strings else place
            place += not action.option_strings
            for what, value in malformed(command, action.dest, kind).items():
                if (f"{command} {action.dest}", what) not in TAKEN and (action.dest, what) not in TAKEN:
                    yield Case(command, option, action.dest, what, value)


def malformed(command: str, dest: str, kind: Any) -> dict[str, str]:
    """Values that no option of a type takes, by what is wrong with them."""
    found, kinds = {}, [own for own in get_args(kind) or [kind] if own is not NoneType]
    if get_origin(kind) is Literal:
        return {"another word": "zzz", "nothing": "", "a number": "17"}
    if get_origin(kind) is list:
        return malformed(command, dest, get_args(kind)[0]) | {"a list of words": "[many]"}
    if len(kinds) > 1:
        shared = [malformed(command, dest, own) for own in kinds]
        kinds_of_class = [own for own in kinds if is_class_kind(own)]
        found = {what: value for what, value in shared[0].items() if all(what in other for other in shared[1:])}
        if kinds_of_class:  # data by class or by path, guidance by number or by class
            found |= PICTURES if dest in ("images", "against", "floor", "data", "of", "fit_on") else {}
            found |= {"a function": "os.system"} if dest == "guidance" else {}
        return found | {"nothing": ""}
    (only,) = kinds
    if only is bool:
        return {"another word": "maybe", "nothing": "", "a number": "17"}
    if only is int or getattr(only, "_type", None) is int:
        return NUMBERS | WHOLE
    if only is float or getattr(only, "_type", None) is float:
        return NUMBERS | REAL
    if only is None or only is str or only.__name__ == "NotEmptyStr":
        return {"nothing": ""} | PATHS.get(f"{command} {dest}", {})
    return CLASSES


def is_class_kind(kind: Any) -> bool:
    return isinstance(kind, type) and kind.__module__.startswith(("psld.", "torch."))


TAKEN = {
    # 0 is a seed, a label, a scale of guidance, exact observation, the exact trace, no warm-up, no workers
    *((name, "zero") for name in ("seed", "label", "guidance", "noise", "probes", "jitter")),
    *((f"training.{name}", "zero") for name in ("warmup_steps", "num_workers", "ema_decay", "label_dropout")),
    ("guidance", "negative"),  # away from the class
    ("training.clip_norm", "infinity"),  # none
    ("training.max_seconds", "infinity"),  # none
    ("data_sha256", "nothing"),  # nobody gives it
    # how long a run is, is for its owner to say
    *((f"training.{name}", "huge") for name in ("steps", "warmup_steps", "log_every", "checkpoint_every")),
    ("training.keep_checkpoints", "huge"),
    # lists
    *((name, "a list") for name in ("report budgets", "image_shape")),
    ("import out", "below a file"),  # the file that is no checkpoint is refused first
}
"""What is no mistake after all, and why."""

CASES = list(cases())


# -- running -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def things(tmp_path_factory) -> dict[str, str]:
    """A model, files and folders to name."""
    here = tmp_path_factory.mktemp("malformed")
    torch.manual_seed(0)
    network = UNet(in_channels=2, out_channels=2, image_size=8, width=8, multipliers=(1,), blocks=1)
    run = save(ScoreModel(network, PSLD(), data_shape=(1, 8, 8)), here / "run")
    (run / "SHA256SUMS").unlink()
    config = yaml.safe_load((run / "config.yaml").read_text()) | {"data": {"class_path": "psld.data.Digits"}}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    (here / "folder").mkdir()
    (here / "text").write_text("a line of text\n")
    (here / "empty").touch()
    (here / "matrices").write_text("drift: [[0, 2], [-0.5, -2]]\nnoise: [[0], [1]]\n")
    (here / "pictures").mkdir()
    Image.new("L", (8, 8)).save(here / "pictures" / "0.png")
    names = {name: str(here / name) for name in ("run", "folder", "text", "empty", "matrices", "pictures")}
    configs = {"digits": str(published_config("digits")), "classifier": str(published_config("digits-classifier"))}
    return names | configs | {"here": str(here)}


@pytest.fixture(scope="module", autouse=True)
def parsers_made_once():
    """A parser takes longer to make than to use."""
    with pytest.MonkeyPatch.context() as patch:
        for command in BASES:
            module = importlib.import_module(f"psld.cli.{MODULES.get(command, command)}")
            patch.setattr(module, "parser", functools.cache(module.parser))
        yield


def run(command: str, arguments: list[str], capsys) -> tuple[int | None, str, str]:
    """Exit code (None: the work started), standard output and standard error."""

    def start(*given: Any, **options: Any) -> None:
        raise Started

    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        for name in WORK.get(command, []):
            patch.setattr(f"psld.{name}", start)
        stack.enter_context(contextlib.suppress(Started))
        code: int | None = None
        try:
            code = main([command, *arguments])
        except SystemExit as stop:
            assert isinstance(stop.code, int)
            code = stop.code
    said = capsys.readouterr()
    return code, said.out, said.err


def assert_one_sentence(command: str, code: int | None, error: str) -> str:
    assert code is not None, "the work started"
    assert code in (1, 2), error
    lines = [line for line in error.splitlines() if not line.startswith("psld report: without data")]
    assert len(lines) == 1, error
    assert lines[0].startswith(f"psld {command}: error: ")
    assert len(error) < 1200
    for word in (
        "Traceback",
        "Union",
        "NoneType",
        "Namespace",
        "NestedArg",
        "<class",
        "typing.",
        "Parser key",
        "Errno",
    ):
        assert word not in error, error
    return lines[0]


@pytest.mark.parametrize("command", BASES)
def test_the_command_line_that_cases_are_made_from_is_accepted(command, things, tmp_path, capsys, unchecked):
    arguments = [argument.format(**things, new=tmp_path / "new") for argument in BASES[command]]
    code, _, error = run(command, arguments, capsys)
    assert code in (None, 0) or command == "import", error


LATER = ("train-classifier", "restore", "edit")
"""Commands whose options are those of train and inpaint, nearly all: left to the slow tests."""


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] if case.command in LATER else []) for case in CASES], ids=str
)
def test_what_an_option_does_not_take_is_refused_in_one_sentence(
    case, things, tmp_path, capsys, monkeypatch, unchecked
):
    monkeypatch.chdir(tmp_path)
    value = case.value.format(**things)
    arguments = [argument.format(**things, new=tmp_path / "new") for argument in BASES[case.command]]
    if isinstance(case.option, int):
        arguments[case.option : case.option + 1] = [value]
    else:
        if case.option in arguments:
            place = arguments.index(case.option)
            del arguments[place : place + 2]
        if (other := BESIDE.get(f"{case.command} {case.dest}", "").format(**things)) in arguments:
            place = arguments.index(other)
            del arguments[place : place + 1 + other.startswith("--")]
        arguments += [*NEEDED_WITH.get(f"{case.command} {case.dest}", []), f"{case.option}={value}"]
    start = time.perf_counter()
    code, _, error = run(case.command, arguments, capsys)
    said = assert_one_sentence(case.command, code, error)
    assert time.perf_counter() - start < 10
    if value:
        assert any(text in said for text in (value[:60], value.removeprefix("."), f"{value}.0")), said
    else:
        assert case.dest.rpartition(".")[2] in said.lower(), said


# -- lines that went wrong before, and what is no mistake of the user ------------------------------------------------


LINES = {
    "an unknown command": (["sampel"], "psld: error: there is no command 'sampel': one of train,"),
    "an unknown sampler": (["sample", "x", "--out", "o", "--sampler", "Ancestrl"], "Did you mean Ancestral?"),
    "an unknown model": (["sample", "psld-digit", "--out", "o"], "did you mean psld-digits or"),
    "an unknown option": (["sample", "x", "--out", "o", "--stesp", "3"], "Did you mean --steps, --seed"),
    "an option without a value": (["sample", "x", "--out"], "--out needs a value"),
    "nothing to sample": (["sample", "--out", "o"], "say once what to sample from"),
    "no folder": (["sample", "x"], "--out (folder to write"),
    "an unknown argument": (
        ["sample", "x", "--out", "o", "--sampler", "Exponential", "--sampler.etta", "1"],
        "--sampler psld.Exponential has no argument 'etta': it has order and eta. Did you mean eta?",
    ),
    "an unknown setting": (["train", "--run", "r", "--training.step", "3"], "Did you mean --training.steps,"),
    "a setting in a file": (["train", "--run", "r", "--config", "bad.yaml"], "--training.steps must be a whole number"),
    "an unknown setting in a file": (["train", "--run", "r", "--config", "key.yaml"], "stepz"),
}


@pytest.mark.parametrize("name", LINES)
def test_a_mistake_is_named_with_what_is_near(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text("training: {steps: many}\n")
    Path("key.yaml").write_text("training: {steps: 3, stepz: 4}\n")
    (command, *arguments), words = LINES[name]
    code, _, error = run(command, arguments, capsys)
    said = assert_one_sentence(command, code, error) if command in COMMANDS else error.rstrip("\n")
    assert words in said and code in (1, 2)


def test_a_bug_is_called_a_bug_and_the_traceback_is_at_hand(monkeypatch, capsys):
    def wrong(arguments: list[str]) -> int:
        return {}[arguments[0]]

    monkeypatch.setattr("psld.cli.presets.run", wrong)
    assert main(["presets", "zzz"]) == 70
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "this is a bug in psld" in error and "KeyError: 'zzz'" in error
    assert "PSLD_TRACEBACK=1" in error
    monkeypatch.setenv("PSLD_TRACEBACK", "1")
    with pytest.raises(KeyError):
        main(["presets", "zzz"])


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "cannot be written (No space left on device): free some space, or choose a folder on"),
        (errno.EDQUOT, "free some space, or choose a folder on another disk."),
        (errno.EACCES, "Permission denied; change its permissions, or give another path."),
        (errno.EROFS, "Read-only file system; give a path on a file system that can be written."),
    ],
)
def test_what_the_system_refuses_is_said_with_the_file_and_advice(number, words, things, tmp_path, monkeypatch, capsys):
    """The first file in the folder cannot be flushed to the disk; the error does not say of which file it is."""

    def full(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("psld.files.atomic._sync", full)
    monkeypatch.setattr("psld.files.locks.sync_file", lambda file: None)  # the lock of the folder is held
    arguments = [things["run"], "--out", str(tmp_path / "new"), "--num", "1", "--steps", "2"]
    assert main(["sample", *arguments]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.replace("'", "").startswith(f"psld sample: error: {tmp_path / 'new' / 'sampling.json'}")
    assert error.count(words) == 1 and error.endswith(".") and ".;" not in error and "Errno" not in error


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sample", "psld-digits", "--out", "o", "--num", "3000000000"], "--num must be a whole number from 1 to"),
        (["sample", "psld-digits", "--out", "o", "--accelerator", "tpu"], "--accelerator must be auto, cpu, cuda, gpu"),
        (["train", "--config", "bomb.yaml", "--run", "r"], "line 1 has an anchor or alias"),
    ],
    ids=["three billion images", "an accelerator", "a YAML bomb"],
)
def test_a_fresh_process_takes_neither_ten_seconds_nor_a_gigabyte(arguments, words, tmp_path):
    (tmp_path / "bomb.yaml").write_text(BOMB)
    code = "import sys, resource; from psld.cli import main; code = 99\ntry: code = main(sys.argv[1:])\n"
    code += "except SystemExit as stop: code = stop.code\nused = resource.getrusage(resource.RUSAGE_SELF)\n"
    code += "print(code, used.ru_utime + used.ru_stime, used.ru_maxrss / 2**20)"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=tmp_path,
        text=True,
        capture_output=True,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (30, 30)),
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    ended, seconds, gigabytes = map(float, done.stdout.split())
    assert ended == 2 and seconds < 10 and gigabytes < 1
    assert words in assert_one_sentence(arguments[0], int(ended), done.stderr)
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.yaml"]


def test_there_are_hundreds_of_cases_and_every_command_has_some():
    assert len(CASES) > 600
    assert {case.command for case in CASES} == set(COMMANDS) == set(BASES)
