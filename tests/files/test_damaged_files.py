"""Every kind of file that psld reads, damaged: it is refused in one sentence that names it, or reads to what it held.

Each kind is written by psld (or, of data of others, in their format) and read by the function that every command reads
it with. Where no checksum covers a file, a flipped bit can turn it into another whole one: a digit of a JSON file is
another digit. Such a file must hold what has the same form: types, shapes, columns.
"""

import math
import random
import resource
import shutil
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import safetensors.torch
import torch
from onnx import TensorProto, helper, numpy_helper

import psld
from psld import PSLD, Grid, ScoreModel
from psld.cli.recipe_report import read_matrices, read_process
from psld.comparison import SweepResult, read_results, write_results
from psld.comparison.references import _kept_solutions
from psld.data import CIFAR10, MNIST, ArrayFile, CelebA, PixelArray, save_arrays
from psld.evaluation.features import ExternalFeatures
from psld.evaluation.features.weight_files import load_tensors
from psld.evaluation.metrics.moments import Moments
from psld.evaluation.statistics import ImageStatistics, Measurement
from psld.files import claim_folder, write_json
from psld.inverse.masks import load_mask
from psld.jobs import Arrays, Pictures
from psld.jobs.evaluating import read_result
from psld.networks import UNet
from psld.pretrained.official import read_official
from psld.report.training_log import read_loss
from psld.runs import save
from psld.training import CheckpointError
from psld.training.checkpoint import Checkpoint
from psld.training.logs import MetricsFile, MetricsRow
from psld.training.reading import read_checkpoint
from psld.training.slices import LAYOUT, read_tensors
from psld.training.writing import write_checkpoint
from small_data import cifar10_contents, random_bytes, tar_gz, write_mnist
from small_data import save as save_picture

FLIPS, FAST, SECONDS, BYTES = 40, 10, 10.0, 1e9


@dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
        write: writes a whole one, and whatever lies beside it, into a folder.
        file: its name there.
        read: what it holds, from the folder, by the public interface.
        sealed: a checksum covers all that it holds, so nothing else is ever read from it.
        lines: what ends with a whole line is a whole file.
    """

    write: Callable[[Path], object]
    file: str
    read: Callable[[Path], object]
    sealed: bool = False
    lines: bool = False


# -- models ------------------------------------------------------------------------------------------------------------


def small_unet() -> UNet:
    torch.manual_seed(0)
    return UNet(2, 2, 8, width=4, multipliers=(1,), blocks=1, attention_resolutions=())


def write_model(folder: Path, sums: bool = True) -> None:
    made = save(ScoreModel(small_unet(), PSLD(), data_shape=(1, 8, 8)), folder / "model")
    if not sums:
        (made / "SHA256SUMS").unlink()


def loaded(folder: Path) -> object:
    model = psld.load(folder / "model")
    shape, network = model.known_shape(), cast(torch.nn.Module, model.network)
    return repr(model.process), list(shape), dict(network.state_dict())


def write_run(folder: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2, dtype=torch.int64)}
    state = {"optimizer": {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}, "seed": 3}
    checkpoint = write_checkpoint(folder, Checkpoint(7, tensors, tensors, state, "process: 1\n"), keep=1)
    (checkpoint / "SHA256SUMS").unlink()


def of_run(folder: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the missing SHA256SUMS
        read = read_checkpoint(folder / "checkpoints" / "step-00000007")
    return read.step, read.state, read.weights, read.averages


def write_slices(folder: Path) -> None:
    for number in (1, 2):
        file = folder / f"model-{number:05d}-of-00002.safetensors"
        about = {"step": "1", "layout": LAYOUT, "shapes": '{"x": [4, 3]}'}
        safetensors.torch.save_file({"x": torch.full((2, 3), float(number))}, file, about)


def of_slices(folder: Path) -> object:
    return read_tensors([folder / f"model-{number:05d}-of-00002.safetensors" for number in (1, 2)])


def write_official(folder: Path) -> None:
    state = {f"{kind}.weight": torch.arange(8.0) for kind in ("score_fn", "ema_score_fn")}
    torch.save({"epoch": 3, "state_dict": state}, folder / "official.ckpt")


class Linear(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x.flatten(1))


def linear() -> Linear:
    torch.manual_seed(0)
    return Linear()


def of_weights(file: Path) -> object:
    network = Linear()
    load_tensors(network, file)
    return dict(network.state_dict())


def write_torchscript(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated
        torch.jit.script(linear()).save(str(folder / "features.pt"))


def write_onnx(folder: Path) -> None:
    weights = [numpy_helper.from_array(random_bytes(16, 3).astype(np.float32), "matrix")]
    nodes = [
        helper.make_node("Flatten", ["images"], ["flat"]),
        helper.make_node("MatMul", ["flat", "matrix"], ["features"]),
    ]
    outputs = [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", 3])]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 4, 4])
    graph = helper.make_graph(nodes, "features", [images], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (folder / "features.onnx").write_bytes(model.SerializeToString())


def of_program(file: Path) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = ExternalFeatures(file, trust=True).network
    return dict(network.state_dict())  # not called: what a changed program does is up to it


# -- results -----------------------------------------------------------------------------------------------------------


def write_statistics(folder: Path) -> None:
    features = torch.linspace(0, 1, 12, dtype=torch.float64).view(4, 3).sin()
    measurement = Measurement("digits classifier", "8 bits", (1, 8, 8))
    ImageStatistics(measurement, Moments.of(features), features.float(), (2.0, 0.5), 0.75, "four images").save(
        folder / "stats.npz"
    )


def of_statistics(folder: Path) -> object:
    read = ImageStatistics.load(folder / "stats.npz")
    moments = (read.moments.count, read.moments.mean, read.moments.scatter)
    return read.measurement, moments, read.features, read.inception_score, read.confident, read.source


def write_arrays(folder: Path) -> None:
    store = Arrays(folder)
    store.add(range(4), torch.linspace(-1, 1, 4 * 3 * 16).view(4, 3, 4, 4))
    store.finish(0)
    store.add(range(4, 6), torch.zeros(2, 3, 4, 4))


def write_pictures(folder: Path) -> None:
    Pictures(folder).add(range(2), torch.linspace(-1, 1, 2 * 3 * 16).view(2, 3, 4, 4))


ROW = SweepResult("PSLD()", "paper", "SSCS()", 10, 9.5, 1.25, 0.5, samples=7, seconds=2.5, spec={"a": 1}, key="ab12")
ROWS = [ROW, replace(ROW, sampler="Heun()", frechet=math.inf, key="cd34")]
RESULT = {
    "distance": "FID",
    "figures": {"FID": 3.5, "IS": {"mean": 2.5, "std": 0.25}},
    "extractor": "Inception",
    "convention": "8 bits",
    "samples": {"images": 10, "source": "a model"},
    "data": {"images": 20, "source": "digits"},
    "nfe": 10.5,
    "seconds": 1.5,
}
SETTINGS = {"format": "png", "seed": 3, "sampler": [1.0, 0.5]}


def claimed(folder: Path) -> object:
    claim_folder(folder, "sampling.json", SETTINGS, "samples")
    return (folder / "sampling.json").read_text()


def write_log(folder: Path) -> None:
    log = MetricsFile(folder / "metrics.csv", 0)
    for step in (10, 20, 30):
        log.write(MetricsRow(step, 16 * step, 0.5 / step, 1.5, 1e-3, 100.5, step / 2))
    log.close()


def resumed(folder: Path) -> object:
    MetricsFile(folder / "metrics.csv", 30).close()
    return (folder / "metrics.csv").read_text().splitlines()[0]


# -- data --------------------------------------------------------------------------------------------------------------


def write_digits(folder: Path, packed: bool) -> None:
    write_mnist(folder, "t10k", random_bytes(3, 28, 28), np.arange(3), packed)


def of_digits(folder: Path) -> object:
    data = MNIST(folder, "test")
    return data.batch(range(3)), data.labels


def write_cifar(folder: Path, packed: bool) -> None:
    contents = cifar10_contents(size=2)[0]
    if packed:
        tar_gz(folder / "cifar-10-python.tar.gz", contents)
    else:
        (folder / "test_batch").write_bytes(contents["cifar-10-batches-py/test_batch"])


def of_cifar(folder: Path) -> object:
    data = CIFAR10(folder, "test")
    return data.batch(range(2)), data.labels


def write_array_file(folder: Path) -> None:
    pixels = torch.from_numpy(random_bytes(3, 3, 4, 4))
    save_arrays(PixelArray(pixels, labels=[0, 2, 1]), folder / "images.npz")


def of_array_file(folder: Path) -> object:
    data = ArrayFile(folder / "images.npz", "images", "labels")
    return data.batch(range(3)), data.labels


def write_faces(folder: Path) -> None:
    for name in ("000001.png", "000002.png", "000003.png"):
        save_picture(folder / "img_align_celeba" / name, random_bytes(218, 178, 3))
    lines = "000001.png 0\n000002.png 1\n000003.png 0\n"
    (folder / "list_eval_partition.txt").write_text(lines)


def write_mask(folder: Path) -> None:
    mask = np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    save_picture(folder / "mask.png", mask)


def text(name: str, content: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(content)


KINDS: dict[str, Kind] = {
    "config.yaml": Kind(lambda f: write_model(f, False), "model/config.yaml", loaded),
    "weights": Kind(lambda f: write_model(f, False), "model/model_ema.safetensors", loaded),
    "hashed weights": Kind(write_model, "model/model_ema.safetensors", loaded, sealed=True),
    "hashed config.yaml": Kind(write_model, "model/config.yaml", loaded, sealed=True),
    "SHA256SUMS": Kind(write_model, "model/SHA256SUMS", loaded, sealed=True),
    "state.pt": Kind(write_run, "checkpoints/step-00000007/state.pt", of_run, sealed=True),
    "checkpointed weights": Kind(write_run, "checkpoints/step-00000007/model.safetensors", of_run),
    "slice": Kind(write_slices, "model-00002-of-00002.safetensors", of_slices),
    "official checkpoint": Kind(write_official, "official.ckpt", lambda f: read_official(f / "official.ckpt"), True),
    "feature weights": Kind(
        lambda f: safetensors.torch.save_file(linear().state_dict(), f / "w.safetensors"),
        "w.safetensors",
        lambda f: of_weights(f / "w.safetensors"),
    ),
    "feature weights of PyTorch": Kind(
        lambda f: torch.save(linear().state_dict(), f / "w.pth"), "w.pth", lambda f: of_weights(f / "w.pth"), True
    ),
    "old weights of PyTorch": Kind(
        lambda f: torch.save(linear().state_dict(), f / "w.pth", _use_new_zipfile_serialization=False),
        "w.pth",
        lambda f: of_weights(f / "w.pth"),
    ),
    "TorchScript": Kind(write_torchscript, "features.pt", lambda f: of_program(f / "features.pt"), True),
    "ONNX": Kind(write_onnx, "features.onnx", lambda f: of_program(f / "features.onnx")),
    "statistics": Kind(write_statistics, "stats.npz", of_statistics, sealed=True),
    "samples.npz": Kind(write_arrays, "samples.npz", lambda f: Arrays(f).first(4), sealed=True),
    "part of samples": Kind(write_arrays, "parts/000004.npz", lambda f: Arrays(f).present(), sealed=True),
    "picture": Kind(write_pictures, "images/000001.png", lambda f: Pictures(f).first(2)),
    "exact solutions": Kind(
        lambda f: np.save(f / "flow.npy", np.ones((2, 1, 4))),
        "flow.npy",
        lambda f: _kept_solutions(f / "flow.npy", (2, 1, 4)),
    ),
    "rows.json": Kind(
        lambda f: write_results(ROWS, f / "rows.json"), "rows.json", lambda f: read_results(f / "rows.json")
    ),
    "rows.csv": Kind(
        lambda f: write_results(ROWS, f / "rows.csv"), "rows.csv", lambda f: read_results(f / "rows.csv"), lines=True
    ),
    "result": Kind(
        lambda f: write_json(RESULT, f / "result.json"), "result.json", lambda f: read_result(f / "result.json", "FID")
    ),
    "sampling.json": Kind(
        lambda f: claim_folder(f, "sampling.json", SETTINGS, "samples"), "sampling.json", claimed, sealed=True
    ),
    "grid": Kind(
        lambda f: Grid([1.0, 0.5, 0.25]).save(f / "grid.json"),
        "grid.json",
        lambda f: (Grid.load(f / "grid.json").times, Grid.load(f / "grid.json").final),
    ),
    "metrics.csv": Kind(write_log, "metrics.csv", lambda f: read_loss(f / "metrics.csv"), lines=True),
    "metrics.csv of a resumed run": Kind(write_log, "metrics.csv", resumed, lines=True),
    "matrices": Kind(
        text("recipe.yaml", "{drift: [[0, 2], [-0.5, -2]], noise: [[0], [1]]}"),
        "recipe.yaml",
        lambda f: read_matrices(f / "recipe.yaml"),
    ),
    "configuration": Kind(
        text("train.yaml", "process: {class_path: psld.PSLD, init_args: {gamma: 0.01, beta: 8.0}}"),
        "train.yaml",
        lambda f: read_process(f / "train.yaml"),
    ),
    "MNIST": Kind(lambda f: write_digits(f, False), "t10k-images-idx3-ubyte", of_digits),
    "MNIST labels": Kind(lambda f: write_digits(f, False), "t10k-labels-idx1-ubyte", of_digits),
    "packed MNIST": Kind(lambda f: write_digits(f, True), "t10k-images-idx3-ubyte.gz", of_digits, sealed=True),
    "CIFAR-10": Kind(lambda f: write_cifar(f, True), "cifar-10-python.tar.gz", of_cifar, sealed=True),
    "CIFAR-10 batch": Kind(lambda f: write_cifar(f, False), "test_batch", of_cifar),
    "array file": Kind(write_array_file, "images.npz", of_array_file, sealed=True),
    "CelebA partition": Kind(
        write_faces, "list_eval_partition.txt", lambda f: [p.name for p in CelebA(f, 8).files], lines=True
    ),
    "mask": Kind(write_mask, "mask.png", lambda f: load_mask(f / "mask.png", (1, 8, 8))),
}

# -- damage ------------------------------------------------------------------------------------------------------------

PLACES = (0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1.0)
"""Where a file is cut, as parts of it; the last is the byte before its end."""

LATER = {f"flip {number}" for number in range(FAST, FLIPS)}
"""Left to the slow tests."""

CASES = [
    pytest.param(kind, damage, marks=[pytest.mark.slow] if damage in LATER else [])
    for kind in KINDS
    for damage in [
        "empty",
        "text",
        "folder",
        *(f"cut {place}" for place in PLACES),
        *(f"flip {number}" for number in range(FLIPS)),
        *(f"is {other}" for other in KINDS if other != kind),
    ]
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Mapping[str, tuple[Path, bytes, object]]:
    """By kind: a folder with a whole file, its bytes, and what it holds."""
    made = {}
    for name, kind in KINDS.items():
        folder = tmp_path_factory.mktemp("whole")
        kind.write(folder)
        content = (folder / kind.file).read_bytes()
        made[name] = (folder, content, kind.read(folder))
    return made


def damaged(content: bytes, damage: str, others: Mapping[str, bytes], seed: str) -> bytes:
    what, _, which = damage.partition(" ")
    if what == "empty":
        return b""
    if what == "text":
        return b"Dear reader,\n\nthis is no such file.\n"
    if what == "cut":
        return content[: min(int(len(content) * float(which)), len(content) - 1)]
    if what == "is":
        return others[which]
    bit = random.Random(f"{seed} {which}").randrange(8 * len(content))
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def same(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def form(content: object) -> object:
    """Types and shapes, without names and lengths."""
    if isinstance(content, torch.Tensor):
        return content.dtype, content.shape
    if isinstance(content, dict):
        return "dict", {str(form(value)) for value in content.values()}
    if isinstance(content, list):
        return "list", {str(form(value)) for value in content}
    if isinstance(content, tuple):
        return "tuple", [form(value) for value in content]
    return type(content).__name__


@pytest.mark.parametrize(("name", "damage"), CASES, ids=lambda value: value.replace(" ", "-"))
def test_a_damaged_file_is_refused_in_one_sentence_or_read_as_it_was(whole, name, damage):
    kind, (folder, content, held) = KINDS[name], whole[name]
    file = folder / kind.file
    bad = b"" if damage == "folder" else damaged(content, damage, {k: v[1] for k, v in whole.items()}, name)
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes(bad)
    mapped, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    try:
        found = kind.read(folder)
    except (ValueError, OSError, CheckpointError) as error:
        require_sentence(error, file, folder)
    else:
        require_content(kind, damage, bad, content, found, held)
    finally:
        if file.is_dir():
            shutil.rmtree(file)
        file.write_bytes(content)
    assert time.perf_counter() - start < SECONDS
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - mapped) < BYTES


def require_sentence(error: Exception, file: Path, folder: Path) -> None:
    """Raised by psld, about that file (or the one beside it that does not fit to it), and short."""
    said = str(error)
    assert type(error).__module__.startswith("psld.") or type(error) in (ValueError, FileNotFoundError, FileExistsError)
    assert str(file) in said or str(file.parent) in said or str(folder) in said, said
    assert "\n" not in said and 20 < len(said.replace(str(folder), "")) < 700, said
    assert "Errno" not in said, said


def require_content(kind: Kind, damage: str, bad: bytes, content: bytes, found: object, held: object) -> None:
    if same(found, held):
        return
    assert not kind.sealed, f"{found!r} was read in place of {held!r}"
    if kind.lines and bad.count(b"\n") <= 1:
        assert not found  # there is no row yet
        return
    assert damage.startswith(("flip", "cut")), f"{found!r} was read from another file"
    assert form(found) == form(held), f"{found!r} was read in place of {held!r}"
    if kind.lines and damage.startswith("cut"):
        assert content.startswith(bad)


def test_there_are_enough_cases():
    assert len(CASES) >= 600
