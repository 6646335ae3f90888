"""`psld inpaint` against the library, picture by picture; known pixels, seeds, interruptions and refusals."""

import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from interrupted import killed_at_the_second_batch
from psld.cli import main
from psld.inverse.masks import named_mask
from psld.inverse.operators import Mask
from psld.inverse.posterior import DPS, MMPS, PiGDM
from psld.inverse.replacement import Replacement
from psld.model import Clamped
from psld.plots.pictures import to_bytes
from psld.runs import load
from psld.samplers import RK45, Ancestral, Exponential, Projected, Sampler
from restored_digits import digits_in, drawn, levels, refused

KNOWN = named_mask("center", (1, 8, 8))
INSIDE = KNOWN[0].numpy()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return folder, digits_in(folder)


def command(folder, out, *options, run="psld-digits", num=2):
    names = ["--mask", "center", "--num", num, "--draws", "2", "--steps", "5", "--grid", "quadratic", "--seed", "40"]
    return [str(part) for part in ["inpaint", run, folder, "--out", out, *names, *options]]


def guided(kind, sampler, noise=0.05, **own):
    return lambda model, x: (sampler, kind(model, Mask(KNOWN), x[:, KNOWN], noise, **own))


def replaced(build):
    return lambda model, x: (build(x), model)


