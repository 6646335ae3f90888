"""Files of a few kilobytes that claim to be, or unpack to, gigabytes: refused before there is memory for them.

They are read in a process of its own, which may have a gigabyte more than it has after its imports.
"""

import gzip
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

MEMORY, SECONDS = 1_000_000_000, 10.0

READER = """
import json, resource, sys, time
from pathlib import Path
from psld import Grid
from psld.cli.recipe_report import read_matrices
from psld.comparison import read_results
from psld.data import CIFAR10, MNIST, ArrayFile
from psld.evaluation.features.digit_classifier import DigitClassifier
from psld.evaluation.features.weight_files import load_tensors
from psld.evaluation.statistics import ImageStatistics
from psld.files.arrays import read_array
from psld.jobs import Arrays, Pictures
from psld.inverse.masks import load_mask
from psld.pretrained.official import read_official

READ = {
    "stats.npz": ImageStatistics.load,
    "images.npz": lambda file: ArrayFile(file, "images"),
    "samples.npz": lambda file: Arrays(file.parent).first(1),
    "flow.npy": read_array,
    "t10k-images-idx3-ubyte.gz": lambda file: MNIST(file.parent, "test"),
    "cifar-10-python.tar.gz": lambda file: CIFAR10(file.parent, "test"),
    "test_batch": lambda file: CIFAR10(file.parent, "test"),
    "grid.json": Grid.load,
    "rows.json": read_results,
    "recipe.yaml": read_matrices,
    "w.safetensors": lambda file: load_tensors(DigitClassifier(), file),
    "official.ckpt": read_official,
    "mask.png": lambda file: load_mask(file, (1, 8, 8)),
    "000000.png": lambda file: Pictures(file.parent.parent).first(1),
}
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + int(sys.argv[2]), used + int(sys.argv[2])))
for file in sorted(path for path in Path(sys.argv[1]).rglob("*") if path.name in READ):
    start = time.perf_counter()
    try:
        READ[file.name](file)
        kind, said = "", "it was read"
    except Exception as error:
        kind, said = f"{type(error).__module__}.{type(error).__name__}", str(error)
    folder = file.relative_to(sys.argv[1]).parts[0]
    print(json.dumps([folder, str(file), kind, said, time.perf_counter() - start]), flush=True)
"""


def npy(shape: tuple[int, ...], dtype: str = "|u1") -> bytes:
    text = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


def npz(name: str, header: bytes, zeros: int = 0) -> bytes:
    """An archive with one array, whose header is followed by so many zeros."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for known in ("count", "mean", "covariance", "features", "about", "images", "seeds"):
            with archive.open(f"{known}.npy", "w", force_zip64=zeros > 0) as member:
                if known != name:
                    np.save(member, np.zeros(1))
                    continue
                member.write(header)
                for start in range(0, zeros, 2**24):
                    member.write(bytes(min(2**24, zeros - start)))
    return buffer.getvalue()


def lying(content: bytes) -> bytes:
    """The same archive, whose directory says that every member unpacks to 4 GB."""
    place, changed = content.find(b"PK\x01\x02"), bytearray(content)
    while place >= 0:
        changed[place + 24 : place + 28] = struct.pack("<I", 2**32 - 2)
        place = changed.find(b"PK\x01\x02", place + 4)
    return bytes(changed)


def zeros_gz(head: bytes, gigabytes: int) -> bytes:
    """What unpacks to a header and zeros; a gzip file may have several streams, so one of zeros is enough."""
    return gzip.compress(head) + 64 * gigabytes * gzip.compress(bytes(2**24), 1)


def idx(*shape: int) -> bytes:
    return bytes((0, 0, 8, len(shape))) + struct.pack(f">{len(shape)}I", *shape)


def png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    pixels = zlib.compress(bytes(2**20), 9)
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def many_aliases() -> bytes:
    lines = ["drift: &a0 [[0, 2], [-0.5, -2]]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    return "\n".join(lines).encode()


def safetensors(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


def large_memo() -> bytes:
    """A pickle that remembers an object under number 2³¹ − 1, for which Python's reader makes room."""
    return b"\x80\x02}r\xff\xff\xff\x7f."


