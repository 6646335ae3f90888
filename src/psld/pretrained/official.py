"""Official checkpoints: Lightning files with `score_fn.`, `ema_score_fn.` or `clf_fn.` before every name.

They are read with `weights_only=True`, so nothing in them is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor

from psld.files import UnreadableFileError
from psld.files.tensors import read_torch
from psld.networks import NCSNpp, NoiseClassifier
from psld.pretrained.folder import write_model_folder
from psld.pretrained.official_config import network_from_official
from psld.pretrained.official_keys import from_official, official_names
from psld.pretrained.presets import PRESETS, preset
from psld.training.checkpoint import CheckpointError

__all__ = ["Weights", "import_official", "load_official", "read_official"]

Weights = Literal["online", "ema"]
PREFIXES = {"online": "score_fn.", "ema": "ema_score_fn.", "classifier": "clf_fn."}


def load_official(
    path: str | Path, network: str | Mapping[str, Any], weights: Weights = "ema"
) -> NCSNpp | NoiseClassifier:
    """The network of an official checkpoint, in eval mode on the CPU.

    Args:
        path: the `.ckpt` file.
        network: the name of a preset (`psld presets` lists them), or a dict with the official configuration's keys of
            the network, and `image_size`.
        weights: "ema" or "online". A classifier has one set, which is given for either.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is corrupt, would run code, has no network in it, or is of another network; the message
            lists what is missing, unexpected and differently shaped, and which presets would fit.
        ValueError: an unknown preset or official key, or `weights` is neither.
    """
    if weights not in ("online", "ema"):
        raise ValueError(f"weights must be 'online' or 'ema': got {weights!r}.")
    sets = read_official(path)
    built = _network(network, classifier="classifier" in sets)
    tensors = _chosen(sets, weights, path)
    built.load_state_dict(_fitted(tensors, built, path))
    return built.eval()


def import_official(path: str | Path, name: str, out: str | Path) -> Path:
    """Writes an official checkpoint as a folder that `psld sample` and `load_model` read.

    The folder has model.safetensors, model_ema.safetensors (not for a classifier, which has no average) and config.yaml
    with the process and the network of the preset. It is written beside its place and then renamed.

    Args:
        path: the `.ckpt` file.
        name: of a preset.
        out: the folder to write; must be new or empty.

    Returns:
        The folder.

    Raises:
        FileExistsError: there is something in `out`.
        FileNotFoundError, CheckpointError, ValueError: as for `load_official`.
    """
    chosen, sets = preset(name), read_official(path)
    built = chosen.network()
    _require_kind(built, "classifier" in sets, name, path)
    states = {kind: _fitted(tensors, built, path) for kind, tensors in sets.items()}
    online = states.get("classifier", states.get("online", states.get("ema")))
    assert online is not None
    config = chosen.model_config()
    text = f"# {Path(path).name}, imported as preset {name}\n" + yaml.safe_dump(config, sort_keys=False)
    return write_model_folder(Path(out), online, states.get("ema"), text)


def read_official(path: str | Path) -> dict[str, dict[str, Tensor]]:
    """The tensors of an official checkpoint, by set ("online", "ema" or "classifier"), with the prefix taken off.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is corrupt, would run code, or has none of the sets.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"no file {path}: give the path of an official .ckpt file.")
    state = _state_dict(path)
    sets = {
        kind: {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        for kind, prefix in PREFIXES.items()
    }
    sets = {kind: tensors for kind, tensors in sets.items() if tensors}
    if not sets:
        first = ", ".join(list(state)[:3]) or "nothing"
        raise CheckpointError(
            f"{path} has no network under {', '.join(PREFIXES.values())}: its names begin with {first}. "
            "An official checkpoint is meant, not one of this library: psld sample reads those as they are."
        )
    return sets


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        content = read_torch(path)
    except UnreadableFileError as error:
        raise CheckpointError(str(error)) from error
    state = content.get("state_dict") if isinstance(content, dict) else None
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise CheckpointError(f"{path} has no state_dict of tensors: an official checkpoint has one.")
    return state


def _network(network: str | Mapping[str, Any], classifier: bool) -> NCSNpp | NoiseClassifier:
    if not isinstance(network, str):
        return network_from_official(network, classifier)
    built = preset(network).network()
    _require_kind(built, classifier, network, "the checkpoint")
    return built


def _require_kind(built: NCSNpp | NoiseClassifier, classifier: bool, name: str, path: str | Path) -> None:
    if isinstance(built, NoiseClassifier) != classifier:
        kinds = ("a classifier", "a score network")
        held, wanted = kinds if classifier else kinds[::-1]
        fitting = [other for other, item in PRESETS.items() if item.classifier == classifier]
        raise CheckpointError(f"{path} holds {held}, preset {name} is {wanted}. Use one of {', '.join(fitting)}.")


def _chosen(sets: Mapping[str, dict[str, Tensor]], weights: Weights, path: str | Path) -> dict[str, Tensor]:
    if "classifier" in sets:
        return sets["classifier"]
    if weights not in sets:
        raise CheckpointError(f"{path} has no {PREFIXES[weights]}* tensors: use weights={next(iter(sets))!r}.")
    return sets[weights]


# -- does it fit -------------------------------------------------------------------------------------------------------


def _fitted(tensors: Mapping[str, Tensor], network: NCSNpp | NoiseClassifier, path: str | Path) -> dict[str, Tensor]:
    """The state dict for the network, if every tensor has a place of its shape and every place a tensor."""
    state = from_official(tensors, network)
    problems = _problems(state, network)
    if problems:
        fitting = _fitting_presets(tensors, isinstance(network, NoiseClassifier))
        advice = f"Presets that fit: {', '.join(fitting)}." if fitting else "No preset fits: give its configuration."
        raise CheckpointError(f"{path} is of another network. {problems} {advice}")
    return state


def _problems(state: Mapping[str, Tensor], network: NCSNpp | NoiseClassifier) -> str:
    """What does not fit, in words, with the official name where there is one; empty if all does."""
    own = network.state_dict()
    official = {place: name for name, place in reversed(list(official_names(network).items()))}
    missing = [official.get(name, name) for name in own if name not in state]
    unexpected = [name for name in state if name not in own]
    shapes = [
        f"{official.get(name, name)} {tuple(state[name].shape)}, not {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    lists = {"missing": missing, "unexpected": unexpected, "differently shaped": shapes}
    return " ".join(f"{len(names)} {what}: {_shortened(names)}." for what, names in lists.items() if names)


def _shortened(names: list[str], most: int = 5) -> str:
    return "; ".join(names[:most]) + ("; …" if len(names) > most else "")


def _fitting_presets(tensors: Mapping[str, Tensor], classifier: bool) -> list[str]:
    """The presets whose network has exactly these tensors; built without memory for their weights."""
    fitting = []
    for name, item in PRESETS.items():
        if item.classifier == classifier:
            with torch.device("meta"):
                network = item.network()
            if not _problems(from_official(tensors, network), network):
                fitting.append(name)
    return fitting