METHODS = {
    "mmps": (
        "cld-digits",
        ["--method.iterations", "2", "--noise", "0.1", "--sampler", "Exponential"],
        guided(MMPS, Exponential(), 0.1, iterations=2),
    ),
    "dps": ("psld-digits", ["--method", "DPS", "--method.step", "2"], guided(DPS, Ancestral(), step=2.0)),
    "replacement": (
        "psld-digits",
        ["--method", "Replacement", "--method.resamplings", "3"],
        replaced(lambda x: Replacement(Ancestral(), x, KNOWN, 3)),
    ),
    "in sigma-space": (
        "psld-digits",
        [
            "--method",
            "Replacement",
            "--method.resamplings",
            "2",
            "--sampler",
            "Projected",
            "--sampler.solver",
            "Exponential",
        ],
        replaced(lambda x: Projected(Replacement(Exponential(), x, KNOWN, 2))),
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_draw_is_that_of_its_seed_and_known_pixels_are_those_given(pictures, tmp_path, name):
    """Three draws at a time here, each by itself there; 4 draws of 2 images, so a batch holds both images."""
    folder, images = pictures
    run, options, build = METHODS[name]
    assert main(command(folder, tmp_path / "out", "--batch_size", "3", *options, run=run)) == 0
    names = [path.name for path in sorted((tmp_path / "out" / "images").iterdir())]
    assert names == ["000000-0.png", "000000-1.png", "000001-0.png", "000001-1.png"]
    found, truth = levels(tmp_path / "out" / "images"), levels(folder)
    model = load(run)
    for i, image in enumerate(found):
        assert np.array_equal(image[INSIDE], truth[i // 2][INSIDE])
    for i in (1, 2):
        x = images[i // 2 : i // 2 + 1].double()
        sampler, asked = build(model, x)
        alone = drawn(sampler, asked, sampler.grid("quadratic", model.process, 5), 40 + i)
        assert np.abs(found[i] - alone)[~INSIDE].max() <= 1  # the network's own rounding differs with the batch size


def test_an_adaptive_sampler_takes_images_one_by_one(pictures, tmp_path):
    """It drops the second image, which is finished earlier, and the first must keep its own measurement."""
    folder, images = pictures
    options = ["--draws", "1", "--method", "PiGDM", "--method.data_std", "0.7", "--noise", "0.5", "--seed", "42"]
    options += ["--sampler", "RK45", "--sampler.rtol", "3", "--sampler.atol", "3", "--allow_diverged"]  # so coarse
    assert main(command(folder, tmp_path / "out", *options, run="vp-digits")) == 0
    found, model, sampler = levels(tmp_path / "out" / "images"), load("vp-digits"), RK45(3.0, 3.0)
    grid, calls = sampler.grid("quadratic", model.process, 5), []
    for i in range(2):
        x = images[i : i + 1].double()
        asked = Clamped(PiGDM(model, Mask(KNOWN), x[:, KNOWN], 0.5, data_std=0.7))
        alone = sampler.sample(asked, grid=grid, seeds=[42 + i], shape=(1, 8, 8))
        calls.append(int(alone.nfe))
        assert np.abs(found[i] - to_bytes(alone.x.float())[0, ..., 0].astype(int))[~INSIDE].max() <= 1
    assert calls[1] < calls[0]


def test_the_grid_and_the_closing_line(pictures, tmp_path, capsys):
    folder, _ = pictures
    assert main(command(folder, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    found, truth = levels(tmp_path / "out" / "images"), levels(folder)[:2].repeat(2, 0)
    error = np.sqrt(np.square((found - truth)[:, ~INSIDE] / 127.5).mean())
    assert float(re.search(r"unknown pixels (\d\.\d+)", said)[1]) == pytest.approx(error, abs=1e-4)  # pyright: ignore[reportOptionalSubscript]
    assert "5 network evaluations each" in said and "grid.png" in said
    grid = np.asarray(Image.open(tmp_path / "out" / "grid.png").convert("L"))
    titles, edge, gap, side = 40, 24, 16, 128  # as `save_panels` places them
    rows = [titles + gap + i * (side + gap) for i in range(2)]
    truth_at, known_at = edge + gap, edge + (side + 2 * gap) + edge + gap
    draws_at = known_at + side + gap + edge + gap
    for i, top in enumerate(rows):
        shown = [
            grid[top : top + side, left : left + side][8::16, 8::16]
            for left in (truth_at, known_at, draws_at, draws_at + side + gap)
        ]
        assert np.array_equal(shown[0], truth[2 * i])
        assert np.array_equal(shown[1], np.where(INSIDE, truth[2 * i], 128))
        assert np.array_equal(shown[2], found[2 * i]) and np.array_equal(shown[3], found[2 * i + 1])


def test_it_goes_on_with_what_is_missing(pictures, tmp_path, monkeypatch, capsys):
    folder, _ = pictures
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert main(command(folder, whole, "--batch_size", "3")) == 0
    with killed_at_the_second_batch(monkeypatch):
        main(command(folder, parts, "--batch_size", "3"))
    first = sorted((parts / "images").iterdir())
    before = [path.stat().st_mtime_ns for path in first]
    assert len(first) == 3 and not (parts / "grid.png").exists()
    assert main(command(folder, parts, "--batch_size", "3")) == 0
    assert [path.stat().st_mtime_ns for path in first] == before
    assert np.array_equal(levels(parts / "images"), levels(whole / "images"))
    assert (parts / "grid.png").read_bytes() == (whole / "grid.png").read_bytes()
    monkeypatch.setattr(Sampler, "sample", lambda *_, **__: pytest.fail("something was drawn again"))
    assert main(command(folder, parts)) == 0
    assert main(command(folder, parts, "--mask", "half", "--noise", "0.1")) == 1
    assert "differs in known, noise" in capsys.readouterr().err
    assert main(command(folder, parts, num=3)) == 1
    assert "differs in images" in capsys.readouterr().err


def test_a_picture_and_a_mask_of_ones_own(pictures, tmp_path, capsys):
    """A mask from a file is that of the same name; one draw an image has no number; nothing true is told apart."""
    folder, _ = pictures
    Image.fromarray(np.where(INSIDE, 255, 0).astype(np.uint8)).save(tmp_path / "mask.png")
    file = folder / "000001.png"
    assert (
        main(command(file, tmp_path / "own", "--mask", tmp_path / "mask.png", "--draws", 1, "--degraded", num=1)) == 0
    )
    assert "RMSE" not in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "own" / "images").iterdir()] == ["000000.png"]
    known = json.loads((tmp_path / "own" / "sampling.json").read_text())
    assert main(command(file, tmp_path / "named", "--draws", 1, num=1)) == 0
    assert known == json.loads((tmp_path / "named" / "sampling.json").read_text())
    assert np.array_equal(levels(tmp_path / "own" / "images"), levels(tmp_path / "named" / "images"))
    assert np.array_equal(levels(tmp_path / "own" / "images")[0][INSIDE], levels(folder)[1][INSIDE])


def test_refusals(pictures, tmp_path, capsys):
    folder, _ = pictures
    out = tmp_path / "out"
    for name, size, level in (("small", 4, 0), ("white", 8, 255), ("black", 8, 0)):
        Image.fromarray(np.full((size, size), level, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    replacement = ["--method", "Replacement"]
    for source, options, words in (
        (folder, ["--mask", tmp_path / "small.png"], "4×4 pixels and the images are 8×8"),
        (folder, ["--mask", tmp_path / "white.png"], "knows every pixel"),
        (folder, ["--mask", tmp_path / "black.png"], "knows no pixel"),
        (folder, ["--mask", "middle"], "there is no file middle"),
        (folder, [*replacement, "--sampler", "RK45"], "needs a fixed-step sampler"),
        (folder, [*replacement, "--sampler", "Projected", "--sampler.solver", "RK45"], "needs a fixed-step sampler"),
        (folder, [*replacement, "--noise", "0.1"], "--noise 0.1 is of posterior guidance"),
        (folder, [*replacement, "--method.resamplings", "0"], "resamplings must be at least 1: got 0"),
        (folder, ["--method", "DPS", "--noise", "0"], "needs noise > 0"),
        (folder, ["--draws", "0"], "--draws must be a whole number from 1 to"),
        (tmp_path / "small.png", [], "small.png gives 4×4 pixels, fewer than image_size=8: nothing is enlarged"),
        (tmp_path / "none.png", [], "no image file"),
    ):
        refused(capsys, command(source, out, *options, num=1), words, out)
    refused(capsys, command(folder, out, num=4), "more than the 3 images", out)
    for options, words in (
        (["--method.resamplings", "3"], "MMPS has no argument 'resamplings'"),
        (["--method.step", "3"], "MMPS has no argument 'step'"),
        (["--method", "RK45"], "or one of your own by its import path): got 'RK45'"),
    ):
        with pytest.raises(SystemExit):
            main(command(folder, out, *options))
        assert words in capsys.readouterr().err and not out.exists()


def test_draws_that_are_not_finite_are_named(pictures, tmp_path, capsys, monkeypatch):
    folder, _ = pictures
    step = Ancestral.step

    def broken(*arguments, **options):
        z, state = step(*arguments, **options)
        z[3] = torch.nan
        return z, state

    monkeypatch.setattr(Ancestral, "step", broken)
    assert main(command(folder, tmp_path / "out")) == 1
    said = capsys.readouterr().err
    assert "1 sample diverged (seed 43): not finite" in said and "(draw 1 of image 1 is the first)" in said
    names = [path.name for path in sorted((tmp_path / "out" / "images").iterdir())]
    assert names == ["000000-0.png", "000000-1.png", "000001-0.png"]
