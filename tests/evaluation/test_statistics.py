"""Statistics of images that stream by: independent of batches, read as written, compared only with their like."""

import copy
import importlib.util
import json
import random
import subprocess
import sys
import tracemalloc
from hashlib import sha256

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from psld.data import Digits
from psld.evaluation.features import (
    BundledClassifier,
    ExternalFeatures,
    FeatureExtractor,
    UntrustedNetworkError,
    bundled,
    feature_extractor,
)
from psld.evaluation.features.bundled import stated_accuracy
from psld.evaluation.features.digit_classifier import DigitClassifier
from psld.evaluation.metrics.quality import frechet_between
from psld.evaluation.statistics import CONFIDENT, ImageStatistics, is_statistics, kept_indices, measured


@pytest.fixture(scope="module")
def extractor():
    return BundledClassifier("digits")


@pytest.fixture(scope="module")
def digits():
    return Digits("all").images


def test_batches_give_what_the_full_set_gives(extractor, digits):
    features, logits = extractor(digits)
    parts = [measured(digits.split(size), range(1797), 1797, extractor, keep=100) for size in (1797, 64, 7)]
    for part in parts:
        np.testing.assert_allclose(part.moments.mean.numpy(), features.numpy().mean(0), atol=1e-6)
        np.testing.assert_allclose(part.moments.covariance.numpy(), np.cov(features.numpy(), rowvar=False), atol=1e-5)
        assert part.inception_score == pytest.approx(parts[0].inception_score, rel=1e-5)
        assert part.confident == pytest.approx(float((logits.softmax(1).amax(1) > CONFIDENT).double().mean()), abs=2e-3)
        torch.testing.assert_close(part.features, features[[i * 1797 // 100 for i in range(100)]].float())


def test_memory_does_not_grow_with_the_number_of_images():
    """What Python and NumPy hold, and the tensors that stay; features are of 16 numbers, images of 768."""

    class Few(FeatureExtractor):
        identity, convention = "sixteen pixels", "none"

        def of_bytes(self, pixels):
            return pixels.flatten(1)[:, :16].float(), None

    def held(count):
        made = (torch.rand(50, 3, 16, 16) for _ in range(count // 50))
        tracemalloc.start()
        found = measured(made, range(count), count, Few(), keep=200)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        tensors = (found.moments.mean, found.moments.scatter, found.features)
        return peak, [t.untyped_storage().nbytes() for t in tensors]

    held(500)  # whatever is imported on the way
    (few, few_tensors), (many, many_tensors) = held(1_000), held(20_000)
    assert many_tensors == few_tensors == [16 * 8, 16 * 16 * 8, 200 * 16 * 4]
    assert many < few + 100_000  # 19,000 more images are 58 MB as float32, and their features 1.2 MB


def test_kept_features_are_spread_evenly():
    assert kept_indices(5, 10) == set(range(5))
    assert kept_indices(10, 5) == {0, 2, 4, 6, 8}
    assert len(kept_indices(60_000, 10_000)) == 10_000


def test_statistics_come_back_from_their_file(extractor, digits, tmp_path):
    written = measured([digits[:300]], range(300), 300, extractor, keep=50, source="some digits")
    written.save(tmp_path / "stats.npz")
    read = ImageStatistics.load(tmp_path / "stats.npz")
    assert frechet_between(read, written) < 1e-9
    assert (read.measurement, read.source, read.moments.count) == (written.measurement, "some digits", 300)
    assert (read.inception_score, read.confident) == (written.inception_score, written.confident)
    assert torch.equal(read.features, written.features)
    assert is_statistics(tmp_path / "stats.npz")
    np.savez(tmp_path / "images.npz", images=np.zeros((2, 4, 4), np.uint8))
    assert not is_statistics(tmp_path / "images.npz")
    with pytest.raises(ValueError, match="does not hold statistics"):
        ImageStatistics.load(tmp_path / "images.npz")


def test_a_flipped_bit_is_refused_or_changes_nothing(extractor, digits, tmp_path):
    """Time stamps in the archive and the like are not content."""
    file, draw = tmp_path / "stats.npz", random.Random(0)
    written = measured([digits[:30]], range(30), 30, extractor, keep=2)
    written.save(file)
    content, refused = file.read_bytes(), 0
    for _ in range(40):
        changed = bytearray(content)
        bit = draw.randrange(8 * len(content))
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        try:
            read = ImageStatistics.load(file)
        except ValueError as error:
            assert str(file) in str(error)
            refused += 1
        else:
            assert (read.measurement, read.inception_score) == (written.measurement, written.inception_score)
            assert torch.equal(read.features, written.features)
            assert torch.equal(read.moments.mean, written.moments.mean)
    assert refused > 30


def test_numbers_that_were_changed_are_noticed_and_older_files_are_read(extractor, digits, tmp_path):
    """What the checksums of a .npz do not see, because they are made anew."""
    file = tmp_path / "stats.npz"
    measured([digits[:30]], range(30), 30, extractor, keep=2).save(file)
    with np.load(file) as arrays:
        known = dict(arrays)
    known["mean"][0] += 1
    np.savez(file, **known)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="stats.npz .*its content has changed since it was written"):
        ImageStatistics.load(file)
    del known["sha256"]
    np.savez(file, **known)  # pyright: ignore[reportArgumentType]
    assert ImageStatistics.load(file).moments.mean[0] == known["mean"][0]


def test_an_interrupted_write_leaves_the_earlier_file(extractor, digits, tmp_path, monkeypatch):
    statistics = measured([digits[:50]], range(50), 50, extractor)
    statistics.save(tmp_path / "stats.npz")
    before = (tmp_path / "stats.npz").read_bytes()

    def killed(stream, **arrays):
        stream.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez", killed)
    with pytest.raises(KeyboardInterrupt):
        statistics.save(tmp_path / "stats.npz")
    assert [path.name for path in tmp_path.iterdir()] == ["stats.npz"]
    assert (tmp_path / "stats.npz").read_bytes() == before


def test_features_of_another_network_or_shape_are_not_compared(extractor, digits):
    one = measured([digits[:50]], range(50), 50, extractor)
    other = copy.copy(extractor)
    other.identity = "another network"
    with pytest.raises(ValueError, match="extractor is digits classifier.* there and another network here"):
        frechet_between(measured([digits[:50]], range(50), 50, other), one)


def test_images_of_another_size_are_refused(extractor):
    with pytest.raises(ValueError, match=r"shape \(3, 8, 8\), and the digits classifier.* takes \(1, 8, 8\)"):
        extractor(torch.zeros(2, 3, 8, 8))
    with pytest.raises(ValueError, match="NaN"):
        extractor(torch.full((1, 1, 8, 8), torch.nan))


def test_bundled_classifiers_know_digits_they_have_not_seen(extractor):
    heldout = Digits("heldout")
    accuracy = float((extractor(heldout.images)[1].argmax(1) == heldout.labels).double().mean())
    assert accuracy == pytest.approx(stated_accuracy("digits"), abs=0.005)
    assert accuracy >= 0.97
    assert stated_accuracy("mnist") >= 0.99
    assert sum(p.numel() for p in BundledClassifier("mnist").parameters()) < 250_000


def test_a_border_of_mnist_changes_nothing():
    mnist = BundledClassifier("mnist")
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(0)) * 2 - 1
    framed = nn.functional.pad(images, (2, 2, 2, 2), value=-1.0)
    assert torch.equal(mnist(images)[0], mnist(framed)[0])


class TwoNumbers(nn.Module):
    """Mean and a weighted corner, with logits."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        features = torch.stack([x.mean((1, 2, 3)), self.weight * x[:, 0, 0, 0]], 1)
        return features, features


def test_the_command_of_bundled_classifiers_writes_their_hashes(tmp_path, monkeypatch):
    monkeypatch.setattr(bundled, "train_digit_classifier", lambda images, labels, seed: DigitClassifier().eval())
    for name in ("a.safetensors", "b.safetensors", "a.safetensors"):
        assert bundled.main(["digits", "--out", str(tmp_path / name)]) == 0
    for line, name in zip((tmp_path / "SHA256SUMS").read_text().splitlines(), ("a", "b"), strict=True):
        assert line == f"{sha256((tmp_path / f'{name}.safetensors').read_bytes()).hexdigest()}  {name}.safetensors"


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_network_is_called_with_rounded_images(tmp_path):
    torch.jit.save(torch.jit.trace(TwoNumbers(), torch.zeros(1, 1, 4, 4)), str(tmp_path / "two.pt"))
    extractor = feature_extractor(str(tmp_path / "two.pt"), (1, 4, 4), trust=True)
    image = torch.full((1, 1, 4, 4), 0.1001)  # 140.3 of 255: rounded to 140
    features, logits = extractor(image)
    assert features[0].tolist() == pytest.approx([140 / 127.5 - 1, 3 * (140 / 127.5 - 1)], abs=1e-6)
    assert logits is not None and extractor.distance == "Fréchet distance"
    with pytest.raises(ValueError, match="has SHA-256"):
        ExternalFeatures(tmp_path / "two.pt", sha256="ab" * 32, trust=True)


def test_safetensors_need_their_class(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.tensor(2.0)}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="name their class"):
        feature_extractor(str(tmp_path / "two.safetensors"), (1, 4, 4))
    with pytest.raises(ValueError, match="no_such.Network cannot be made"):
        feature_extractor(str(tmp_path / "two.safetensors"), (1, 4, 4), network_class="no_such.Network", trust=True)
    save_file(
        {name: t.contiguous() for name, t in nn.BatchNorm1d(3).state_dict().items()}, tmp_path / "other.safetensors"
    )
    with pytest.raises(ValueError, match="another network"):
        feature_extractor(
            str(tmp_path / "other.safetensors"),
            (1, 8, 8),
            network_class="psld.evaluation.DigitClassifier",
            trust=True,
        )


@pytest.mark.parametrize(
    "file, network_class, program",
    [
        ("a.pt", None, "the TorchScript program .*a.pt"),
        ("a.onnx", None, "the ONNX program .*a.onnx"),
        ("a.safetensors", "attack.Network", "the class attack.Network, imported by that name,"),
    ],
)
def test_networks_that_run_code_of_others_need_to_be_trusted(tmp_path, monkeypatch, file, network_class, program):
    """A module beside the files leaves a mark when it is imported: without trust there is none."""
    (tmp_path / "attack.py").write_text("import pathlib\npathlib.Path('mark').touch()\n")
    (tmp_path / file).write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(torch.jit, "load", lambda *_, **__: pytest.fail("it was opened"))
    with pytest.raises(UntrustedNetworkError, match=f"^{program} runs code of whoever made it.*--trust"):
        feature_extractor(str(tmp_path / file), (1, 4, 4), network_class=network_class)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("logits", [False, True])
def test_an_onnx_model_gives_what_its_layers_do(tmp_path, logits):
    """One convolution and one matrix, written node by node, against torch with the same weights."""
    torch.manual_seed(0)
    kernel, matrix = torch.randn(3, 1, 4, 4), torch.randn(3, 2)
    weights = [numpy_helper.from_array(v.numpy(), name) for name, v in {"kernel": kernel, "matrix": matrix}.items()]
    nodes = [
        helper.make_node("Conv", ["images", "kernel"], ["maps"]),
        helper.make_node("Flatten", ["maps"], ["features"]),
        helper.make_node("MatMul", ["features", "matrix"], ["logits"]),
    ]
    names = {"features": ["n", 3], "logits": ["n", 2]} if logits else {"features": ["n", 3]}
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in names.items()]
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, 4, 4])
    graph = helper.make_graph(nodes, "features", [images], outputs, weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    pixels = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    features, found = feature_extractor(str(tmp_path / "model.onnx"), (1, 4, 4), trust=True).of_bytes(pixels)
    expected = torch.nn.functional.conv2d(pixels / 127.5 - 1, kernel).flatten(1)
    torch.testing.assert_close(features, expected)
    if logits:
        torch.testing.assert_close(found, expected @ matrix)
    else:
        assert found is None


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_other_files_are_refused(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"x")
    with pytest.raises(ValueError, match="is not an ONNX model"):
        feature_extractor(str(tmp_path / "model.onnx"), (1, 4, 4), trust=True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match="onnxruntime is not installed"):
        feature_extractor(str(tmp_path / "model.onnx"), (1, 4, 4), trust=True)
    (tmp_path / "model.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match="is not TorchScript"):
        feature_extractor(str(tmp_path / "model.pt"), (1, 4, 4), trust=True)
    with pytest.raises(FileNotFoundError, match="no weights file"):
        feature_extractor(str(tmp_path / "absent.pt"), (1, 4, 4), trust=True)
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"TorchScript \(.pt, .ts, .jit\), .onnx or .safetensors"):
        feature_extractor(str(tmp_path / "model.bin"), (1, 4, 4))


@pytest.mark.slow
def test_two_processes_say_what_one_says(tmp_path):
    """The kernel distance too: its features are gathered once, not once more by torchmetrics."""
    program = tmp_path / "program.py"
    program.write_text("import sys\nfrom psld.cli import main\nsys.exit(main(sys.argv[1:]))\n")
    figures = []
    for devices in ("1", "2"):
        out = tmp_path / devices
        command = ["evaluate", "Digits", "--run.split", "heldout", "--against", "Digits", "--devices", devices]
        command += ["--num", "301", "--out", str(out)]  # an odd number: the shares differ
        subprocess.run([sys.executable, str(program), *command], check=True, timeout=200, capture_output=True)
        (result,) = out.glob("*.json")
        figures.append(json.loads(result.read_text())["figures"])
    for name, value in figures[0].items():
        assert figures[1][name] == pytest.approx(value, rel=1e-5), name
