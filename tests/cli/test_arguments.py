"""The options that commands share: how data are named, and what is said of a wrong name."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from psld.cli.arguments import (
    add_data_argument,
    add_label_arguments,
    add_sampling_arguments,
    built,
    command_parser,
    data_name,
    open_data,
)
from psld.data import Digits
from psld.samplers import Exponential, Heun


def parsed(*arguments: str):
    options = command_parser("judge")
    add_data_argument(options, "images", "what to judge")
    add_data_argument(options, "--against", "what to judge by")
    add_label_arguments(options, "what to draw")
    add_sampling_arguments(options)
    return options.parse_args(arguments)


def test_a_class_is_named_without_its_package_and_takes_its_arguments():
    config = parsed("Digits", "--images.split", "heldout", "--against", "psld.data.Digits", "--against.split=all")
    assert open_data(config.images) == Digits("heldout") and open_data(config.against) == Digits("all")
    assert data_name(config.images) == "Digits(split='heldout')"
    assert data_name(parsed("Digits").images) == "Digits"
    assert parsed("Digits").against is None


def test_a_path_is_opened_as_it_is(tmp_path):
    Image.fromarray(np.full((8, 8), 51, "uint8")).save(tmp_path / "grey.png")
    np.savez(tmp_path / "two.npz", images=np.full((2, 8, 8), 204, "uint8"))
    config = parsed(str(tmp_path / "grey.png"), "--against", str(tmp_path / "two.npz"))
    assert open_data(config.images, (1, 8, 8))[0].unique().tolist() == pytest.approx([51 / 127.5 - 1])
    assert torch.equal(open_data(config.against)[1], torch.full((1, 8, 8), 204 / 127.5 - 1))
    assert data_name(config.images) == str(tmp_path / "grey.png")


def test_data_of_a_user_are_named_by_their_import_path(tmp_path, monkeypatch):
    (tmp_path / "my_pictures.py").write_text(
        "import torch\nfrom psld.data import Images\n"
        "class Flat(Images):\n"
        "    def __init__(self, level: float, count: int = 3):\n"
        "        super().__init__(torch.full((count, 1, 8, 8), level))\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    config = parsed("my_pictures.Flat", "--images.level", "0.25")
    assert torch.equal(open_data(config.images).batch(range(3)), torch.full((3, 1, 8, 8), 0.25))
    assert data_name(config.images) == "Flat(level=0.25)"
    sys.modules.pop("my_pictures")


def test_images_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"Digits holds images of 8×8 grey, and the run makes 32×32 colour"):
        open_data(parsed("Digits").images, (3, 32, 32))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Digitz", "neither a file, nor a folder, nor a class of data: did you mean Digits"),
        ("digits", "did you mean Digits"),
        ("nowhere/pictures", "nowhere/pictures"),
    ],
)
def test_what_is_not_there_is_refused_by_name(name, message):
    with pytest.raises(FileNotFoundError, match=message):
        open_data(parsed(name).images)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["Digits", "--images.spilt", "all"], "--images psld.data.Digits has no argument 'spilt': it has split."),
        (["Digits", "--images.split", "none"], "--images.split must be train, heldout or all: got 'none'."),
        (["x", "--against", "CIFAR10"], "--against psld.data.CIFAR10 needs --against.root."),
        (
            ["x", "--sampler", "Foo"],
            "or one of your own by its import path): got 'Foo'.",
        ),
        (["x", "--sampler", "Ancestrl"], "got 'Ancestrl'. Did you mean Ancestral?"),
        (["x", "--sampler", "DDIM"], "got 'DDIM'. Did you mean GDDIM?"),
        (["x", "--sampler", "psld.PSLD"], "--sampler must be a class (Ancestral, Conjugate, ConjugateOBA,"),
        (["x", "--sampler", "RK45", "--sampler.foo", "1"], "--sampler psld.RK45 has no argument 'foo': it has rtol"),
        (["x", "--steps", "many"], "--steps must be a whole number from 1 to 100,000: got 'many'."),
        (
            ["x", "--stesp", "3"],
            "there is no option --stesp: psld judge --help lists them. Did you mean --steps, --seed",
        ),
        (["x", "--sampler", "RK45", "--sampler.rtol", "a"], "--sampler.rtol must be a number: got 'a'."),
        (["x", "--guidance", "a"], "--guidance must be a finite number or a class (Clamped, ClassifierFreeGuidance,"),
        (["x", "--steps"], "--steps needs a value, a whole number from 1 to 100,000: got none."),
        ([], "IMAGES (what to judge: a path (image,"),
        (["x", "--process", "psld.Foo"], "by its import path): got 'psld.Foo'."),
        (["x", "--process", "psld.RK45"], "--process must be a class (CLD, EDM, HigherOrderLangevin, PSLD,"),
    ],
)
def test_what_cannot_be_parsed_is_refused_in_one_sentence(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stop:
        parsed(*arguments)
    (said,) = capsys.readouterr().err.splitlines()
    assert stop.value.code == 2 and said.startswith("psld judge: error: ") and sentence in said


def test_objects_are_built_as_they_are_named():
    chosen = built(parsed("x", "--sampler", "Heun", "--sampler.churn", "0.5"), "sampler")
    assert isinstance(chosen, Heun) and chosen.churn == 0.5
    assert isinstance(built(parsed("x", "--sampler", "Exponential"), "sampler"), Exponential)
    assert built(parsed("x"), "sampler") is None
    assert built(parsed("x"), "process") is None
