"""Drawing into a folder that goes on where it was, and never mixes what differs."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from interrupted import killed_at_the_second_batch
from psld.cli import main
from psld.files import FolderInUseError, locked
from psld.guidance.classifier_free import ClassifierFreeGuidance
from psld.jobs import Arrays, Drawing, Pictures, draw_samples, provenance, weights_sha256
from psld.model import Clamped, Model, ScoreModel
from psld.networks import Autocast
from psld.plots.pictures import load_images
from psld.processes import CLD, PSLD, VPSDE
from psld.runs import load
from psld.samplers import Ancestral, DivergedError, DivergedWarning, Exponential, Heun, Sampler
from psld.samplers.grids import Grid

GRID = Grid([1.0, 0.5, 0.1])
CONFIG = {
    "process": {"class_path": "psld.VPSDE"},
    "network": {
        "class_path": "psld.networks.UNet",
        "init_args": {"width": 8, "multipliers": [1], "blocks": 1, "attention_resolutions": []},
    },
    "data": {"class_path": "psld.data.Digits", "init_args": {"split": "heldout"}},
    "loss": {"class_path": "psld.losses.HSM"},
    "training": {"steps": 2, "batch_size": 8, "warmup_steps": 0, "learning_rate": 0.02, "tensorboard": False},
}


def trained(folder, seed: int, *options: str) -> str:
    """A run of two steps at folder/run."""
    (folder / "run.yaml").write_text(yaml.safe_dump(CONFIG | {"seed": seed}))
    run = str(folder / "run")
    assert main(["train", "--config", str(folder / "run.yaml"), "--run", run, *options]) == 0
    return run


def test_a_run_that_was_trained_anew_is_told_from_the_one_before(tmp_path, capsys):
    """The same path, other weights: images of both must not lie in one folder, nor a picture be restored by neither."""
    run = trained(tmp_path, 0)
    sample = ["sample", run, "--num", "2", "--steps", "3", "--out", str(tmp_path / "samples")]
    picture = str(tmp_path / "samples" / "images" / "000000.png")
    restore = ["restore", run, picture, "--operator", "SuperResolution", "--draws", "1", "--steps", "3"]
    restore += ["--out", str(tmp_path / "restored")]
    assert main(sample) == 0 and main(restore) == 0
    before = (tmp_path / "restored" / "images" / "000000.png").read_bytes()
    trained(tmp_path, 1, "--overwrite")
    for command in ([*sample[:3], "4", *sample[4:]], restore):
        assert main(command) == 1
        assert "differs in weights" in capsys.readouterr().err
    assert len(list((tmp_path / "samples" / "images").iterdir())) == 2
    assert (tmp_path / "restored" / "images" / "000000.png").read_bytes() == before


def test_a_run_that_was_moved_or_copied_is_the_same(tmp_path):
    run = trained(tmp_path, 0)
    options = ["--steps", "3", "--out", str(tmp_path / "samples")]
    assert main(["sample", run, "--num", "1", *options]) == 0
    shutil.move(run, tmp_path / "elsewhere")
    assert main(["sample", str(tmp_path / "elsewhere"), "--num", "2", *options]) == 0
    assert len(list((tmp_path / "samples" / "images").iterdir())) == 2


def test_samplers_that_differ_in_one_argument_do_not_share_a_folder(tmp_path, capsys):
    command = ["sample", "psld-digits", "--num", "1", "--steps", "21", "--out", str(tmp_path / "heun"), "--sampler"]
    assert main([*command, "Heun"]) == 0
    assert main([*command, "Heun", "--sampler.churn_range", "[0.1, 0.5]"]) == 1
    assert "differs in sampler" in capsys.readouterr().err
    drawing = Drawing(load("psld-digits"), Heun(churn_range=(0.1, 0.5)), GRID)
    with pytest.raises(FileExistsError, match="sampler"):
        draw_samples(tmp_path / "heun", drawing, 1)


def test_from_python_it_goes_on_where_it_was_killed(tmp_path, monkeypatch):
    """Each sample is that of its seed, whatever the batch, and what is there is not drawn again."""
    model = Clamped(load("psld-digits"))
    drawing = Drawing(model, Ancestral(), GRID, seed=7, batch_size=2)
    with killed_at_the_second_batch(monkeypatch):
        draw_samples(tmp_path / "out", drawing, 5)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2
    found = draw_samples(tmp_path / "out", drawing, 5)
    assert found is not None and found.nfe == 3.0
    alone = torch.cat([Ancestral().sample(model, grid=GRID, seeds=[seed]).x for seed in range(7, 12)])
    expected = ((alone.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1
    assert float((found.first(5) - expected).abs().max()) <= 1.01 / 127.5  # the network's own rounding
    known = draw_samples(tmp_path / "out", Drawing(model, Ancestral(), GRID, seed=7, batch_size=1), 5)
    assert known is not None and known.nfe is None
    arrays = draw_samples(tmp_path / "npz", drawing, 5, "npz")
    assert arrays is not None and torch.equal(arrays.first(5), found.first(5))
    with np.load(tmp_path / "npz" / "samples.npz") as written:
        assert written["seeds"].tolist() == [7, 8, 9, 10, 11]
    files = sorted((tmp_path / "out" / "images").iterdir())
    assert torch.equal(load_images(files), found.first(5))


def test_a_folder_that_another_process_writes_is_left_alone(tmp_path):
    drawing = Drawing(load("psld-digits"), Ancestral(), GRID)
    with locked(tmp_path / "out", "samples"), pytest.raises(FolderInUseError, match=str(os.getpid())):
        draw_samples(tmp_path / "out", drawing, 1)
    assert not (tmp_path / "out").exists()


# -- what samples depend on --------------------------------------------------------------------------------------------


def small(seed: int = 0) -> torch.nn.Linear:
    torch.manual_seed(seed)
    return torch.nn.Linear(3, 2)


def test_weights_are_known_by_their_values():
    one, two = small(), small()
    assert weights_sha256(one) == weights_sha256(two) != weights_sha256(small(1))
    assert weights_sha256(Autocast(one, torch.bfloat16)) == weights_sha256(one)
    with torch.no_grad():
        two.bias[0] = torch.nextafter(two.bias[0], torch.tensor(9.0))
    assert weights_sha256(one) != weights_sha256(two)


def test_provenance_tells_apart_whatever_changes_samples():
    def known(model: Model, sampler: Sampler | None = None, grid: Grid = GRID, seed: int = 0) -> str:
        return json.dumps(provenance(model, sampler or Exponential(), grid, seed), sort_keys=True)

    model = ScoreModel(small(), CLD())
    model.classes = 10
    different = [
        known(model),
        known(ScoreModel(small(1), CLD())),
        known(ScoreModel(small(), CLD(kappa=0.1))),
        known(ScoreModel(small(), PSLD())),
        known(ScoreModel(small(), CLD(), "x0")),
        known(Clamped(model)),
        known(Clamped(model, -2.0, 2.0)),
        known(ClassifierFreeGuidance(model, 3, 10)),
        known(ClassifierFreeGuidance(model, 3, 10, 2.0)),
        known(ClassifierFreeGuidance(model, 4, 10, 2.0)),
        known(ClassifierFreeGuidance(model, 4, 10, 2.0, (0.1, 0.5))),
        known(model, Exponential(order=1)),
        known(model, Heun()),
        known(model, Heun(churn_range=(0.1, 0.5))),
        known(model, grid=Grid([1.0, 0.5, 0.1], "none")),
        known(model, grid=Grid([1.0, 0.4, 0.1])),
        known(model, seed=1),
    ]
    assert len(set(different)) == len(different)
    assert known(ScoreModel(small(), CLD())) == different[0]
    with pytest.raises(ValueError, match="ClassifierFreeGuidance holds what cannot be compared"):
        known(ClassifierFreeGuidance(model, 3, 10, lambda t: t))


# -- samples that diverged ---------------------------------------------------------------------------------------------


def half_broken() -> ScoreModel:
    """Answers NaN where the mean of the first state is positive: about half of the samples, by their seeds."""

    def denoiser(y, sigma):
        broken = (y.flatten(1).mean(1) > 0) & (sigma > 10)
        return torch.where(broken[:, None, None, None], torch.nan, 0.0 * y)

    return ScoreModel(denoiser, VPSDE(), "denoiser", data_shape=(1, 2, 2))


@pytest.mark.parametrize("file_format", ["png", "npz"])
def test_diverged_samples_are_named_and_written_only_where_that_is_allowed(tmp_path, file_format, monkeypatch):
    monkeypatch.setattr("psld.jobs.drawing.provenance", lambda *known: {})  # a function is no network to be described
    model, seeds = half_broken(), list(range(3, 15))
    with pytest.warns(DivergedWarning):
        alone = Ancestral().sample(model, grid=GRID, seeds=seeds)
    wrong = [seed for seed, image in zip(seeds, alone.x, strict=True) if not image.isfinite().all()]
    good = [i for i, seed in enumerate(seeds) if seed not in wrong]
    assert 3 < len(wrong) < 9
    drawing = Drawing(model, Ancestral(), GRID, seed=3, batch_size=8)
    named = rf"{len(wrong)} samples diverged \(seeds {', '.join(map(str, wrong))}\).*--allow_diverged"
    for _ in range(2):  # the second time only those that are missing are drawn
        with pytest.raises(DivergedError, match=named):
            draw_samples(tmp_path / "out", drawing, 12, file_format)
        store = Pictures(tmp_path / "out") if file_format == "png" else Arrays(tmp_path / "out")
        assert sorted(store.present()) == good and not (tmp_path / "out" / "diverged.json").exists()

    drawn = draw_samples(tmp_path / "out", replace(drawing, allow_diverged=True), 12, file_format)
    assert drawn is not None and drawn.diverged == tuple(wrong) and f"; {len(wrong)} diverged" in drawn.calls
    assert json.loads((tmp_path / "out" / "diverged.json").read_text()) == {"seeds": wrong}
    images = drawn.first(12)
    torch.testing.assert_close(images[good], alone.x[good].float(), rtol=0, atol=1 / 127)
    assert images[[seed - 3 for seed in wrong]].abs().max() < 0.01  # grey
    with pytest.raises(DivergedError, match="since an earlier command allowed it"):
        draw_samples(tmp_path / "out", drawing, 12, file_format)


def test_drawing_ends_with_the_first_batch_that_diverged_as_a_whole(tmp_path):
    class Broken(torch.nn.Module):
        def forward(self, z, t):
            return z * torch.nan

    model = ScoreModel(Broken(), VPSDE(), data_shape=(1, 2, 2))
    with pytest.raises(DivergedError, match=r"^2 samples diverged \(seeds 0, 1\)"):
        draw_samples(tmp_path / "out", Drawing(model, Ancestral(), GRID, batch_size=2), 1000)
    assert not (tmp_path / "out" / "images").exists()


DIVERGING = ["--sampler", "VelocityVerlet", "--steps", "10", "--batch_size", "2"]
"""Of psld-digits, all of them, on the log-SNR grid."""


@pytest.mark.parametrize(
    "command, first",
    [
        (["sample", "psld-digits", "--num", "2"], "seeds 0, 1"),
        (["edit", "psld-digits", "Digits", "--num", "1", "--draws", "2", "--start", "0.9"], "draw 0 of image 0"),
        (
            ["restore", "psld-digits", "Digits", "--num", "1", "--draws", "2", "--operator", "SuperResolution"],
            "draw 0 of image 0",
        ),
        (["inpaint", "psld-digits", "Digits", "--num", "1", "--draws", "2", "--mask", "half"], "draw 0 of image 0"),
    ],
    ids=lambda given: given[0] if isinstance(given, list) else "",
)
def test_every_command_that_draws_fails_of_diverged_samples(tmp_path, capsys, command, first):
    options = [*command, *DIVERGING, "--out", str(tmp_path / "out")]
    assert main(options) == 1
    said = capsys.readouterr().err
    assert "2 samples diverged (seeds 0, 1)" in said and first in said and "--allow_diverged" in said
    assert not list((tmp_path / "out").rglob("*.png"))
    assert main([*options, "--allow_diverged"]) == 0
    assert "2 diverged (seeds 0, 1)" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "images").iterdir())) == 2


def test_evaluation_judges_diverged_samples_says_so_and_fails(tmp_path, capsys):
    command = ["evaluate", "psld-digits", "--against", "Digits", "--num", "10", *DIVERGING, "--out", str(tmp_path)]
    for _ in range(2):  # the second time the result is read
        assert main(command) == 1
        said = capsys.readouterr()
        assert "diverged: 10 of 10 (seeds 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)" in said.out
        assert "10 samples diverged" in said.err
    results = [json.loads(path.read_text()) for path in tmp_path.glob("VelocityVerlet-*.json")]
    assert [result["diverged"] for result in results] == [list(range(10))]
    assert main([*command, "--allow_diverged"]) == 0


def test_no_report_is_written_of_diverged_samples(tmp_path, capsys):
    command = ["report", "psld-digits", "--quick", "--num", "4", *DIVERGING[:4], "--out", str(tmp_path / "report.html")]
    assert main(command) == 1
    assert "4 samples diverged (seeds 0, 1, 2, 3)" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
    assert main([*command, "--allow_diverged"]) == 0
    assert "4 of them diverged" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_two_processes_both_fail_of_diverged_samples_and_name_those_of_each(tmp_path):
    program = Path(sys.executable).with_name("psld")
    command = [program, "sample", "psld-digits", "--num", "4", *DIVERGING, "--devices", "2", "--out", tmp_path / "out"]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert failed.returncode == 1 and "4 samples diverged (seeds 0, 1, 2, 3)" in failed.stderr
    assert "Traceback" not in failed.stderr
    subprocess.run([*command, "--allow_diverged"], check=True, capture_output=True, timeout=120)
    assert json.loads((tmp_path / "out" / "diverged.json").read_text()) == {"seeds": [0, 1, 2, 3]}
    assert sorted(path.name for path in (tmp_path / "out").glob("diverged*")) == ["diverged.json"]
