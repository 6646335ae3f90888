"""`psld stats` and `psld evaluate`: figures against a second computation, what is kept, what is refused."""

import json
import os

import numpy as np
import pytest
import scipy.linalg
import torch
from PIL import Image

from ending import exit_code
from psld.cli import main, measuring
from psld.comparison import read_results
from psld.data import Digits, FileImages
from psld.evaluation.features.bundled import bundled_classifier
from psld.files import locked
from psld.jobs import evaluating
from psld.model import Clamped, ScoreModel
from psld.plots.pictures import save_images
from psld.runs import load
from psld.samplers import Exponential

DRAWN = ["evaluate", "psld-digits", "--against", "Digits", "--num", "40", "--grid", "optimised"]


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
    direct = ["evaluate", "Digits", "--run.split", "heldout", "--against", "Digits", "--out", str(tmp_path / "direct")]
    assert main(direct) == 0
    figures = written(tmp_path / "direct")["figures"]
    assert figures["Fréchet distance"] == pytest.approx(expected, rel=1e-6)
    assert main(["stats", "Digits", "--out", str(tmp_path / "train.npz")]) == 0
    again = ["evaluate", "Digits", "--run.split", "heldout", "--against", str(tmp_path / "train.npz")]
    assert main([*again, "--out", str(tmp_path / "again")]) == 0
    assert written(tmp_path / "again")["figures"] == figures
    assert main(["stats", "Digits", "--data.split", "heldout", "--out", str(tmp_path / "held.npz")]) == 0
    assert main([*again, "--floor", str(tmp_path / "held.npz"), "--out", str(tmp_path / "floor")]) == 0
    floor = written(tmp_path / "floor")["floor"]
    assert (floor["source"], floor["images"], floor["against"]) == ("Digits(split='heldout')", 360, 1437)
    assert [floor["Fréchet distance"], floor["samples"]] == pytest.approx([expected, expected], rel=1e-5)
    low, high = written(tmp_path / "floor")["interval"]["Fréchet distance"]
    assert low < expected < high and low + high == pytest.approx(2 * expected, rel=1e-6)


def test_so_many_images_are_a_random_choice_and_not_the_first_classes(tmp_path, capsys):
    """A folder a class, in order: the first 100 would be zeros and ones."""
    classes_apart(tmp_path)
    read, batch = [], FileImages.batch

    def seen(images, indices):
        if len(indices) == 100:  # of a fingerprint there are more
            read.append([int(images.labels[index]) for index in indices])
        return batch(images, indices)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FileImages, "batch", seen)
        for seed in ("0", "0", "1"):
            command = ["evaluate", str(tmp_path / "folders"), "--num", "100", "--seed", seed, "--against", "Digits"]
            assert main([*command, "--out", str(tmp_path / f"out{seed}")]) == 0
    first, again, other = read
    assert first == again != other
    assert set(first) == set(range(10)) and max(first.count(label) for label in range(10)) < 25
    shown = capsys.readouterr().out
    assert "100 real images against 1337: Digits, images at random against the rest" in shown
    result = written(tmp_path / "out0")
    assert result["floor"]["ratio"] == pytest.approx(
        result["floor"]["samples"] / result["floor"]["Fréchet distance"], rel=1e-12
    )


def test_a_folder_of_pngs_is_worth_the_same_as_the_array(tmp_path):
    """The digits have 17 grey levels; saving them rounds to 256, and judging rounds to the same."""
    save_images(Digits("heldout").images[:100], tmp_path / "images")
    pixels = np.stack([np.asarray(Image.open(file)) for file in sorted((tmp_path / "images").iterdir())])
    np.savez(tmp_path / "images.npz", images=pixels[..., None])
    results = []
    for source in ("images", "images.npz"):
        out = tmp_path / f"out-{source}"
        assert main(["evaluate", str(tmp_path / source), "--against", "Digits", "--out", str(out)]) == 0
        results.append(written(out)["figures"])
    assert results[0] == results[1]


