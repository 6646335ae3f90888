"""A run describes itself: what is made in Python is loaded, sampled and resumed by name, and nothing else runs."""

import subprocess
import sys

import pytest
import torch
import yaml
from torch import nn

import psld
from psld import CLD, PSLD, LinearRecipe, Process, ScoreModel, Specified
from psld.cli import main
from psld.data import Digits, Images
from psld.losses import HSM, Denoising
from psld.model import Predicts
from psld.networks import Preconditioned, UNet
from psld.plots.pictures import load_images
from psld.pretrained.published import published_checkpoints
from psld.runs import load, load_data, save
from psld.specs import SpecError, UntrustedClassError, build
from psld.training import load_weights
from training.small_run import small_settings

OWN = Process(
    LinearRecipe.from_sde([[0.0, 1.0, 0.0], [-1.0, 0.0, 2.0], [0.0, -2.0, -4.0]], [[0.0], [0.0], [8.0**0.5]]), 8.0, 0.04
)


def unet(channels: int = 1, dropout: float = 0.0) -> UNet:
    torch.manual_seed(0)
    sizes = {"width": 8, "multipliers": (1,), "blocks": 1, "attention_resolutions": ()}
    return UNet(in_channels=channels, out_channels=channels, image_size=8, dropout=dropout, **sizes)


def trained(run, process=None, network=None, predicts: Predicts = "denoiser", loss=None, data=None, **options):
    network = Preconditioned(unet(), 0.85) if network is None else network
    model = ScoreModel(network, OWN if process is None else process, predicts)
    resume = options.pop("resume", False)
    data, loss = data or Digits("heldout"), loss or Denoising(0.85)
    return psld.train(model, data, loss, small_settings(**({"steps": 4} | options)), run, resume=resume)


