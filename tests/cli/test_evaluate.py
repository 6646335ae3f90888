"""`psld stats` and `psld evaluate`: figures against a second computation, what is kept, what is refused."""

import json

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image

from psld.cli import evaluate, main
from psld.data import Digits
from psld.evaluation.bundled import bundled_classifier
from psld.evaluation.pictures import save_images

DRAWN = ["evaluate", "psld-digits", "--against", "digits", "--num", "40", "--grid", "optimised"]


def written(folder, pattern="*.json"):
    (file,) = folder.glob(pattern)
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.filterwarnings("ignore:Matrix is singular")
def test_images_against_data_and_against_their_statistics(tmp_path):
    """Held-out digits against training digits, by scipy's matrix square root on the same features of 8-bit pixels."""
    classifier, _ = bundled_classifier("digits")
    moments = []
    for split in ("heldout", "train"):
        pixels = ((Digits(split).images + 1) * 127.5).round()
        features = classifier.features(pixels / 127.5 - 1).double().numpy()
        moments.append((features.mean(0), np.cov(features.T)))
    (mean, covariance), (other, spread) = moments
    root = np.real(scipy.linalg.sqrtm(covariance @ spread))
    expected = np.square(mean - other).sum() + np.trace(covariance + spread - 2 * root)
    direct = ["evaluate", "digits", "--split", "heldout", "--against", "digits", "--out", str(tmp_path / "direct")]
    assert main(direct) == 0
    figures = written(tmp_path / "direct")["figures"]
    assert figures["Fréchet distance"] == pytest.approx(expected, rel=1e-6)
    assert main(["stats", "digits", "--out", str(tmp_path / "train.npz")]) == 0
    again = ["evaluate", "digits", "--split", "heldout", "--against", str(tmp_path / "train.npz")]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    assert written(tmp_path / "again")["figures"] == figures


def test_a_folder_of_pngs_is_worth_the_same_as_the_array(tmp_path):
    """The digits have 17 grey levels; saving them rounds to 256, and judging rounds to the same."""
    save_images(Digits("heldout").images[:100], tmp_path / "images")
    pixels = np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / "images").iterdir())])
    np.savez(tmp_path / "images.npz", images=pixels[..., None])
    results = []
    for source in ("images", "images.npz"):
        out = tmp_path / f"out-{source}"
        assert main(["evaluate", str(tmp_path / source), "--against", "digits", "--out", str(out)]) == 0
        results.append(written(out)["figures"])
    assert results[0] == results[1]


def test_a_result_depends_on_no_batch_size_and_is_not_computed_twice(tmp_path, monkeypatch):
    for name, batch in (("a", "40"), ("b", "16")):
        assert main([*DRAWN, "--steps", "5", "--batch_size", batch, "--out", str(tmp_path / name)]) == 0
    first, second = (written(tmp_path / name)["figures"]["Fréchet distance"] for name in "ab")
    assert written(tmp_path / "a")["samples"]["source"].startswith("psld-digits, Exponential")
    assert first == pytest.approx(second, rel=1e-5)
    monkeypatch.setattr(evaluate, "generate", lambda *_: pytest.fail("samples were drawn again"))
    assert main([*DRAWN, "--steps", "5", "--out", str(tmp_path / "a")]) == 0


def test_a_sweep_goes_on_where_it_was(tmp_path, monkeypatch):
    sweep = [*DRAWN, "--sweep", "--only", "Exponential(order=2), optimised", "--out", str(tmp_path)]
    drawn, generate = [], evaluate.generate

    def counted(sampler, model, shape, grid, *rest):
        drawn.append(len(grid.times))
        return generate(sampler, model, shape, grid, *rest)

    def killed_at_8(sampler, model, shape, grid, *rest):
        yield from counted(sampler, model, shape, grid, *rest)
        if len(grid.times) == 8:
            raise SystemExit(143)

    monkeypatch.setattr(evaluate, "generate", killed_at_8)
    with pytest.raises(SystemExit):
        main([*sweep, "--nfe", "5", "8"])
    assert len(list(tmp_path.iterdir())) == 1  # of NFE 5; of the one that was cut off, nothing
    monkeypatch.setattr(evaluate, "generate", counted)
    assert main([*sweep, "--nfe", "5", "8"]) == 0
    assert drawn == [5, 8, 8]
    points = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    assert [point["budget"] for point in points] == [5, 8]
    assert Image.open(tmp_path / "sweep.png").size[0] > 300


def refused(capsys, *arguments):
    assert main([*map(str, arguments)]) == 1
    return capsys.readouterr().err


def test_bad_input_is_refused_by_name(tmp_path, capsys):
    for name in ("empty", "mixed", "broken", "large"):
        (tmp_path / name).mkdir()
    grey = Image.fromarray(np.zeros((8, 8), np.uint8))
    for name in ("mixed", "broken"):
        grey.save(tmp_path / name / "0.png")
    grey.convert("RGB").save(tmp_path / "mixed" / "1.png")
    whole = (tmp_path / "broken" / "0.png").read_bytes()
    (tmp_path / "broken" / "1.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "large" / "0.png")
    assert "empty" in refused(capsys, "evaluate", tmp_path / "empty", "--against", "digits")
    assert "1.png is 8×8, mode RGB" in refused(capsys, "evaluate", tmp_path / "mixed", "--against", "digits")
    assert "1.png" in refused(capsys, "evaluate", tmp_path / "broken", "--against", "digits")
    assert "(1, 16, 16)" in refused(
        capsys, "evaluate", "psld-digits", "--against", tmp_path / "large", "--out", tmp_path / "out"
    )
    assert "give --out" in refused(capsys, "evaluate", "psld-digits", "--against", "digits")
    assert not (tmp_path / "out").exists()


def test_statistics_of_another_extractor_are_refused(tmp_path, capsys):
    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, ::2]

    torch.jit.script(Halves()).save(tmp_path / "halves.pt")
    assert main(["stats", "digits", "--extractor", str(tmp_path / "halves.pt"), "--out", str(tmp_path / "s.npz")]) == 0
    message = refused(capsys, *DRAWN[:2], "--against", tmp_path / "s.npz", "--out", tmp_path / "out")
    assert "digits classifier" in message and "halves.pt" in message