def test_a_result_depends_on_no_batch_size_and_is_not_computed_twice(tmp_path, monkeypatch):
    for name, batch in (("a", "40"), ("b", "16")):
        assert main([*DRAWN, "--steps", "5", "--batch_size", batch, "--out", str(tmp_path / name)]) == 0
    first, second = (written(tmp_path / name)["figures"]["Fréchet distance"] for name in "ab")
    assert written(tmp_path / "a")["samples"]["source"].startswith("psld-digits, Projected")
    assert first == pytest.approx(second, rel=1e-5)
    monkeypatch.setattr(evaluating, "draw", lambda *_, **__: pytest.fail("samples were drawn again"))
    again = [*DRAWN, "--steps", "5", "--out", str(tmp_path / "a")]
    assert main(again) == 0
    floor = written(tmp_path / "a")["floor"]
    assert (floor["images"], floor["against"], floor["choices"]) == (40, 1397, 5)
    with locked(tmp_path / "a", "results"):
        assert main(again) == 1


@pytest.mark.parametrize("other", [["--sampler.churn_range", "[0, 0.3]"], ["--sampler.churn", "0.5"]])
def test_samplers_that_differ_in_any_argument_are_two_results(tmp_path, other):
    """Noise between other noise levels is another sampler, also where the name in the table does not say so."""
    churned = [*DRAWN, "--steps", "39", "--sampler", "Heun", "--sampler.churn", "1.5"]
    churned += ["--sampler.churn_range", "[0.5, 80]"]
    assert main([*churned, "--out", str(tmp_path)]) == 0
    first = written(tmp_path, "Heun-39-*.json")["figures"]["Fréchet distance"]
    assert main([*churned, *other, "--out", str(tmp_path)]) == 0
    found = [json.loads(file.read_text(encoding="utf-8")) for file in tmp_path.glob("Heun-39-*.json")]
    distances = {result["figures"]["Fréchet distance"] for result in found}
    assert len(found) == 2 and first in distances and len(distances) == 2


def test_a_sweep_goes_on_where_it_was(tmp_path, monkeypatch):
    sweep = [*DRAWN, "--sweep", "--only", "Exponential(order=2), optimised", "--out", str(tmp_path)]
    drawn, draw = [], evaluating.draw

    def counted(sampler, model, shape, grid, *rest, **others):
        drawn.append(len(grid.times))
        return draw(sampler, model, shape, grid, *rest, **others)

    def killed_at_8(sampler, model, shape, grid, *rest, **others):
        yield from counted(sampler, model, shape, grid, *rest, **others)
        if len(grid.times) == 8:
            raise SystemExit(143)

    monkeypatch.setattr(evaluating, "draw", killed_at_8)
    with pytest.raises(SystemExit):
        main([*sweep, "--nfe", "5", "8"])
    assert len(list(tmp_path.iterdir())) == 1  # of NFE 5; of the one that was cut off, nothing
    monkeypatch.setattr(evaluating, "draw", counted)
    assert main([*sweep, "--nfe", "5", "8"]) == 0
    assert drawn == [5, 8, 8]
    points = json.loads((tmp_path / "sweep.json").read_text(encoding="utf-8"))
    shares = [f"{point['confident']:.0%}" for point in points]
    assert f"| {' | '.join(shares)} |" in (tmp_path / "sweep.md").read_text(encoding="utf-8")
    assert [point["budget"] for point in points] == [5, 8]
    rows, table = read_results(tmp_path / "sweep.csv"), (tmp_path / "sweep.tex").read_text(encoding="utf-8")
    assert rows == read_results(tmp_path / "sweep.json")
    for row in rows:
        assert row.floor_images == 40 and row.frechet_low is not None and row.frechet_high is not None
        assert f"\\textbf{{{row.frechet:.3g}}} ({row.frechet_low:.3g}--{row.frechet_high:.3g})" in table
    assert Image.open(tmp_path / "sweep.png").size[0] > 300


def classes_apart(tmp_path):
    """The digits of the training set as an .npz with labels, and as a folder a class."""
    train = Digits("train")
    pixels = ((train.images + 1) * 127.5).round().to(torch.uint8)
    np.savez(tmp_path / "digits.npz", images=pixels.permute(0, 2, 3, 1).numpy(), labels=train.labels.numpy())
    for label in range(10):
        save_images(train.images[train.labels == label][:60], tmp_path / "folders" / str(label))


