"""Folders, configurations, archives and weights that somebody made to do harm: each is refused, and nothing happens.

Nothing is written, imported, started or connected to; it takes neither ten seconds nor a gigabyte; and what is said is
one sentence or two, without a traceback of somebody else's making.
"""

import gzip
import io
import json
import os
import pickle
import resource
import socket
import struct
import subprocess
import sys
import tarfile
import time
import zipfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml

import psld
from psld import PSLD, ScoreModel
from psld.files import UnreadableFileError, read_json, read_table
from psld.networks import UNet
from psld.pretrained import load_official
from psld.runs import UntrustedSourceError, load_classifier, load_data, save
from psld.samplers.grids import Grid
from psld.specs import OutsizedError, SpecError, UntrustedClassError, build
from psld.training import CheckpointError
from psld.training.reading import read_checkpoint

REFUSALS = (ValueError, FileNotFoundError, NotADirectoryError, CheckpointError)
SECRET = "correct horse battery staple"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working folder that holds a module which leaves a mark when it is imported."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "lying_around.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('PWNED').touch()\n"
        "from psld.networks import UNet\nclass Network(UNet): pass\n"
    )
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(work))
    return work


@pytest.fixture
def model(place) -> Path:
    """A whole model, of which each test changes a file."""
    torch.manual_seed(0)
    sizes = {"width": 8, "multipliers": (1,), "blocks": 1, "attention_resolutions": ()}
    network = UNet(in_channels=2, out_channels=2, image_size=8, **sizes)
    folder = save(ScoreModel(network, PSLD(), data_shape=(1, 8, 8)), place / "model")
    (folder / "SHA256SUMS").unlink()  # whoever changes a file changes its hash as well
    return folder


@contextmanager
def refused(place: Path, kinds=REFUSALS, match=None, seconds=10.0):
    """What is inside raises one of some errors, and leaves the machine as it was."""

    def fail(*given, **options):
        pytest.fail("something was started or connected to")

    before, mapped, start = _files(place), _memory(), time.perf_counter()
    with pytest.MonkeyPatch.context() as patch, pytest.raises(kinds, match=match) as error:
        patch.setattr(socket.socket, "__init__", fail)
        patch.setattr(subprocess.Popen, "__init__", fail)
        for name in ("system", "fork", "posix_spawn", "execv", "execve"):
            patch.setattr(os, name, fail)
        yield error
    assert time.perf_counter() - start < seconds
    assert _memory() - mapped < 1e9
    assert _files(place) == before
    assert "lying_around" not in sys.modules and not (place / "PWNED").exists()
    text = str(error.value)
    assert text and len(text) < 1500 and text.count("\n") == 0, text
    assert SECRET not in text


def _files(place: Path) -> dict[str, tuple[int, int]]:
    found = (path for path in place.parent.rglob("*") if "__pycache__" not in path.parts)
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in found}


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def config_of(model: Path) -> dict:
    return yaml.safe_load((model / "config.yaml").read_text())


def write(model: Path, config: object) -> Path:
    (model / "config.yaml").write_text(yaml.safe_dump(config))
    return model


# -- names -------------------------------------------------------------------------------------------------------------

NAMES = [
    # functions and classes of others
    *("os.system", "builtins.eval", "builtins.exec", "builtins.__import__", "subprocess.Popen", "pickle.loads"),
    *("torch.load", "torch.hub.load", "torch.jit.load", "torch.nn.Linear", "http.server.test", "webbrowser.open"),
    *("shutil.rmtree", "pathlib.Path.unlink", "importlib.import_module", "yaml.unsafe_load", "antigravity.fly"),
    "torch.fx.graph_module.reduce_graph_module",
    # a module in the working folder
    *("lying_around", "lying_around.Network", "work.lying_around.Network"),
    # modules and functions of psld
    *("psld", "psld.data", "psld.networks", "psld.runs", "psld.networks.wrapping", "psld.networks.unet.UNet"),
    *("psld.load", "psld.train", "psld.specs.build", "psld.specs.resolve", "psld.runs.save", "psld.files.atomic_file"),
    *("psld.data.save_arrays", "psld.data.loader", "psld.pretrained.import_official", "psld.cli.main"),
    # classes of psld that no configuration needs
    *("psld.ScoreModel", "psld.runs.LoadedClassifier", "psld.training.CheckpointError", "psld.files.BoundedStream"),
    *("psld.evaluation.features.extractors.ExternalFeatures", "psld.evaluation.ExternalFeatures"),
    # what psld's modules import, and what Python puts there
    *("psld.networks.torch.load", "psld.runs.nn.Sequential", "psld.importlib.import_module", "psld.__builtins__.eval"),
    *("psld.__loader__", "psld.data.__loader__.load_module", "psld.networks._private", "psld.samplers._stored"),
    # attributes of classes that may be named
    *("psld.PSLD.__init__", "psld.PSLD.__subclasses__", "psld.PSLD.spec", "psld.PSLD.recipe", "psld.Grid.save"),
    *("psld.LinearRecipe.from_sde.__globals__", "psld.LinearRecipe.from_sde.__func__", "psld.LinearRecipe.mro"),
    *("psld.networks.UNet.load_state_dict", "psld.networks.UNet.apply", "psld.networks.UNet.for_data"),
    # no names at all
    *("", ".", "..", "psld.", ".psld", "psld..PSLD", " psld.PSLD", "psld.PSLD\n", "psld.networks.UNet()"),
    *("psld/networks/UNet", "../lying_around", "psld.networks.UNet\x00", "ｐsld.PSLD", "x" * 100_000, "psld." * 20_000),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: repr(name[:50]))