def old_torch() -> bytes:
    import torch

    buffer = io.BytesIO()
    torch.save({"state_dict": {"score_fn.x": torch.zeros(3)}}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue().replace(b"K\x03", b"J\xff\xff\xff\x7f", 1)


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "statistics with 10^12 elements": ("stats.npz", lambda: npz("mean", npy((10**12,), "<f8"))),
    "statistics with 10^30 elements": ("stats.npz", lambda: npz("mean", npy((10**10,) * 3, "<f8"))),
    "statistics that lie": ("stats.npz", lambda: lying(npz("mean", npy((2**29 - 20,), "<f8")))),
    "a long text": ("stats.npz", lambda: lying(npz("about", npy((), f"<U{2**30 - 40}")))),
    "images with 10^12 elements": ("images.npz", lambda: npz("images", npy((10**6, 10**6, 1)))),
    "images of zeros": ("images.npz", lambda: npz("images", npy((3 * 2**22, 8, 8)), 3 * 2**28)),
    "samples that lie": ("samples.npz", lambda: lying(npz("images", npy((2**26 - 2, 8, 8, 1))))),
    "solutions with 10^12 elements": ("flow.npy", lambda: npy((10**12,), "<f8") + bytes(100)),
    "a header that nests": ("flow.npy", lambda: b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535),
    "four gigabytes of IDX": ("t10k-images-idx3-ubyte.gz", lambda: zeros_gz(idx(2**22, 32, 32), 4)),
    "four gigabytes behind an IDX": ("t10k-images-idx3-ubyte.gz", lambda: zeros_gz(idx(3, 28, 28), 4)),
    "a gigabyte of IDX": ("t10k-images-idx3-ubyte.gz", lambda: zeros_gz(idx(2**20, 32, 32), 1)),
    "a gigabyte of CIFAR": ("cifar-10-python.tar.gz", lambda: zeros_gz(b"", 1)),
    "a large memo": ("test_batch", large_memo),
    "deep JSON": ("grid.json", lambda: b'{"times": ' + b"[" * 10**6),
    "deep objects": ("grid.json", lambda: b'{"times": ' * 10**5),
    "deep rows": ("rows.json", lambda: b"[" * 5 * 10**6 + b"]" * 5 * 10**6),
    "a long number": ("rows.json", lambda: b'[{"nfe": ' + b"9" * 10**6 + b"}]"),
    "many aliases": ("recipe.yaml", many_aliases),
    "deep YAML": ("recipe.yaml", lambda: b"drift: " + b"[" * 10**5),
    "a tensor with 10^12 elements": (
        "w.safetensors",
        lambda: safetensors(b'{"x": {"dtype": "F32", "shape": [1000000000000], "data_offsets": [0, 4000000000000]}}'),
    ),
    "a safetensors header of zeros": ("w.safetensors", lambda: struct.pack("<Q", 2**40) + bytes(100)),
    "an old checkpoint with 2^31 elements": ("official.ckpt", old_torch),
    "a large mask": ("mask.png", lambda: png(30_000, 30_000)),
    "a huge mask": ("mask.png", lambda: png(2**31 - 1, 2**31 - 1)),
    "a large picture": ("images/000000.png", lambda: png(30_000, 30_000)),
}


@pytest.fixture(scope="module")
def refusals(tmp_path_factory) -> dict[str, tuple[str, str, str, float]]:
    """By name of the bomb: file, class and text of the error, and seconds."""
    folder = tmp_path_factory.mktemp("bombs")
    for number, (name, make) in enumerate(BOMBS.values()):
        file = folder / str(number) / name
        file.parent.mkdir(parents=True)
        file.write_bytes(make())
        if name.startswith("t10k"):
            (file.parent / "t10k-labels-idx1-ubyte").write_bytes(idx(3) + bytes(3))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", READER, str(folder), str(MEMORY)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    names = list(BOMBS)
    return {names[int(number)]: tuple(rest) for number, *rest in found}


@pytest.mark.parametrize("name", BOMBS)
def test_a_file_that_explodes_is_refused(refusals, name):
    file, kind, said, seconds = refusals[name]
    assert kind.startswith("psld.") and kind.endswith(("UnreadableFileError", "CheckpointError")), (kind, said)
    assert Path(file).name in said and "\n" not in said and len(said) < 700
    assert seconds < SECONDS
