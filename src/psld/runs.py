"""From a name or a folder to a model, and back: a training run, an exported model, a published one.

    model = psld.load("runs/faces")             # a training run, or one checkpoint of it
    model = psld.load("psld-digits")            # published with the library
    model = psld.load("ddpm-cifar10-32")        # a folder of diffusers, its UNet2DModel taken for D(y; σ)

A folder says itself what its network is: config.yaml names classes and their arguments, and only classes that psld
lists are made of it (`psld.specs.build`), no larger than its weights. Weights are safetensors. So loading a folder from
elsewhere runs no code of its author's and fetches nothing, unless it is trusted (SECURITY.md).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml
from jaxtyping import Float
from torch import Tensor, nn

from psld.data import HuggingFace, ImageData
from psld.distributed import available_device
from psld.files import UnreadableFileError, read_json, read_yaml, require_new_folder
from psld.model import Predicts, ScoreModel
from psld.networks import NoiseClassifier, filled_channels
from psld.pretrained.folder import write_model_folder
from psld.pretrained.published import published_checkpoint
from psld.processes import PSLD, LinearProcess, Matching
from psld.specs import bounded, build, resolve, spec_of
from psld.specs.arguments import checked
from psld.spectrum import SPECTRUM, Spectrum
from psld.training.checkpoint import CONFIG, has_checkpoint, latest_checkpoint, weight_files
from psld.training.reading import load_weights

__all__ = [
    "LoadedClassifier",
    "UntrustedSourceError",
    "load",
    "load_classifier",
    "load_data",
    "network_from",
    "save",
    "untrained_model",
    "spectrum_file",
]

Weights = Literal["ema", "online"]
"""The moving average of the weights, or the weights themselves."""

ROOM, CALLS = 64 * 1024**2, 20_000
"""Bytes and calls that any network may be made with, beside what its weights account for."""

MEANING = ("predicts", "matching", "jitter")
"""What a configuration says of a network's output, as `ScoreModel` takes it."""

PIXELS = 2**28
"""Values of one image, at most."""


@checked
def load(
    path: str | Path,
    weights: Weights = "ema",
    device: str = "cpu",
    process: LinearProcess | None = None,
    trust: bool = False,
    spectrum: bool = True,
) -> ScoreModel:
    """The score model of a run, a checkpoint, an exported or published model, or a folder of diffusers.

    Args:
        path: of the folder, or the name of a published model (`psld.pretrained.published_checkpoints`).
        weights: averaged or last.
        device: where the network goes.
        process: in place of the run's own; for networks that predict D(y; σ), which fit every process. A folder of
            diffusers is one, and has PSLD() unless told otherwise.
        trust: make whatever classes the folder names, not only psld's. This runs code that the folder chooses.
        spectrum: read spectrum.safetensors, where there is one.

    Returns:
        The model, frozen and in evaluation mode, with its `data_shape`, the `data_range` of images, and the `spectrum`
        of its data where the folder, or the run that it belongs to, has spectrum.safetensors.

    Raises:
        FileNotFoundError: there is no checkpoint or no config.yaml with it.
        UntrustedClassError: the folder names a class that is not psld's, and is not trusted.
        OutsizedError: the folder describes a network that is far larger than its weights, and is not trusted.
        UnreadableFileError: config.yaml is no configuration (`psld.files.parse_yaml`).
        ValueError: another process for a network that was trained on the states of its own; no image shape; a
            configuration that describes no model; or a device that is not there.
        CheckpointError: the weights are broken.
    """
    here, folder = available_device(device), published_checkpoint(path)
    if _is_of_diffusers(folder):
        model = _of_diffusers(folder, device, process or PSLD())
        return _with_spectrum(model, folder) if spectrum else model
    folder, config = _described(folder)
    if process is not None and config["predicts"] != "denoiser":
        raise ValueError(
            f"{folder} predicts {config['predicts']!r} from states of its own process, so it cannot be sampled under "
            f"{process!r}: another process needs a run with `predicts: denoiser` (configs/digits-denoiser.yaml)."
        )
    own, network = _made(folder, config, weight_files(folder, weights), trust)
    if isinstance(network, NoiseClassifier):
        raise ValueError(
            f"{folder} holds a classifier of noisy images: it guides a score model (--classifier) and is not one."
        )
    load_weights(folder, network, weights)
    network.to(here).eval().requires_grad_(False)
    meaning = {name: config[name] for name in MEANING}
    model = _of_images(ScoreModel(network, process or own, **meaning, data_shape=tuple(config["image_shape"])))
    return _with_spectrum(model, folder) if spectrum else model


class LoadedClassifier(nn.Module):
    """A noise-conditional classifier with what it was trained on.

    Attributes:
        network: logits (B, classes) of states (B, k, *data) and times (B,).
        process: of the states.
        data_shape: of one image.
    """

    def __init__(self, network: NoiseClassifier, process: LinearProcess, data_shape: tuple[int, ...]):
        super().__init__()
        self.network, self.process, self.data_shape = network, process, data_shape

    @property
    def classes(self) -> int:
        """How many labels it tells apart."""
        return self.network.classes

    def forward(self, z: Float[Tensor, "B k *data"], t: Float[Tensor, " B"]) -> Float[Tensor, "B classes"]:
        return self.network(z, t)


@checked
def load_classifier(path: str | Path, device: str = "cpu", trust: bool = False) -> LoadedClassifier:
    """The noise-conditional classifier of a run or checkpoint folder, frozen.

    The weights are the averaged ones, or the only ones there are (official classifiers have no average).

    Args:
        path: of the folder.
        device: where it goes.
        trust: as for `load`.

    Raises:
        FileNotFoundError: there is no checkpoint or no config.yaml with it.
        UntrustedClassError, OutsizedError, UnreadableFileError: as for `load`.
        ValueError: it is of a score model, or says no image shape.
        CheckpointError: the weights are broken.
    """
    folder, config = _described(published_checkpoint(path))
    weights: Weights = "ema" if weight_files(folder, "ema") else "online"
    process, network = _made(folder, config, weight_files(folder, weights), trust)
    if not isinstance(network, NoiseClassifier):
        raise ValueError(
            f"{folder} holds a score model and no classifier ({type(network).__name__}): train one with "
            "psld train-classifier (configs/digits-classifier.yaml)."
        )
    load_weights(folder, network, weights)
    network.to(available_device(device)).eval().requires_grad_(False)
    return LoadedClassifier(network, process, tuple(config["image_shape"])).eval()


@checked
def load_data(path: str | Path, trust: bool = False) -> ImageData:
    """The training images of a run or checkpoint folder.

    They are read from wherever the run says that they are on this machine, as images and as nothing else.

    Args:
        path: of the folder, or the name of a published model.
        trust: as for `load`; and fetch data from the Hugging Face hub where the run says so.

    Raises:
        FileNotFoundError: there is no checkpoint or no config.yaml with it, or the files of the data are gone.
        UntrustedClassError, UnreadableFileError: as for `load`.
        UntrustedSourceError: the data are not on this machine, and the folder is not trusted.
        ValueError: the configuration names no data, or data that were in memory.
    """
    file = latest_checkpoint(published_checkpoint(path)) / CONFIG
    if not file.is_file():
        raise FileNotFoundError(f"{file.parent} has weights and no {CONFIG}, so its data are not known.")
    known = read_yaml(file).get("data")
    if not isinstance(known, Mapping) or "class_path" not in known:
        raise ValueError(f"{file} names no data that could be opened again.")
    if not trust:
        _require_local(known, str(file))
    data = build(known, trust, str(file))
    if not isinstance(data, ImageData):
        raise ValueError(f"{file}: data is a {type(data).__name__}, and images are needed (psld.data).")
    return data


class UntrustedSourceError(ValueError):
    """A run names data that would have to be fetched from a network."""


def _require_local(config: Any, where: str) -> None:
    """Raises UntrustedSourceError for data that are not on this machine, wherever in the configuration they are."""
    for path, arguments in _objects(config):
        if path.rpartition(".")[2] == HuggingFace.__name__:
            source = arguments.get("source")
            if isinstance(source, str) and not Path(source).exists():
                raise UntrustedSourceError(
                    f"{where}: the data {source[:100]!r} are not on this machine, so they would be fetched from the "
                    "Hugging Face hub. If that is wanted, say so (trust=True, --trust), or fetch them yourself and "
                    "give the folder."
                )