def test_a_run_made_in_python_is_one_that_every_command_takes(tmp_path):
    """An SDE of one's own, trained in Python: loaded with equal process and weights, and sampled by the program."""
    folder = trained(tmp_path / "run")
    model = psld.load(tmp_path / "run")
    assert (model.process, model.predicts, model.data_shape) == (OWN, "denoiser", (1, 8, 8))
    expected = Preconditioned(unet(), 0.85)
    load_weights(folder, expected)
    found = model.network
    assert isinstance(found, nn.Module) and found.sigma_data == 0.85  # pyright: ignore[reportAttributeAccessIssue]
    assert all(torch.equal(value, expected.state_dict()[name]) for name, value in found.state_dict().items())
    assert load_data(tmp_path / "run") == Digits("heldout")
    command = ["sample", str(tmp_path / "run"), "--num", "2", "--steps", "3", "--out", str(tmp_path / "out")]
    program = [sys.executable, "-c", "import sys; from psld.cli import main; sys.exit(main())"]
    done = subprocess.run([*program, *command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2


def test_the_description_makes_equal_objects(tmp_path):
    known = yaml.safe_load((trained(tmp_path / "run") / "config.yaml").read_text())
    assert build(known["process"]) == OWN and build(known["loss"]) == Denoising(0.85)
    assert build(known["network"]).spec == Preconditioned(unet(), 0.85).spec
    assert known["image_shape"] == [1, 8, 8] and known["data_sha256"] == Digits("heldout").fingerprint()


def changed_images() -> Images:
    images = Digits("heldout").images.clone()
    images[200, 0, 3, 3] += 0.01
    return Images(images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process": PSLD(gamma=0.02)}, r"process\.gamma was 0\.01 and is 0\.02"),
        ({"process": PSLD(kappa=0.1)}, r"process\.kappa was 0\.04 and is 0\.1"),
        ({"process": CLD()}, r"process was psld\.PSLD and is psld\.CLD"),
        ({"loss": Denoising(0.85, P_std=1.0)}, r"loss\.P_std was 1\.2 and is 1\.0"),
        ({"network": Preconditioned(unet(), 0.5)}, r"network\.sigma_data was 0\.85 and is 0\.5"),
        ({"network": Preconditioned(unet(dropout=0.1), 0.85)}, r"network\.network\.dropout was 0\.0 and is 0\.1"),
        ({"data": changed_images()}, r"data: other images, labels or order than before"),
    ],
    ids=["gamma", "kappa", "process", "loss", "sigma_data", "nested", "data"],
)
def test_resume_refuses_another_run_by_name(tmp_path, change, message):
    """Each continued silently before."""
    trained(tmp_path / "run", PSLD(0.01))
    weights = (tmp_path / "run/checkpoints/step-00000004/model.safetensors").read_bytes()
    with pytest.raises(ValueError, match=f"not the run that was started: {message}"):
        trained(tmp_path / "run", **({"process": PSLD(0.01)} | change), steps=6, resume=True)
    assert [folder.name for folder in (tmp_path / "run/checkpoints").iterdir()] == ["step-00000004"]
    assert (tmp_path / "run/checkpoints/step-00000004/model.safetensors").read_bytes() == weights


def test_resume_refuses_another_prediction(tmp_path):
    trained(tmp_path / "run", CLD(), unet(2), "eps", HSM())
    with pytest.raises(ValueError, match="predicts was eps and is score"):
        trained(tmp_path / "run", CLD(), unet(2), "score", HSM(), steps=6, resume=True)


def test_data_that_moved_are_the_same_data(tmp_path):
    trained(tmp_path / "run", data=Images(Digits("heldout").images))
    last = trained(tmp_path / "run", data=Images(Digits("heldout").images.clone()), steps=6, resume=True)
    assert last.name == "step-00000006"


class Silent(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, y, sigma):
        return self.scale * y


class Recorded(Specified, Silent):
    pass


def test_a_network_that_nobody_could_load_is_refused_before_training(tmp_path):
    with pytest.raises(SpecError, match=r"Silent does not record .* class Silent\(psld.Specified, …\)"):
        trained(tmp_path / "run", network=Silent())
    assert not (tmp_path / "run").exists()


def test_a_class_of_ones_own_is_loaded_where_it_is_trusted(tmp_path):
    trained(tmp_path / "run", network=Recorded())
    with pytest.raises(UntrustedClassError, match=r"names '.*\.Recorded', which is not one of psld's .*trust=True"):
        psld.load(tmp_path / "run")
    known = yaml.safe_load(next((tmp_path / "run").rglob("config.yaml")).read_text())
    if known["network"]["class_path"].startswith("test_runs"):  # importable under this name
        assert isinstance(psld.load(tmp_path / "run", trust=True).network, Recorded)


def test_saved_models_come_back(tmp_path):
    """Same numbers from the folder as from the model, for a process of one's own."""
    model = ScoreModel(Preconditioned(unet(), 0.85).eval(), OWN, "denoiser", data_shape=(1, 8, 8))
    save(model, tmp_path / "model")
    again = load(tmp_path / "model")
    z = torch.randn(2, 3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert again.process == OWN and torch.equal(again(z, 0.3).score, model(z, 0.3).score)
    with pytest.raises(FileExistsError):
        save(model, tmp_path / "model")


@pytest.mark.parametrize("name", published_checkpoints())
def test_published_models_are_described_by_psld_alone(name):
    model = load(name)
    assert model.data_shape is not None and model.process.k in (1, 2)


EXPLOIT = {
    "class_path": "psld.networks.Patched",
    "init_args": {
        "size": 2,
        "network": {
            "class_path": "torch.fx.graph_module.reduce_graph_module",
            "init_args": {
                "body": {"_code": "pass", "_graphmodule_cls_name": "x"},
                "import_block": "import os; os.system('id > PWN')\ndef forward(self, z, t):\n  return z\n",
            },
        },
    },
}


@pytest.mark.parametrize(
    "network", [EXPLOIT, EXPLOIT["init_args"]["network"], {"class_path": "os.system", "init_args": {"command": "id"}}]
)
def test_a_folder_from_elsewhere_runs_nothing(tmp_path, monkeypatch, network):
    """The configuration of issue 15 that ran a shell command, by loading and by the program."""
    monkeypatch.chdir(tmp_path)
    save(ScoreModel(unet(), PSLD(), "x0", data_shape=(1, 8, 8)), tmp_path / "model")
    config = yaml.safe_load((tmp_path / "model/config.yaml").read_text())
    (tmp_path / "model/config.yaml").write_text(yaml.safe_dump(config | {"network": network}))
    with pytest.raises(UntrustedClassError, match="nothing was imported"):
        load(tmp_path / "model")
    for command in (["sample", "model", "--out", "out"], ["evaluate", "model", "--against", "Digits"]):
        assert main(command) == 1
    assert not (tmp_path / "PWN").exists() and not (tmp_path / "out").exists()


def test_a_loaded_model_samples_as_the_program_does(tmp_path):
    """Ten evaluations of psld-digits: the images of `model.sample` are those that `psld sample` writes."""
    samples = psld.load("psld-digits").sample(3, steps=10, seeds=5)
    command = ["sample", "psld-digits", "--num", "3", "--steps", "10", "--seed", "5", "--out", str(tmp_path / "out")]
    assert main(command) == 0
    written = load_images(sorted((tmp_path / "out" / "images").iterdir()))
    assert (samples.x.float().clamp(-1, 1) - written).abs().max() <= 1.01 / 255
    assert samples.nfe.tolist() == [10, 10, 10] and samples.seeds == (5, 6, 7)
