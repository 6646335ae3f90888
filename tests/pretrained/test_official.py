"""Official checkpoints give the recorded outputs, and what is not one is refused in words."""

import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from psld.cli import main
from psld.networks import FIR, FourierTime, NCSNpp, NoiseClassifier, ResidualInput, SkipInput
from psld.networks.blocks import ResidualBlock, SelfAttention
from psld.networks.levels import InputResidual
from psld.networks.normalisation import NormSiLU
from psld.pretrained import PRESETS, Preset, import_official, load_official
from psld.pretrained.official_keys import official_names
from psld.runs import load
from psld.training.checkpoint import CheckpointError

REFERENCE = Path(__file__).parent.parent / "reference" / "networks"
NAMES = ["ddpmpp_small", "ncsnpp_fir_residual_small", "classifier_small"]


def configuration(name):
    return json.loads((REFERENCE / f"{name}.json").read_text())


def exact_and_recorded(name, weights):
    """The network, its input, its output in float64, and the recorded output."""
    network = load_official(REFERENCE / f"{name}.ckpt", configuration(name), weights)
    file = np.load(REFERENCE / f"{name}.npz")
    x, t, recorded = (torch.from_numpy(file[key]) for key in ("x", "t", f"y_{weights}"))
    return network, (x, t), in_float64(network, x, t), recorded.double()


@torch.no_grad()
def in_float64(network, x, t):
    return copy.deepcopy(network).double()(x.double(), t.double())


@torch.no_grad()
def float32_error(network, x, t, exact):
    """The largest relative error of four float32 evaluations.

    Their inputs are moved by at most a unit in the last place, so that everything behind them is rounded anew.
    """
    generator = torch.Generator().manual_seed(0)
    errors = []
    for _ in range(4):
        moved = x * (1 + 2**-24 * (2 * torch.rand(x.shape, generator=generator) - 1))
        errors.append(float((network(moved, t) - exact).norm() / exact.norm()))
    return max(errors)


@pytest.mark.parametrize("weights", ["online", "ema"])
@pytest.mark.parametrize("name", NAMES)
def test_recorded_outputs_up_to_float32_rounding(name, weights):
    """The recorded numbers are float32, and are no further from exact arithmetic than float32 is.

    That is 1e-5 … 3e-5 here and not 1e-6, because these random weights give the attention logits of 150: the query
    weights times 0.01, float32 is at 7e-7. The official order of operations, in float32, is 1e-5 … 4e-5 from the
    recorded numbers as well, by threads and by kernels.
    """
    network, (x, t), exact, recorded = exact_and_recorded(name, weights)
    rounding = float32_error(network, x, t, exact)
    assert rounding < 5e-5
    assert (recorded - exact).norm() < 1.2 * rounding * exact.norm()
    with torch.no_grad():
        assert (recorded - network(x, t)).norm() < 1.5 * math.sqrt(2) * rounding * exact.norm()


def _set(kind, **attributes):
    def change(network):
        for module in network.modules():
            if isinstance(module, kind):
                for key, value in attributes.items():
                    setattr(module, key, value)

    return change


def _scaled_queries(network):
    for module in network.modules():
        if isinstance(module, SelfAttention):
            for parameter in module.query.parameters():
                parameter.data.mul_(1.0001)


def _attention_eps(network):
    for module in network.modules():
        if isinstance(module, SelfAttention):
            module.norm.eps = 1e-5


def _last_eps(network):
    if isinstance(network, NCSNpp):
        network.norm_out.eps = 1e-5