def test_a_name_that_is_not_listed_is_refused_wherever_it_stands(place, model, name):
    """As network, in a network, in its arguments, as process, schedule and data; by loading and by building."""
    config, wicked = config_of(model), {"class_path": name, "init_args": {"command": "touch PWNED", "network": None}}
    around = {"class_path": "psld.networks.Patched", "init_args": {"size": 2, "network": wicked}}
    twice = {"class_path": "psld.networks.Preconditioned", "init_args": {"network": around}}
    time = {"class_path": "psld.networks.UNet", "init_args": {"in_channels": 2, "image_size": 8, "time": wicked}}
    schedule = {"class_path": "psld.VPSDE", "init_args": {"beta": wicked}}
    changes = [{"network": network} for network in (wicked, around, twice)] + [
        {"process": process} for process in (wicked, schedule)
    ]
    for change in changes:
        write(model, config | change)
        with refused(place, UntrustedClassError, "nothing was imported"):
            psld.load(model)
    with refused(place, UntrustedClassError):
        build(time)
    for data in (wicked, {"class_path": "psld.data.FileImages", "init_args": {"files": [wicked], "framing": wicked}}):
        write(model, config | {"data": data})
        with refused(place, REFUSALS):  # what is missing is said as well
            load_data(model)
    write(model, config | {"network": wicked})
    with refused(place, UntrustedClassError):
        load_classifier(model)


def test_a_module_that_lies_around_is_imported_where_it_is_trusted(place, model):
    """So the marks that the tests look for would be there."""
    config = config_of(model)
    config["network"]["class_path"] = "lying_around.Network"
    assert psld.load(write(model, config), trust=True).data_shape == (1, 8, 8)
    assert (place / "PWNED").exists()
    del sys.modules["lying_around"]


# -- configurations ----------------------------------------------------------------------------------------------------

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)
TEXTS: dict[str, tuple[str | bytes, str]] = {
    "nothing": ("", "holds nothing where a mapping"),
    "a list": ("[1, 2]", "holds a list where a mapping"),
    "text": ("process", "holds a str where a mapping"),
    "two documents": ("a: 1\n---\nb: 2\n", "is not YAML: .*another document"),
    "truncated": ("process: {class_path: psld.PSLD, init_args: {", "is not YAML: .* in line 1"),
    "a tab": ("process:\n\tclass_path: psld.PSLD\n", "is not YAML"),
    "control characters": ("process: \x07\n", "is not YAML"),
    "not UTF-8": (b"process: \xff\xfe\n", "is not UTF-8: byte 9 is 0xff"),
    "UTF-16": ("process: 1".encode("utf-16"), "is not UTF-8: byte 0"),
    "ten megabytes": ("# " + "x" * 10_000_000, "is larger than 128 KiB"),
    "ten megabytes of lists": ("a: [" + "[]," * 3_000_000 + "]", "is larger than 128 KiB"),
    "as many lists as there may be": ("a: [" + "[]," * 40_000 + "]", "does not describe a model"),
    "deep lists": ("a: " + "[" * 100_000, "nests more than 64|is not YAML"),
    "deep mappings": ("a: " + "{b: " * 500 + "1" + "}" * 500, "nests more than 64"),
    "deep lines": ("\n".join(" " * depth + "a:" for depth in range(500)), "nests more than 64"),
    "a tag that calls": ("process: !!python/object/apply:os.system ['touch PWNED']\n", "has a tag"),
    "a tag that imports": ("process: !!python/module:lying_around\n", "has a tag"),
    "a tag that names": ("process: !!python/name:os.system\n", "has a tag"),
    "a tag that makes": ("!!python/object/new:lying_around.Network {}\n", "has a tag"),
    "a tag of one's own": ("process: !psld {}\n", "has a tag"),
    "binary": ("process: !!binary aGk=\n", "has a tag"),
    "an alias": ("a: &a 1\nb: *a\n", "line 1 has an anchor or alias"),
    "an alias of itself": ("a: &a [*a]\n", "has an anchor or alias"),
    "an alias bomb": (BOMB, "line 1 has an anchor or alias"),
    "a merge": ("a: {<<: {b: 1}}\n", "has a merge where text or a number is needed"),
    "a name twice": ("process: 1\nprocess: 2\n", "line 2 has the name 'process' again"),
    "a number for a name": ("1: 2\n", "has a name that is no text"),
    "a list for a name": ("[a, b]: 2\n", "has a name that is no text"),
    "NaN": ("jitter: .nan\n", "line 1 has NaN"),
    "a date": ("process: 2020-01-01\n", "has a timestamp"),
    "a long number": (f"seed: {'9' * 10_000}\n", "has a number of 10000 characters"),
    "a long hexadecimal number": (f"seed: 0x{'f' * 10_000}\n", "has a number of 10002 characters"),
    "hours, minutes and more": (f"seed: {'1' + ':10' * 10_000}\n", "has a number of 30001 characters"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_no_configuration_is_refused(place, model, name):
    text, message = TEXTS[name]
    (model / "config.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    for read in (psld.load, load_classifier):
        with refused(place, ValueError, message) as error:
            read(model)
    assert str(model / "config.yaml") in str(error.value)
    with refused(place, ValueError):
        load_data(model)


def nested(depth: int) -> dict:
    config: dict = {"class_path": "psld.networks.MLP", "init_args": {"variables": 2, "dimension": 1}}
    for _ in range(depth):
        config = {"class_path": "psld.networks.Patched", "init_args": {"network": config}}
    return config


CHANGES: dict[str, tuple[dict, str]] = {
    "no process": ({"process": None}, "must say process and network"),
    "a list of networks": ({"network": [1]}, "must say process and network"),
    "a name that is a number": ({"network": {"class_path": 7}}, "an object is written"),
    "a name that is a list": ({"network": {"class_path": ["psld.networks.UNet"]}}, "an object is written"),
    "a name that is a mapping": ({"network": {"class_path": {"class_path": "os.system"}}}, "an object is written"),
    "arguments that are a list": ({"network": {"class_path": "psld.networks.UNet", "init_args": [8]}}, "is written"),
    "arguments that are text": ({"network": {"class_path": "psld.networks.UNet", "init_args": "x"}}, "is written"),
    "an argument of Python": (
        {"network": {"class_path": "psld.networks.UNet", "init_args": {"__class__": 1}}},
        "has no argument '__class__'",
    ),
    "a third key": ({"network": {"class_path": "psld.networks.UNet", "call": "os.system"}}, "an object is written"),
    "a network for a process": ({"process": nested(0)}, "a forward process is needed"),
    "a process for a network": ({"network": {"class_path": "psld.PSLD"}}, "a torch.nn.Module is needed"),
    "data for a network": ({"network": {"class_path": "psld.data.Digits"}}, "a torch.nn.Module is needed"),
    "text for a network": (
        {"network": {"class_path": "psld.networks.Patched", "init_args": {"network": "x"}}},
        "network must be a Module: got 'x'",
    ),
    "thirty networks in one another": ({"network": nested(29)}, "of another network"),
    "forty of them": ({"network": nested(40)}, "nests more than 64"),
    "a shape of text": ({"image_shape": "x"}, "image_shape"),
    "a negative shape": ({"image_shape": [1, -8, 8]}, "image_shape"),
    "a huge shape": ({"image_shape": [3, 10**9, 10**9]}, "no image has over"),
    "an unknown prediction": ({"predicts": "os.system"}, "predicts must be one of"),
    "a list of predictions": ({"predicts": ["eps"]}, "predicts must be one of"),
    "another matching": ({"matching": {"a": 1}}, "matching must be one of"),
    "a negative jitter": ({"jitter": -1.0}, "jitter a number"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_configuration_of_the_wrong_kind_is_refused(place, model, name):
    change, message = CHANGES[name]
    write(model, config_of(model) | change)
    with refused(place, REFUSALS, message):
        psld.load(model)


HUGE = 10**9
SIZES = {
    "width": {"width": 10**6},
    "a width beyond any integer": {"width": 10**30},
    "a negative width": {"width": -8},
    "a width of text": {"width": "8" * 1000},
    "channels": {"in_channels": HUGE},
    "blocks": {"blocks": HUGE},
    "narrow blocks": {"blocks": HUGE, "width": 4},
    "multipliers": {"multipliers": [HUGE]},
    "levels": {"multipliers": [1] * 1000},
    "classes": {"classes": 10**12},
}
OTHERS = {
    "DiT width": ("DiT", {"in_channels": 2, "width": 10**6, "heads": 10}),
    "DiT depth": ("DiT", {"in_channels": 2, "width": 8, "heads": 1, "depth": HUGE}),
    "DiT patches": ("DiT", {"in_channels": 2, "width": 8, "heads": 1, "patch_size": HUGE}),
    "MLP depth": ("MLP", {"variables": 2, "dimension": 64, "depth": HUGE, "width": 4}),
    "MLP dimension": ("MLP", {"variables": 2, "dimension": 10**12}),
    "classifier": ("NoiseClassifier", {"classes": 10**12, "in_channels": 2, "image_size": 8, "width": 8}),
    "filter": (
        "NCSNpp",
        {
            "in_channels": 2,
            "image_size": 8,
            "width": 8,
            "resampling": {"class_path": "psld.networks.FIR", "init_args": {"taps": [1.0] * 20_000}},
        },
    ),
}


@pytest.mark.parametrize("name", [*SIZES, *OTHERS])
def test_a_network_far_larger_than_its_weights_is_not_made(place, model, name):
    config = config_of(model)
    if name in SIZES:
        config["network"]["init_args"] |= SIZES[name]
    else:
        kind, arguments = OTHERS[name]
        config["network"] = {"class_path": f"psld.networks.{kind}", "init_args": arguments}
    write(model, config)
    with refused(place):
        psld.load(model)


@pytest.mark.parametrize(
    ("process", "kind"),
    [
        ({"class_path": "psld.HigherOrderLangevin", "init_args": {"order": 10**5}}, ValueError),
        ({"class_path": "psld.HigherOrderLangevin", "init_args": {"order": 10**18}}, ValueError),
        ({"class_path": "psld.PSLD", "init_args": {"gamma": "x"}}, ValueError),
        ({"class_path": "psld.PSLD", "init_args": {"beta": {"a": 1}}}, ValueError),
        (
            {"class_path": "psld.LinearRecipe", "init_args": {"diffusion": "x", "curl": [], "covariance": {}}},
            ValueError,
        ),
        ({"class_path": "psld.LinearRecipe.from_sde", "init_args": {"drift": [[1]], "diffusion": "x"}}, ValueError),
    ],
    ids=lambda value: str(value)[:60] if isinstance(value, dict) else "",
)
def test_a_process_that_cannot_be_is_refused(place, model, process, kind):
    write(model, config_of(model) | {"process": process})
    with refused(place, kind):
        psld.load(model)


def test_what_is_counted_changes_no_number(place, model):
    """The same initial values with and without the bound."""
    from psld.specs import bounded

    config = config_of(model)["network"]
    torch.manual_seed(3)
    with bounded(10**9, 10**6, "too large"):
        counted = build(config).state_dict()
    torch.manual_seed(3)
    assert all(torch.equal(counted[name], value) for name, value in build(config).state_dict().items())


# -- what lies in the place of a file ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "pipe", "device", "loop", "dangling", "secret", "parent"])
@pytest.mark.parametrize("name", ["config.yaml", "model_ema.safetensors", "SHA256SUMS"])
def test_links_pipes_and_devices_in_the_place_of_a_file_are_refused(place, model, name, kind):
    (place / "secret").write_text(SECRET)
    file = model / name
    file.unlink(missing_ok=True)
    {
        "folder": file.mkdir,
        "pipe": lambda: os.mkfifo(file),
        "device": lambda: file.symlink_to("/dev/zero"),
        "loop": lambda: file.symlink_to(file),
        "dangling": lambda: file.symlink_to("../nowhere"),
        "secret": lambda: file.symlink_to(place / "secret"),
        "parent": lambda: file.symlink_to(".."),
    }[kind]()
    if name == "SHA256SUMS" and kind != "secret":  # taken for a folder without hashes
        assert psld.load(model).data_shape == (1, 8, 8)
        return
    with refused(place):
        psld.load(model)


# -- weights -----------------------------------------------------------------------------------------------------------


def safetensors_of(header: object, content: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + content


def entry(shape, start=0, end=4, dtype: object = "F32") -> dict:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}}


WEIGHTS: dict[str, bytes] = {
    "empty": b"",
    "seven bytes": b"1234567",
    "no header": struct.pack("<Q", 100),
    "a huge header": struct.pack("<Q", 2**62) + b"{}",
    "a header of a gigabyte": struct.pack("<Q", 2**30) + b"{}",
    "a negative header": b"\xff" * 8 + b"{}",
    "no JSON": safetensors_of(b"{]"),
    "a list": safetensors_of([1, 2]),
    "deep JSON": safetensors_of(b"[" * 100_000),
    "an unknown dtype": safetensors_of(entry([1], dtype="OBJECT"), b"1234"),
    "a dtype of no array": safetensors_of(entry([1], dtype=7), b"1234"),
    "a negative shape": safetensors_of(entry([-1]), b"1234"),
    "a huge shape": safetensors_of(entry([2**62, 2**62]), b"1234"),
    "a shape that overflows": safetensors_of(entry([2**32, 2**32]), b"1234"),
    "offsets beyond the file": safetensors_of(entry([2**20], 0, 2**22), b"1234"),
    "offsets the other way": safetensors_of(entry([1], 4, 0), b"1234"),
    "negative offsets": safetensors_of(entry([1], -4, 0), b"1234"),
    "tensors over one another": safetensors_of(entry([1]) | {"y": entry([1])["x"]}, b"1234"),
    "content that nobody names": safetensors_of({}, b"1234"),
    "metadata of another kind": safetensors_of({"__metadata__": {"shapes": 1}} | entry([1]), b"1234"),
    "another network": safetensors_of(entry([1]), b"1234"),
    "a pickle": pickle.dumps({"x": 1}),
    "a zip": b"PK\x03\x04" + b"\x00" * 100,
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_that_are_no_safetensors_are_refused(place, model, name):
    (model / "model_ema.safetensors").write_bytes(WEIGHTS[name])
    with refused(place, (CheckpointError, OutsizedError), "model_ema.safetensors|config.yaml"):
        psld.load(model)


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.float16, torch.bool, torch.uint8])
def test_weights_of_another_type_are_refused(place, model, dtype):
    file = model / "model_ema.safetensors"
    state = {name: value.to(dtype) for name, value in safetensors.torch.load_file(file).items()}
    safetensors.torch.save_file(state, file)
    with refused(place, CheckpointError, "of another network"):
        psld.load(model)


@pytest.mark.parametrize("cut", [0, 1, 7, 8, 9, 100, 1000, -1000, -1])
def test_truncated_weights_are_refused(place, model, cut):
    file = model / "model_ema.safetensors"
    file.write_bytes(file.read_bytes()[:cut])
    with refused(place, CheckpointError, "truncated or corrupt|another network"):
        psld.load(model)


@pytest.mark.parametrize("count", [2, 9_999, 99_999])
def test_slices_that_are_not_there_are_refused(place, model, count):
    (model / "model_ema.safetensors").rename(model / f"model_ema-00001-of-{count:05d}.safetensors")
    with refused(place, (CheckpointError, FileNotFoundError), "is missing" if count < 10_000 else "no checkpoint in"):
        psld.load(model)


@pytest.mark.parametrize("shapes", ["{", "[]", "{}", '{"x": 1}', '{"x": [1], "x": [2]}', '{"y": [9]}', "[" * 5000])
def test_slices_of_nothing_are_refused(place, model, shapes):
    for part in (1, 2):
        file = model / f"model_ema-{part:05d}-of-00002.safetensors"
        safetensors.torch.save_file({"x": torch.zeros(part, 2)}, file, {"shapes": shapes})
    (model / "model_ema.safetensors").unlink()
    with refused(place, CheckpointError, "whole tensors|another network"):
        psld.load(model)


class Attack:
    def __reduce__(self):
        return os.system, ("touch PWNED",)


class Import:
    def __reduce__(self):
        return __import__, ("lying_around",)


def torch_file(content: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def squeezed(content: bytes) -> bytes:
    """The same members, compressed."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))
    return buffer.getvalue()


STATES = {
    "code": torch_file({"step": 1, "bad": Attack()}),
    "an import": torch_file({"step": 1, "bad": Import()}),
    "a bare pickle": pickle.dumps(Attack()),
    "a compressed archive": squeezed(torch_file({"step": 1, "x": torch.zeros(2**24)})),
    "truncated": torch_file({"step": 1, "x": torch.zeros(100)})[:-200],
    "a list": torch_file([1]),
    "no step": torch_file({"step": "x"}),
    "empty": b"",
    "text": b"step: 1",
}


@pytest.mark.parametrize("name", STATES)
def test_a_state_that_holds_code_or_nothing_is_refused(place, model, name):
    file = model / "model_ema.safetensors"
    (model / "model.safetensors").write_bytes(file.read_bytes())
    (model / "state.pt").write_bytes(STATES[name])
    with pytest.warns(UserWarning, match="has no SHA256SUMS"), refused(place, CheckpointError, "state.pt"):
        read_checkpoint(model)


@pytest.mark.parametrize("name", STATES)
def test_an_official_checkpoint_that_holds_code_or_nothing_is_refused(place, name):
    (place / "official.ckpt").write_bytes(STATES[name])
    with refused(place, CheckpointError, "official.ckpt"):
        load_official(place / "official.ckpt", "cifar10-sota-0.01")


# -- data --------------------------------------------------------------------------------------------------------------


def data_of(model: Path, kind: str, **arguments: object) -> Path:
    return write(model, config_of(model) | {"data": {"class_path": f"psld.data.{kind}", "init_args": arguments}})


@pytest.mark.parametrize("source", ["ylecun/mnist", "mnist", "someone/no-such-data-set"])
def test_data_on_the_hub_are_not_fetched(place, model, source):
    data_of(model, "HuggingFace", source=source, image_size=8)
    with refused(place, UntrustedSourceError, "not on this machine, so they would be fetched"):
        load_data(model)


@pytest.mark.parametrize(
    "source", ["https://example.com/x.parquet", "s3://bucket/x", "hf://datasets/x", "file:///etc", "\\\\host\\share"]
)
def test_data_at_an_address_are_not_fetched(place, model, source):
    for kind, name in (("HuggingFace", "source"), ("ImageFolder", "root"), ("MNIST", "root"), ("ArrayFile", "file")):
        size = {} if kind in ("MNIST", "ArrayFile") else {"image_size": 8}
        data_of(model, kind, **{name: source}, **size)
        with refused(place):
            load_data(model)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("Images", {"images": [[1.0]]}),
        ("Images", {"images": "x"}),
        ("PixelArray", {"array": [[[[1]]]]}),
        ("LFW", {"image_size": HUGE}),
        ("Patches", {"image_size": HUGE}),
        ("Patches", {"count": 10**15}),
        ("Digits", {"split": "../../etc"}),
        ("ArrayFile", {"file": 7}),
        ("ImageFolder", {"root": "/dev/zero", "image_size": 8}),
        ("CIFAR10", {"root": "/dev/zero"}),
        ("FileImages", {"files": ["/dev/zero"], "channels": 1, "framing": 8}),
        ("HuggingFace", {"source": ["x"], "image_size": 8}),
    ],
    ids=str,
)
def test_data_that_cannot_be_are_refused(place, model, kind, arguments):
    data_of(model, kind, **arguments)
    with refused(place):
        load_data(model)


def tar_of(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


BATCH = "cifar-10-batches-py/test_batch"
TARS = {
    "a name that leads out": lambda: tar_of((member("../PWNED"), b"x"), (member("../../etc/PWNED"), b"x")),
    "an absolute name": lambda: tar_of((member("/tmp/PWNED"), b"x")),
    "a link": lambda: tar_of((member(BATCH, tarfile.SYMTYPE, "/etc/passwd"), b"")),
    "a hard link": lambda: tar_of((member(BATCH, tarfile.LNKTYPE, "../../secret"), b"")),
    "a device": lambda: tar_of((member(BATCH, tarfile.CHRTYPE), b"")),
    "a batch that runs code": lambda: tar_of((member(BATCH), pickle.dumps(Attack()))),
    "a batch that imports": lambda: tar_of((member(BATCH), pickle.dumps(Import()))),
    "a gigabyte of zeros": lambda: gzip.compress(tar_of_zeros(2**30), 1),
    "no archive": lambda: b"x" * 1000,
    "a cut archive": lambda: tar_of((member(BATCH), os.urandom(10_000)))[:-500],
}


def tar_of_zeros(size: int) -> bytes:
    info = member(BATCH)
    info.size = size
    return info.tobuf() + bytes(size)


@pytest.mark.parametrize("name", TARS)
def test_an_archive_that_leads_out_or_explodes_is_refused(place, model, name):
    content = TARS[name]()
    (place / "cifar-10-python.tar.gz").write_bytes(content)
    del content
    data_of(model, "CIFAR10", root=str(place), split="test")
    with refused(place):
        load_data(model)
    assert not Path("/tmp/PWNED").exists()


def npy(shape: tuple, dtype: str = "|u1", content: bytes = b"", version: tuple = (1, 0)) -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(text)) + text + content


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return buffer.getvalue()


def objects() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, images=np.array([Attack()], dtype=object))
    return buffer.getvalue()


def flipped(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 255]) + content[place + 1 :]


NPZ = {
    "objects": objects,
    "a huge header": lambda: npz(images=npy((10**6, 10**6, 3))),
    "a header that overflows": lambda: npz(images=npy((2**40, 2**40, 2**40))),
    "a negative shape": lambda: npz(images=npy((-1, 8, 8))),
    "less than the header says": lambda: npz(images=npy((10, 8, 8), content=bytes(10))),
    "more than the header says": lambda: npz(images=npy((1, 8, 8), content=bytes(10**8))),
    "code for a header": lambda: npz(images=b"\x93NUMPY\x01\x00\x20\x00" + b"__import__('lying_around')".ljust(32)),
    "another version": lambda: npz(images=npy((1, 8, 8), content=bytes(64), version=(9, 0))),
    "numbers of another kind": lambda: npz(images=npy((1, 8, 8), "<f8", bytes(512))),
    "no array": lambda: npz(images=b"hello"),
    "an empty array": lambda: npz(images=b""),
    "an empty archive": lambda: npz(),
    "a cut archive": lambda: npz(images=npy((1, 8, 8), content=bytes(64)))[:-30],
    "a changed archive": lambda: flipped(npz(images=npy((4, 8, 8), content=os.urandom(256))), 100),
    "a pickle": lambda: pickle.dumps(Attack()),
    "a bare array": lambda: npy((1, 8, 8), content=bytes(64)),
    "names that lead out": lambda: npz(**{"../../PWNED": b"x", "/tmp/PWNED": b"x"}),
}


@pytest.mark.parametrize("name", NPZ)
def test_arrays_that_run_code_or_explode_are_refused(place, model, name):
    (place / "images.npz").write_bytes(NPZ[name]())
    data_of(model, "ArrayFile", file=str(place / "images.npz"))
    with refused(place, ValueError, "images.npz"):
        load_data(model)


def test_a_gigabyte_of_zeros_is_no_photographs(place, model):
    """In a megabyte of file, and with a header that is true."""
    with (
        zipfile.ZipFile(place / "images.npz", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("images.npy", "w", force_zip64=True) as stream,
    ):
        stream.write(npy((17 * 2**20, 8, 8)))
        for _ in range(17 * 2**2):
            stream.write(bytes(2**24))
    data_of(model, "ArrayFile", file=str(place / "images.npz"))
    with refused(place, ValueError, "unpacks to 1.1 GB"):
        load_data(model)


IDX = {
    "a gigabyte behind a small header": lambda: gzip.compress(idx(1, 28, 28) + bytes(2**29), 1),
    "a header of more than there is": lambda: gzip.compress(idx(2**32 - 1, 2**32 - 1, 2**32 - 1)),
    "a plain header of more than there is": lambda: idx(2**31, 28, 28),
    "a gigabyte without a header": lambda: gzip.compress(bytes(2**29), 1),
    "a cut header": lambda: gzip.compress(idx(1, 28, 28)[:9]),
    "a cut stream": lambda: gzip.compress(idx(9, 28, 28) + os.urandom(9 * 784))[:-100],
}


def idx(*shape: int) -> bytes:
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)


@pytest.mark.parametrize("name", IDX)
def test_idx_files_that_explode_are_refused(place, model, name):
    (place / "train-images-idx3-ubyte.gz").write_bytes(IDX[name]())
    (place / "train-labels-idx1-ubyte").write_bytes(idx(1) + b"\x00")
    data_of(model, "MNIST", root=str(place))
    with refused(place, ValueError, "train-images"):
        load_data(model)


def png(width: int, height: int, *chunks: tuple[bytes, bytes]) -> bytes:
    parts = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(own)) + kind + own + struct.pack(">I", zlib.crc32(kind + own)) for kind, own in parts
    )


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(PWNED) (w) file closefile\nshowpage\n%%EOF\n"
PICTURES = {
    "a program in PostScript": EPS,
    "a million pixels wide and high": png(10**6, 10**6),
    "two thousand million": png(2**31 - 1, 2**31 - 1),
    "larger than it should be": png(4000, 4000),
    "text that unpacks to a gigabyte": png(8, 8, (b"zTXt", b"a\x00\x00" + zlib.compress(bytes(2**28), 1))),
    "nothing": b"",
    "text": b"hello",
    "a cut header": png(8, 8)[:20],
    "no pixels": png(8, 8),
    "a vector picture": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_that_run_programs_or_explode_are_refused(place, model, name):
    (place / "images").mkdir()
    (place / "images" / "0.png").write_bytes(PICTURES[name])
    data_of(model, "ImageFolder", root=str(place / "images"), image_size=8, channels=1)
    with refused(place, ValueError, "0.png"):
        load_data(model)[0]


# -- JSON and CSV ------------------------------------------------------------------------------------------------------

JSON: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "is empty"),
    "truncated": ('{"times": [1.0,', "is not JSON, or truncated: .* in line 1"),
    "a list": ("[1]", "holds a list where a mapping"),
    "a number": ("1", "holds a int where a mapping"),
    "null": ("null", "holds nothing where a mapping"),
    "deep": ("[" * 100_000, "nests more than 64"),
    "rather deep": ('{"a": ' * 100 + "1" + "}" * 100, "nests more than 64"),
    "a name twice": ('{"times": [1], "times": [2]}', "has the name 'times' twice"),
    "NaN": ('{"times": [NaN]}', "has NaN"),
    "a long number": (f'{{"times": [{"9" * 5000}]}}', "has a number of 5000 characters"),
    "not UTF-8": (b'{"\xff": 1}', "is not UTF-8"),
    "twenty megabytes": ('{"a": "' + "x" * 20_000_000 + '"}', "is larger than 16384 KiB"),
    "a word": ("{times: 1}", "is not JSON"),
}


@pytest.mark.parametrize("name", JSON)
def test_json_of_the_wrong_kind_is_refused(place, name):
    text, message = JSON[name]
    file = place / "grid.json"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(place, UnreadableFileError, f"grid.json .*{message}"):
        read_json(file)
    with refused(place, ValueError, "grid.json"):
        Grid.load(file)


def test_json_that_was_written_is_read(place):
    content = {"a": [1, 2.5, None, True, "ü"], "b": {"c": [[[]]]}}
    (place / "a.json").write_text(json.dumps(content))
    assert read_json(place / "a.json") == content


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("file", ["unet/config.json", "scheduler/scheduler_config.json"])
def test_a_folder_of_diffusers_is_read_no_less_carefully(place, name, file):
    for part in ("unet/config.json", "scheduler/scheduler_config.json"):
        (place / "pipeline" / part).parent.mkdir(parents=True, exist_ok=True)
        (place / "pipeline" / part).write_text("{}")
    text, _ = JSON[name]
    (place / "pipeline" / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    with refused(place, ValueError, Path(file).name):
        psld.load(place / "pipeline")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a,b\n1\n", "has 1 cells in row 2 and 2 columns"),
        (b"a,b\n1,2,3\n", "has 3 cells in row 2"),
        (b"a,a\n1,2\n", "names a column twice"),
        (b'a,b\n"1,2\n', "is not CSV"),
        (b"a,b\n" + b"1" * 200_000 + b",2\n", "is not CSV: field larger"),
        (b"a,b\n\xff,2\n", "is not UTF-8"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_a_table_of_the_wrong_kind_is_refused(place, text, message):
    (place / "metrics.csv").write_bytes(text)
    with refused(place, UnreadableFileError, f"metrics.csv .*{message}"):
        read_table(place / "metrics.csv")


def test_a_torn_row_is_left_out_where_that_is_expected(place):
    (place / "metrics.csv").write_text("step,loss\n1,0.5\n2,0.25\n3,0.1")
    assert read_table(place / "metrics.csv", torn=True) == [
        {"step": "1", "loss": "0.5"},
        {"step": "2", "loss": "0.25"},
    ]


def test_one_sentence_says_why_a_thing_has_no_description(place):
    """The error of `psld.specs` for things that a configuration could not name is one of these, too."""
    assert issubclass(SpecError, ValueError) and issubclass(UntrustedClassError, ValueError)