def _objects(config: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every object that a configuration describes: its class path and its arguments."""
    if isinstance(config, Mapping):
        path, arguments = config.get("class_path"), config.get("init_args")
        if isinstance(path, str) and isinstance(arguments, Mapping):
            yield path, arguments
        for value in config.values():
            yield from _objects(value)
    elif isinstance(config, list):
        for value in config:
            yield from _objects(value)


@checked
def save(model: ScoreModel, out: str | Path) -> Path:
    """Writes a model as a folder that `load` and every command take: model_ema.safetensors, config.yaml, and the
    spectrum of its data where the model knows it.

    Raises:
        FileExistsError: there is something in `out`.
        SpecError: network or process do not record how they were made.
        ValueError: the model does not know the shape of its data.
        OSError: the disk is full or fails; nothing is left.
    """
    out = Path(out)
    require_new_folder(out)
    network = cast(nn.Module, model.network)
    config = {
        "process": spec_of(model.process).config(),
        "network": spec_of(network).config(),
        "predicts": model.predicts,
        "matching": model.matching,
        "jitter": model.jitter,
        "image_shape": list(model.known_shape()),
    }
    text = yaml.safe_dump(config, sort_keys=False)
    return write_model_folder(out, None, network.state_dict(), text, model.spectrum)


def untrained_model(
    config: Mapping[str, Any], image_shape: Sequence[int], trust: bool, where: str = "the configuration"
) -> ScoreModel:
    """The model of a run's configuration, with initial weights: random, by torch's generator.

    Args:
        config: process, network, and what its output means.
        image_shape: (C, H, W) of the data; channels and sizes of the network that follow from it are filled in.
        trust: as for `load`.
        where: what the configuration is called in messages.

    Raises:
        UntrustedClassError: a class that psld does not list, without `trust`.
        ValueError: a configuration that describes no model, or a network that does not fit the images.
    """
    process, network = build(config["process"], trust, where), config["network"]
    meaning = {name: config[name] for name in MEANING if name in config}
    kind = cast("type[nn.Module]", resolve(network["class_path"], trust, where))
    classifies = isinstance(kind, type) and issubclass(kind, NoiseClassifier)
    predicts = None if classifies else meaning.get("predicts", "eps")
    filled = filled_channels(kind, network.get("init_args") or {}, process, image_shape, predicts, trust)
    made = network_from({**network, "init_args": filled}, process, trust, where)
    return ScoreModel(made, process, **meaning, data_shape=tuple(image_shape))


def network_from(config: Mapping[str, Any], process: LinearProcess, trust: bool, where: str) -> nn.Module:
    """The network of a configuration; one that takes `process` and does not say it gets that of the run."""
    given = config.get("init_args") or {}
    if not isinstance(config["class_path"], str) or not isinstance(given, Mapping):
        return build(config, trust, where)  # which says what is wrong
    arguments = dict(given)
    wanted = inspect.signature(resolve(config["class_path"], trust, where)).parameters
    if "process" in wanted and "process" not in arguments:
        arguments["process"] = process.spec.config()
    network = build({**config, "init_args": arguments}, trust, where)
    if not isinstance(network, nn.Module):
        raise ValueError(f"{where}: network is a {type(network).__name__}, and a torch.nn.Module is needed.")
    return network


def _made(
    folder: Path, config: Mapping[str, Any], files: Sequence[Path], trust: bool
) -> tuple[LinearProcess, nn.Module]:
    """Process and network of a configuration; unless it is trusted, of the size of the weights beside it."""
    where = str(folder / CONFIG)
    if trust:
        return _built(config, trust, where)
    size = sum(file.stat().st_size for file in files if file.is_file())
    refusal = (
        f"{where} describes a network or a process far larger than the weights beside it ({size / 1e6:.1f} MB), so it "
        "was not made. Copy the folder again, or say that you trust it (trust=True, --trust)."
    )
    # initial values are written more than once, and a tensor takes at least 64 bytes of the file's header
    with bounded(ROOM + 6 * size, CALLS + 2 * size // 64, refusal):
        try:
            return _built(config, trust, where)
        except ValueError as error:
            if where in str(error):
                raise
            raise UnreadableFileError(f"{where} describes a model that cannot be made: {error}") from error


def _built(config: Mapping[str, Any], trust: bool, where: str) -> tuple[LinearProcess, nn.Module]:
    process = build(config["process"], trust, where)
    if not isinstance(process, LinearProcess):
        raise ValueError(f"{where}: process is a {type(process).__name__}, and a forward process is needed.")
    return process, network_from(config["network"], process, trust, where)


def _described(path: Path) -> tuple[Path, dict[str, Any]]:
    """The folder of the newest checkpoint, and what its configuration says about the model."""
    folder = latest_checkpoint(path)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(f"{folder} has weights and no {CONFIG}, so the network is not known.")
    config = {"predicts": "eps", "matching": "hsm", "jitter": 0.0} | read_yaml(folder / CONFIG)
    for name in ("process", "network"):
        if not isinstance(config.get(name), Mapping) or "class_path" not in config[name]:
            raise ValueError(f"{folder / CONFIG} does not describe a model: it must say process and network.")
    shape = config.get("image_shape")
    if not (isinstance(shape, list) and shape and all(isinstance(n, int) and n > 0 for n in shape)):
        raise ValueError(f"{folder / CONFIG} does not say image_shape: write the (C, H, W) of one image there.")
    if config["predicts"] not in get_args(Predicts):
        allowed = ", ".join(map(repr, get_args(Predicts)))
        said = repr(config["predicts"])[:100]
        raise ValueError(f"{folder / CONFIG}: predicts must be one of {allowed}: got {said}.")
    if config["matching"] not in get_args(Matching) or not _is_number(config["jitter"]):
        raise ValueError(
            f"{folder / CONFIG}: matching must be one of {', '.join(get_args(Matching))} and jitter a number ≥ 0."
        )
    if math.prod(shape) > PIXELS:
        raise ValueError(f"{folder / CONFIG} says image_shape {str(shape)[:100]}: no image has over {PIXELS} values.")
    return folder, config


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < math.inf


def _is_of_diffusers(folder: Path) -> bool:
    return (folder / "unet" / "config.json").is_file() and not has_checkpoint(folder)


def _of_diffusers(folder: Path, device: str, process: LinearProcess) -> ScoreModel:
    from psld.pretrained.diffusers import load_denoiser

    network = load_denoiser(folder).to(device).eval().requires_grad_(False)
    file = folder / "unet" / "config.json"
    config = read_json(file)
    size, channels = config.get("sample_size"), config.get("in_channels")
    shape = [channels, *([size, size] if isinstance(size, int) else size if isinstance(size, list) else [])]
    if len(shape) != 3 or not all(type(n) is int and n > 0 for n in shape) or math.prod(shape) > PIXELS:
        raise ValueError(f"{file} does not say the shape of an image: in_channels and sample_size must be counts.")
    return _of_images(ScoreModel(network, process, "denoiser", data_shape=tuple(shape)))


def spectrum_file(folder: Path) -> Path | None:
    """spectrum.safetensors of a folder of weights: in it, or where it is a checkpoint, in the folder of the run."""
    places = [folder, *([folder.parents[1]] if folder.parent.name == "checkpoints" else [])]
    return next((place / SPECTRUM for place in places if (place / SPECTRUM).is_file()), None)


def _with_spectrum(model: ScoreModel, folder: Path) -> ScoreModel:
    file = spectrum_file(folder)
    if file is None:
        return model
    spectrum = Spectrum.load(file)
    if spectrum.data_shape != model.known_shape():
        raise ValueError(
            f"{file} is of images {spectrum.data_shape}, and the model makes {model.known_shape()}: delete it, or "
            "measure it again (psld tune)."
        )
    model.spectrum = spectrum
    return model


def _of_images(model: ScoreModel) -> ScoreModel:
    model.data_range = (-1.0, 1.0)
    return model