CONSTANTS = {
    "eps of the norms in blocks 1e-5": _set(NormSiLU, eps=1e-5),
    "eps of the norm in attention 1e-5": _attention_eps,
    "eps of the last norm 1e-5": _last_eps,
    "1/1.414 for the square root of a half": _set((ResidualBlock, SelfAttention, InputResidual), scale=1 / 1.414),
    "attention scale off by 1e-4": _scaled_queries,
    "times 0.999 t": lambda network: network.embedding.register_forward_pre_hook(lambda _, args: (0.999 * args[0],)),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("constant", CONSTANTS)
def test_no_constant_differs_from_the_official_one(constant, name):
    """Along the change that another constant makes to the output, the recorded numbers lie at ours (0), not at it (1).

    Finer than a distance: it tells constants apart whose change is smaller than the rounding of float32.
    """
    network, (x, t), exact, recorded = exact_and_recorded(name, "online")
    CONSTANTS[constant](network)
    change = in_float64(network, x, t) - exact
    if constant == "eps of the last norm 1e-5" and name == "classifier_small":
        assert not change.any()  # it has none
        return
    assert abs(float(((recorded - exact) * change).sum() / change.square().sum())) < 0.3


def test_the_two_sets_of_weights_are_not_mixed_up():
    online, ema = (
        load_official(REFERENCE / "ddpmpp_small.ckpt", configuration("ddpmpp_small"), w) for w in ("online", "ema")
    )
    file = torch.load(REFERENCE / "ddpmpp_small.ckpt", weights_only=True)["state_dict"]
    assert torch.equal(online.conv_in.weight, file["score_fn.all_modules.2.weight"])
    assert torch.equal(ema.conv_in.weight, file["ema_score_fn.all_modules.2.weight"])
    assert not torch.equal(online.conv_in.weight, ema.conv_in.weight)


# Every option has a place in the official order. (Official entries that no reference checkpoint has: input_skip,
# progressive output, and blocks of DDPM, whose resampling layers stand by themselves.)
OPTIONS = [
    dict(progressive_input=SkipInput("cat"), progressive_output="output_skip", resampling=FIR()),
    dict(progressive_input=SkipInput(), progressive_output="residual"),
    dict(level_change="convolution", progressive_input=ResidualInput(), resampling=FIR(), time=FourierTime()),
    dict(level_change="resampling"),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_parameter_has_an_official_name(options):
    with torch.device("meta"):
        network = NCSNpp(6, 6, 16, width=8, multipliers=(1, 2), blocks=1, attention_resolutions=(8,), **options)
    assert set(official_names(network).values()) == set(network.state_dict())


def test_a_pickle_that_would_run_code_is_refused_and_does_not(tmp_path, capsys):
    class Payload:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": {}, "hyper_parameters": Payload()}, tmp_path / "bad.ckpt")
    with pytest.raises(CheckpointError, match="could run code on this machine"):
        load_official(tmp_path / "bad.ckpt", "cifar10-ablation-0.01")
    arguments = [
        "import",
        str(tmp_path / "bad.ckpt"),
        "--preset",
        "cifar10-ablation-0.01",
        "--out",
        str(tmp_path / "out"),
    ]
    assert main(arguments) == 1
    assert "could run code" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.ckpt"]


def test_a_mismatch_lists_what_differs():
    config = configuration("ddpmpp_small") | {"nf": 8, "num_res_blocks": 2}
    with pytest.raises(CheckpointError) as refused:
        load_official(REFERENCE / "ddpmpp_small.ckpt", config)
    text = str(refused.value)
    assert "missing: all_modules." in text and "differently shaped" in text and "No preset fits" in text
    assert "all_modules.2.weight (16, 6, 3, 3), not (8, 6, 3, 3)" in text


def test_a_mismatch_says_which_preset_would_fit(monkeypatch):
    small = Preset("cifar10-ablation", {"network.init_args.width": 16, "network.init_args.multipliers": [1, 2, 2]})
    small = Preset(small.file, {**small.changes, "network.init_args.blocks": 1, "network.init_args.dropout": 0.0})
    monkeypatch.setitem(PRESETS, "small", small)
    config = configuration("ddpmpp_small") | {"fir": True, "progressive_input": "residual"}
    with pytest.raises(CheckpointError, match="Presets that fit: small"):
        load_official(REFERENCE / "ddpmpp_small.ckpt", config)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"nonlinearity": "elu"}, "nonlinearity='elu' is not supported"),
        ({"nf_": 3}, "unknown nf_"),
        ({"progressive": "skip"}, "progressive must be one of"),
    ],
)
def test_official_configurations_are_checked(change, words):
    with pytest.raises(ValueError, match=words):
        load_official(REFERENCE / "ddpmpp_small.ckpt", configuration("ddpmpp_small") | change)


