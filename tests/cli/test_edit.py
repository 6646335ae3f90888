"""`psld edit` and `psld interpolate` against the library, what they keep, and what they refuse."""

import numpy as np
import pytest
from PIL import Image

from psld import editing
from psld.cli import main
from psld.jobs import interpolation
from psld.model import Clamped
from psld.plots.pictures import to_bytes
from psld.processes import CLD
from psld.runs import load
from psld.samplers import Exponential, Heun, Projected
from restored_digits import digits_in, levels, refused


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return folder, digits_in(folder)


def edit(folder, out, start, *options):
    names = ["--num", "2", "--draws", "2", "--steps", "12", "--grid", "quadratic", "--seed", "9", "--start", start]
    return [str(part) for part in ["edit", "cld-digits", folder, "--out", out, *names, *options]]


@pytest.mark.parametrize(
    ("sampler", "options"),
    [(Exponential(), []), (Projected(Heun()), ["--sampler", "Projected", "--sampler.solver", "Heun"])],
    ids=["Exponential", "Projected"],
)
def test_an_edit_is_that_of_its_seed(pictures, tmp_path, sampler, options):
    folder, images = pictures
    assert main(edit(folder, tmp_path / "out", 0.3, "--batch_size", "3", *options)) == 0
    found, model = levels(tmp_path / "out" / "images"), load("cld-digits")
    grid = editing.from_time(sampler.grid("quadratic", model.process, 12), 0.3)
    for i in (1, 2):
        x = editing.edit(sampler, Clamped(model), images[i // 2 : i // 2 + 1].double(), grid, [9 + i]).x
        assert np.abs(found[i] - to_bytes(x.float())[0, ..., 0].astype(int)).max() <= 1


def test_the_later_the_start_the_less_is_kept(pictures, tmp_path, capsys):
    folder, _ = pictures
    changes = []
    for start in (0.01, 0.2, 0.6):
        assert main(edit(folder, tmp_path / str(start), start)) == 0
        assert f"noise scale {float(CLD().noise_scale(start)):.3g};" in capsys.readouterr().out
        changes.append(float(np.abs(levels(tmp_path / str(start) / "images") - levels(folder)[:2].repeat(2, 0)).mean()))
    assert changes[0] < 10 and changes == sorted(changes)
    assert main(edit(folder, tmp_path / "0.2", 0.6)) == 1
    assert "differs in times" in capsys.readouterr().err


def test_edit_refuses(pictures, tmp_path, capsys):
    for start, words in (("1.5", "start must lie in (0.001, 1]"), ("0", "--start must be a finite number above 0")):
        refused(capsys, edit(pictures[0], tmp_path / "out", start), words, tmp_path / "out")


def interpolate(first, last, out, *options):
    return [str(part) for part in ["interpolate", "vp-digits", first, last, "--out", out, *options]]


def test_interpolation(pictures, tmp_path, capsys):
    """Ends come back, the middle is that of the library, and a frame that is missing is drawn as it was."""
    folder, images = pictures
    out = tmp_path / "out"
    options = ["--frames", 3, "--t_min", "0.1", "--tolerance", "1e-3"]
    command = interpolate(folder / "000000.png", folder / "000002.png", out, *options)
    assert main([*command, "--seed", "4"]) == 0
    assert "3 frames" in capsys.readouterr().out
    found = levels(out / "images")
    apart = np.abs(found[[0, 2]] - levels(folder)[[0, 2]])
    assert apart.max() <= 20 and apart.mean() < 1
    model = load("vp-digits")
    z = editing.encode(Clamped(model), images[[0, 2]].double(), [4, 5], 0.1, 1e-3)
    middle = editing.decode(Clamped(model), editing.slerp(z[:1], z[1:], 0.5), 0.1, 1e-3)
    assert np.abs(found[1] - to_bytes(middle.float().clamp(-1, 1))[0, ..., 0].astype(int)).max() <= 1
    strip = np.asarray(Image.open(out / "strip.png"))
    assert strip.shape == (128 + 12, 3 * 128 + 4 * 6)
    assert np.array_equal(strip[6:-6, 6 + 134 : 134 * 2][8::16, 8::16], found[1])
    middle_file = out / "images" / "000001.png"
    middle_file.unlink()
    before = (out / "images" / "000000.png").stat().st_mtime_ns
    assert main([*command, "--seed", "4"]) == 0
    assert np.abs(levels(out / "images") - found).max() <= 1  # the network's own rounding, as above
    assert (out / "images" / "000000.png").stat().st_mtime_ns == before
    assert main([*command, "--seed", "5"]) == 1
    assert "differs in seed" in capsys.readouterr().err


def test_positions_of_a_data_set(pictures, tmp_path, monkeypatch):
    """They are the files at these places: the same command but for that has nothing left to do."""
    options = ["--frames", "2", "--t_min", "0.4", "--tolerance", "0.5"]
    assert main(interpolate(2, 1, tmp_path / "out", "--of", pictures[0], *options)) == 0
    monkeypatch.setattr(interpolation, "encode", lambda *_: pytest.fail("something was computed again"))
    files = [pictures[0] / f"00000{i}.png" for i in (2, 1)]
    assert main(interpolate(*files, tmp_path / "out", *options)) == 0
    assert main(interpolate(*files[::-1], tmp_path / "out", *options)) == 1


def test_interpolate_refuses(pictures, tmp_path, capsys):
    folder, out = pictures[0], tmp_path / "out"
    small, ends = tmp_path / "small.png", [pictures[0] / f"00000{i}.png" for i in (0, 1)]
    Image.fromarray(np.zeros((6, 9, 3), dtype=np.uint8)).save(small)
    for arguments, words in (
        ([*ends, out, "--frames", "1"], "--frames must be a whole number from 2"),
        ([*ends, out, "--t_min", "1"], "t_min must lie between 0 and 1"),
        ([*ends, out, "--tolerance", "0"], "--tolerance must be a finite number above 0"),
        ([ends[0], small, out], "nothing is enlarged"),
        ([0, 3, out, "--of", folder], "a position, 0 … 2: got 3"),
        (["a", 1, out, "--of", folder], "a position, 0 … 2: got a"),
    ):
        refused(capsys, interpolate(*arguments), words, out)
