"""From images to a configuration: what is measured agrees with NumPy, what is chosen fits, and it trains."""

import math

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import psld
from psld.cli import main
from psld.data import ArrayFile, Digits, ImageFolder, Images
from psld.data.opening import training_images
from psld.jobs.configuring import measured
from psld.networks import Patched, Preconditioned, UNet


@pytest.fixture
def photographs(tmp_path):
    """Six pictures of six sizes, in two classes; the smallest has 21 rows."""
    random = np.random.default_rng(0)
    for number in range(6):
        folder = tmp_path / "photographs" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(0, 256, (21 + number, 40 - number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "photographs"


def test_mean_and_spread_are_those_of_numpy():
    data = Digits("train")
    found, pixels = measured(data), data.images.double().numpy()
    assert found.image_shape == (1, 8, 8) and found.classes == 10 and found.number == len(data)
    assert found.mean == pytest.approx(pixels.mean(), abs=1e-9)
    assert found.spread == pytest.approx(pixels.std(), abs=1e-9)
    assert found.p_mean == pytest.approx(-1.2 + math.log(pixels.std() / 0.5), abs=1e-9)


def test_a_choice_of_images_is_seeded_and_close():
    data = Digits("train")
    some = measured(data, images=300, seed=1)
    assert some == measured(data, images=300, seed=1) and some != measured(data, images=300, seed=2)
    assert some.mean == pytest.approx(measured(data).mean, abs=0.02)


def test_images_of_one_value_are_refused():
    with pytest.raises(ValueError, match=r"all pixels of the images have the value 0\.250"):
        measured(Images(torch.full((3, 1, 8, 8), 0.25)))


def test_pictures_of_many_sizes_are_made_one(photographs):
    data = training_images(photographs)
    assert data.image_shape == (3, 16, 16)  # the largest multiple of 8 in 21
    assert data.classes == ("cat", "dog")
    assert training_images(photographs, largest=8).image_shape == (3, 8, 8)
    assert training_images(photographs, 20).image_shape == (3, 20, 20)
    with pytest.raises(ValueError, match="fewer than image_size"):
        training_images(photographs, 32)


def test_pictures_of_one_size_are_taken_as_they_are(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 256, (3, 12, 20), dtype=np.uint8)
    for number, grey in enumerate(pixels):
        Image.fromarray(grey).save(tmp_path / f"{number}.png")
    data = training_images(tmp_path)
    assert isinstance(data, ImageFolder) and data.framing.crop == "none"
    assert torch.equal(data[1], torch.from_numpy(pixels[1] / np.float32(127.5) - 1)[None])


def test_an_archive_of_arrays_keeps_its_labels(tmp_path):
    images = np.random.default_rng(2).integers(0, 256, (4, 16, 16, 3), dtype=np.uint8)
    np.savez(tmp_path / "some.npz", images=images, labels=np.array([0, 1, 1, 2]))
    data = training_images(tmp_path / "some.npz")
    assert isinstance(data, ArrayFile) and data.labels is not None
    assert data.labels.tolist() == [0, 1, 1, 2]


def test_a_saved_data_set_is_opened_by_its_columns(tmp_path):
    datasets = pytest.importorskip("datasets")
    pictures = [Image.fromarray(np.full((10 + n, 12, 3), 40 * n, np.uint8)) for n in range(3)]
    features = datasets.Features({"picture": datasets.Image(), "kind": datasets.ClassLabel(names=["a", "b"])})
    datasets.Dataset.from_dict({"picture": pictures, "kind": [0, 1, 1]}, features=features).save_to_disk(tmp_path / "d")
    data = training_images(tmp_path / "d")
    assert data.image_shape == (3, 8, 8) and data.classes == ("a", "b")
    assert data.labels is not None and data.labels.tolist() == [0, 1, 1]
    assert data[2].mean().item() == pytest.approx(80 / 127.5 - 1, abs=1e-6)


def test_the_network_fits_the_images(photographs):
    setup = psld.setup_for(photographs, device="cpu")
    network = setup.model.network
    assert isinstance(network, Preconditioned) and isinstance(network.network, UNet)
    assert network.network.classes == 2 and setup.settings.label_dropout == 0.1
    assert network.mean_data == pytest.approx(setup.measured.mean, abs=1e-3)
    y = torch.randn(2, 3, 16, 16)
    assert setup.model.denoise(y.double(), torch.tensor(2.0).double()).shape == y.shape


@pytest.mark.parametrize("size, patch", [(8, 1), (16, 1), (32, 2), (64, 4)])
def test_larger_images_go_in_as_patches(size, patch):
    setup = psld.setup_for(Images(torch.randn(3, 1, size, size)), device="cpu")
    assert isinstance(setup.model.network, Preconditioned)
    network = setup.model.network.network
    assert (network.size if isinstance(network, Patched) else 1) == patch


def test_sides_that_no_patch_divides_are_refused_with_those_that_fit():
    with pytest.raises(ValueError, match=r"33×33 do not divide .* make them 32×32"):
        psld.setup_for(Images(torch.randn(3, 1, 33, 33)), device="cpu")


def test_size_of_data_and_unknown_devices_are_refused():
    with pytest.raises(ValueError, match="image_size=8 is for a folder"):
        psld.setup_for(Digits(), image_size=8)
    with pytest.raises(ValueError, match="device must be 'cpu' or 'cuda': got 'gpu'"):
        psld.setup_for(Digits(), device="gpu")


def test_the_configuration_is_the_one_that_trains(photographs, tmp_path, capsys):
    """`psld config` prints what `psld train --images` uses; the run opens its own data again."""
    assert main(["config", "--images", str(photographs)]) == 0
    printed = capsys.readouterr().out
    config = yaml.safe_load(printed)
    assert config["data"]["init_args"]["classes"] == ["cat", "dog"]
    assert printed.startswith("# 6 images of 3×16×16, 2 classes; mean ")

    run = tmp_path / "run"
    options = ["--training.steps", "2", "--training.batch_size", "2", "--training.warmup_steps", "1"]
    assert main(["train", "--images", str(photographs), "--run", str(run), *options]) == 0
    assert "6 images of 3×16×16, 2 classes" in capsys.readouterr().out
    written = yaml.safe_load(next(run.glob("checkpoints/*/config.yaml")).read_text())
    assert written["data"] == config["data"] and written["predicts"] == "denoiser"
    wanted = {**config["training"], "steps": 2, "batch_size": 2, "warmup_steps": 1}
    assert {name: written["training"][name] for name in wanted} == wanted
    assert psld.load(run).sample(2, steps=4).x.shape == (2, 3, 16, 16)


def test_the_same_in_python(photographs, tmp_path):
    setup = psld.setup_for(photographs)
    settings = psld.TrainingSettings(steps=1, batch_size=2, label_dropout=0.1)
    psld.train(setup.model, setup.data, setup.loss, settings, tmp_path / "run", seed=setup.seed)
    assert psld.load(tmp_path / "run").sample(1, steps=3).x.shape == (1, 3, 16, 16)


@pytest.mark.parametrize("name", ["digits-denoiser", "cifar10-sota-0.02"])
def test_config_prints_what_comes_with_psld(name, capsys):
    assert main(["config", name]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["process"]["class_path"] == "psld.PSLD"
    assert main(["config"]) == 0
    assert name in capsys.readouterr().out.split()


@pytest.mark.parametrize(
    "options, said",
    [
        (["digitz"], "no configuration 'digitz' comes with psld: psld config lists those that do. Did you mean digits"),
        (["digits", "--images", "photographs"], "a configuration by name or --images, not both"),
        (["--images", "nowhere"], "no folder nowhere"),
        (["digits", "--image_size", "8"], "--image_size 8 is for --images"),
        (["--device", "cpu"], "--device cpu is for --images"),
    ],
)
def test_what_cannot_be_printed_is_refused(options, said, capsys):
    assert main(["config", *options]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, said",
    [
        (["--images", "photographs", "--preset", "cifar10-sota-0.02"], "leave out --preset"),
        (["--images=photographs", "--config=mine.yaml"], "leave out --config"),
        (["--preset", "cifar10-sota-0.02", "--image_size", "8"], "--image_size 8 is for --images"),
        (["--images", "photographs", "--image_size", "0"], "--image_size must be a whole number of at least 1: got 0"),
    ],
)
def test_what_training_would_ignore_is_refused(options, said, tmp_path, capsys):
    assert main(["train", *options, "--run", str(tmp_path / "run")]) == 1
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_classifier_is_not_chosen_by_images(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["train-classifier", "--images", str(tmp_path), "--run", str(tmp_path / "run")])
    assert "there is no option --images" in capsys.readouterr().err