def test_refusals(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        load_official(tmp_path / "absent.ckpt", "cifar10-ablation-0.01")
    with pytest.raises(ValueError, match=r"no preset 'cifar10-ablation': .*Did you mean cifar10-ablation-"):
        load_official(REFERENCE / "ddpmpp_small.ckpt", "cifar10-ablation")
    with pytest.raises(CheckpointError, match="holds a classifier, preset cifar10-sota-0.01 is a score network"):
        load_official(REFERENCE / "classifier_small.ckpt", "cifar10-sota-0.01")
    whole = (REFERENCE / "ddpmpp_small.ckpt").read_bytes()
    (tmp_path / "half.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="half.ckpt"):
        load_official(tmp_path / "half.ckpt", configuration("ddpmpp_small"))
    torch.save({"state_dict": {"network.weight": torch.zeros(1)}}, tmp_path / "other.ckpt")
    with pytest.raises(CheckpointError, match=r"names begin with network\.weight"):
        load_official(tmp_path / "other.ckpt", configuration("ddpmpp_small"))


@pytest.fixture
def small_presets(monkeypatch):
    """The published experiments, with networks of the size of the reference checkpoints."""
    small = {
        f"network.init_args.{key}": value for key, value in dict(width=16, multipliers=[1, 2, 2], blocks=1).items()
    }
    monkeypatch.setitem(PRESETS, "small", Preset("cifar10-ablation", small))
    attention = {"network.init_args.attention_resolutions": [16, 8]}
    monkeypatch.setitem(PRESETS, "small-classifier", Preset("cifar10-classifier", small | attention))


def test_an_imported_checkpoint_is_a_folder_that_sampling_reads(small_presets, tmp_path, capsys):
    checkpoint, out = REFERENCE / "ddpmpp_small.ckpt", tmp_path / "runs" / "small"
    assert main(["import", str(checkpoint), "--preset", "small", "--out", str(out)]) == 0
    assert str(out) in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == [
        *("SHA256SUMS", "config.yaml", "model.safetensors", "model_ema.safetensors")
    ]
    assert [path.name for path in out.parent.iterdir()] == ["small"]
    for weights in ("online", "ema"):
        model = load(out, weights)
        shape = model.data_shape
        same = load_official(checkpoint, configuration("ddpmpp_small"), weights)
        z, t = torch.randn(2, 2, 3, 32, 32), torch.tensor([0.2, 0.9])
        assert shape == (3, 32, 32) and model.jitter == 1e-9 and repr(model.process) == "PSLD(gamma=0.01)"
        assert torch.equal(model.network(z, t), same(z, t))  # pyright: ignore[reportCallIssue]
    assert main(["sample", str(out), "--out", str(tmp_path / "images"), "--num", "2", "--steps", "2"]) == 0


def test_import_keeps_what_is_there(small_presets, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(FileExistsError, match="not an empty folder"):
        import_official(REFERENCE / "ddpmpp_small.ckpt", "small", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_an_imported_classifier_has_one_set_of_weights_and_does_not_sample(small_presets, tmp_path):
    out = import_official(REFERENCE / "classifier_small.ckpt", "small-classifier", tmp_path / "classifier")
    assert sorted(path.name for path in out.iterdir()) == ["SHA256SUMS", "config.yaml", "model.safetensors"]
    assert yaml.safe_load((out / "config.yaml").read_text())["network"]["class_path"] == "psld.networks.NoiseClassifier"
    with pytest.raises(ValueError, match="holds a classifier"):
        load(out, "online")
    loaded = load_official(REFERENCE / "classifier_small.ckpt", "small-classifier")
    assert isinstance(loaded, NoiseClassifier) and not loaded.training
