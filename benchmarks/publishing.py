"""Training the published checkpoints from their configurations, and writing them into the package with their cards."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from psld.cli import main as psld
from psld.data import ImageData
from psld.files import SUMS, file_sha256, sums_text
from psld.pretrained.published import FOLDER
from psld.runs import spectrum_file
from psld.spectrum import SPECTRUM, Spectrum
from psld.training import latest_checkpoint
from psld.training.checkpoint import AVERAGED, CONFIG, has_checkpoint

__all__ = ["CONFIGS", "publish", "publish_spectrum", "trained"]

CONFIGS = Path(__file__).parents[1] / "configs"


def trained(config: str, run: Path, options: Sequence[str]) -> Path:
    """The run of configs/CONFIG, trained to its end: begun, gone on with, or done already."""
    command = ["train", "--config", str(CONFIGS / config), *options, "--run", str(run)]
    command += ["--training.tensorboard", "false", "--training.progress", "false"]
    if psld([*command, *(["--resume"] if has_checkpoint(run) else [])]) != 0:
        raise SystemExit(f"training of {run} failed.")
    return run


def publish(
    name: str, run: Path | None, about: str, lines: Sequence[str], command: str, data_root: str | None = None
) -> None:
    """Averaged weights, configuration, their hashes and a card in the package, in place of what had that name.

    Args:
        name: of the checkpoint.
        run: where it was trained; None leaves weights and configuration as they are, for a card of new numbers.
        about: what it is, a paragraph.
        lines: how it was measured, and the table.
        command: that made it.
        data_root: what the configuration says in place of the folder where the data were.
    """
    if run is not None:
        _publish_weights(FOLDER / name, latest_checkpoint(run), data_root)
    card = [f"# {name}", "", about, "", f"    psld sample {name} --num 64 --steps 20 --out runs/{name}", "", *lines]
    text = "\n".join([*card, "", f"Made by `{command}`.", ""])
    (FOLDER / name / "README.md").write_text(text, encoding="utf-8")


def _publish_weights(out: Path, source: Path, data_root: str | None) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    shutil.copy(source / AVERAGED, out)
    spectrum = spectrum_file(source)
    if spectrum is not None:
        shutil.copy(spectrum, out)
    config = yaml.safe_load((source / CONFIG).read_text(encoding="utf-8"))
    if data_root is not None:
        config["data"]["init_args"]["root"] = data_root
    (out / CONFIG).write_text(yaml.safe_dump(config, sort_keys=False, allow_unicode=True), encoding="utf-8")
    _write_sums(out)


def publish_spectrum(name: str, data: ImageData) -> None:
    """Mean and components of the training images, beside weights that are published already."""
    Spectrum.measure(data).save(FOLDER / name)
    _write_sums(FOLDER / name)


def _write_sums(out: Path) -> None:
    names = [name for name in (AVERAGED, CONFIG, SPECTRUM) if (out / name).is_file()]
    (out / SUMS).write_text(sums_text({name: file_sha256(out / name) for name in names}), encoding="utf-8")