def distance(images, others):
    """Fréchet, by the nuclear norm of a product of centred features: tr (C C')^½ = ‖A A'ᵀ‖ with C = AᵀA."""
    classifier, _ = bundled_classifier("digits")
    pixels = (((x.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1 for x in (images, others))
    features = [classifier.features(x.float()).detach().double() for x in pixels]
    (a, mean), (b, other) = (((f - f.mean(0)) / (len(f) - 1) ** 0.5, f.mean(0)) for f in features)
    cross = torch.linalg.matrix_norm(a @ b.mT, "nuc")
    return float((mean - other).square().sum() + a.square().sum() + b.square().sum() - 2 * cross)


CLASS = ["evaluate", "psld-digits-conditional", "--against", "Digits", "--num", "40", "--label", "3"]


def test_a_class_is_judged_by_data_of_that_class(tmp_path, capsys):
    """Threes of the conditional model, made here without any guidance, against threes."""
    model = load("psld-digits-conditional")
    told = ScoreModel(
        lambda z, t: model.network(z.float(), t.float(), label=torch.full((len(z),), 3)).to(z),
        model.process,
        model.predicts,
    )
    grid = Exponential().grid("log-snr", model.process, 5)
    drawn = Exponential().sample(Clamped(told), grid=grid, seeds=range(40), shape=(1, 8, 8)).x
    train, held = Digits("train"), Digits("heldout")
    threes = train.images[train.labels == 3]
    plain = ["--sampler", "Exponential", "--grid", "log-snr", "--steps", "5"]
    assert main([*CLASS, *plain, "--floor", "Digits", "--floor.split", "heldout", "--out", str(tmp_path)]) == 0
    result, shown = written(tmp_path), capsys.readouterr().out
    assert result["figures"]["Fréchet distance"] == pytest.approx(distance(drawn, threes), rel=1e-4)
    floor = distance(held.images[held.labels == 3], threes)
    assert result["floor"]["Fréchet distance"] == pytest.approx(floor, rel=1e-4)
    assert "log-snr, class 3, guidance 1\n" in shown and f"data: {len(threes)} of Digits, class 3\n" in shown
    assert "real images against 147: Digits(split='heldout'), class 3)" in shown
    assert (
        main(["evaluate", "Digits", "--run.split", "heldout", *CLASS[2:4], *CLASS[6:], "--out", str(tmp_path / "d")])
        == 0
    )
    assert written(tmp_path / "d")["figures"]["Fréchet distance"] == pytest.approx(floor, rel=1e-4)


def test_results_of_classes_and_scales_are_kept_apart(tmp_path, monkeypatch):
    out = ["--steps", "5", "--num", "16", "--out", str(tmp_path)]
    for options in ([], ["--guidance", "2"], ["--label", "4"]):
        assert main([*CLASS, *out, *options]) == 0
    assert main([*CLASS[:-2], *out]) == 0
    assert len(list(tmp_path.iterdir())) == 4
    sweep = ["--sweep", "--only", "Exponential(order=2), optimised", "--nfe", "5", "--guidance", "1.5"]
    assert main([*CLASS, *out, *sweep]) == 0
    names = {path.name for path in tmp_path.glob("sweep*")}
    assert names == {f"sweep-class-3-guidance-1.5.{kind}" for kind in ("csv", "json", "md", "png", "tex")}
    monkeypatch.setattr(evaluating, "draw", lambda *_, **__: pytest.fail("samples were drawn again"))
    assert main([*CLASS, *out, "--guidance", "1"]) == 0  # what it is unless given


def test_labels_of_arrays_and_folders_choose_the_class(tmp_path):
    classes_apart(tmp_path)
    train = Digits("train")
    chosen = {"digits.npz": train.images[train.labels == 7], "folders": train.images[train.labels == 7][:60]}
    held = Digits("heldout")
    for source, images in chosen.items():
        command = ["evaluate", "Digits", "--run.split", "heldout", "--against", str(tmp_path / source), "--label", "7"]
        assert main([*command, "--out", str(tmp_path / "out" / source)]) == 0
        found = written(tmp_path / "out" / source)["figures"]["Fréchet distance"]
        assert found == pytest.approx(distance(held.images[held.labels == 7], images), rel=1e-4)


def test_classes_that_cannot_be_judged_are_refused_before_anything_is_measured(tmp_path, capsys, monkeypatch):
    save_images(Digits("heldout").images[:4], tmp_path / "plain")
    assert main(["stats", "Digits", "--out", str(tmp_path / "s.npz")]) == 0
    monkeypatch.setattr(measuring, "statistics_of", lambda *_: pytest.fail("data were measured"))
    run, images = CLASS[:4], ["evaluate", "Digits", "--against", "Digits"]
    for command, message in (
        ([*run, "--label", "10"], "labels are 0 … 9: got --label 10"),
        ([*run, "--label", "3", "--guidance", "1e999"], "--guidance must be a finite number"),
        ([*run, "--guidance", "2"], "--guidance 2.0 needs a class to guide to: give --label"),
        (["evaluate", "psld-digits", *CLASS[2:]], "--label 3 is for runs trained with labels, and this one was not"),
        ([*CLASS, "--against", tmp_path / "s.npz"], "statistics do not say which class an image is of"),
        ([*CLASS, "--floor", tmp_path / "s.npz"], "Give the data themselves to --floor"),
        ([*CLASS, "--against", tmp_path / "plain"], "plain has no labels, so images of class 3 cannot be told"),
        ([*images, "--label", "10"], "Digits has no image of class 10: its labels are 0 … 9"),
        ([*images, "--label", "3", "--guidance", "2"], "--guidance 2.0 is for samples of a run, and there is none"),
    ):
        assert message in refused(capsys, *command, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def refused(capsys, *arguments):
    assert exit_code([*map(str, arguments)]) in (1, 2)
    return capsys.readouterr().err


def test_bad_input_is_refused_by_name(tmp_path, capsys):
    for name in ("empty", "mixed", "broken", "small"):
        (tmp_path / name).mkdir()
    grey = Image.fromarray(np.zeros((8, 8), np.uint8))
    for name in ("mixed", "broken"):
        grey.save(tmp_path / name / "0.png")
    grey.convert("RGB").save(tmp_path / "mixed" / "1.png")
    whole = (tmp_path / "broken" / "0.png").read_bytes()
    (tmp_path / "broken" / "1.png").write_bytes(whole[: len(whole) // 2])
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "small" / "0.png")
    assert "empty" in refused(capsys, "evaluate", tmp_path / "empty", "--against", "Digits")
    assert "Digits holds images of 8×8 grey, and samples are 8×8 colour" in refused(
        capsys, "evaluate", tmp_path / "mixed", "--against", "Digits"
    )
    assert "1.png" in refused(capsys, "evaluate", tmp_path / "broken", "--against", "Digits")
    assert "0.png gives 4×4 pixels, fewer than image_size=8: nothing is enlarged" in refused(
        capsys, "evaluate", "psld-digits", "--against", tmp_path / "small", "--out", tmp_path / "out"
    )
    assert "give --out" in refused(capsys, "evaluate", "psld-digits", "--against", "Digits")
    assert not (tmp_path / "out").exists()


def test_statistics_of_another_extractor_are_refused(tmp_path, capsys):
    class Halves(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, ::2]

    torch.jit.script(Halves()).save(tmp_path / "halves.pt")
    command = ["stats", "Digits", "--extractor", str(tmp_path / "halves.pt"), "--out", str(tmp_path / "s.npz")]
    assert "runs code of whoever made it" in refused(capsys, *command) and not (tmp_path / "s.npz").exists()
    assert main([*command, "--trust"]) == 0
    message = refused(capsys, *DRAWN[:2], "--against", tmp_path / "s.npz", "--out", tmp_path / "out")
    assert "digits classifier" in message and "halves.pt" in message


def test_statistics_are_written_by_one_process_at_a_time(tmp_path, capsys):
    file = tmp_path / "digits.npz"
    with locked(file, "statistics"):
        assert main(["stats", "Digits", "--data.split", "heldout", "--out", str(file)]) == 1
    assert (
        f"psld stats: error: statistics cannot be written to {file}: process {os.getpid()} on"
        in capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []
