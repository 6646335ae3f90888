"""What a run is, as plain data: made from its objects, kept as config.yaml, and compared when a run is resumed.

    seed, process, network, predicts, matching, jitter, image_shape, data, data_sha256, loss, training

Objects are written as their specs, {class_path: …, init_args: {…}}, so that a run made in Python and one made from a
YAML file leave the same description.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

import yaml

from psld.data.base import ImageData
from psld.data.loading import TrainingData
from psld.files import parse_yaml
from psld.model import ScoreModel
from psld.specs import SpecError, spec_of
from psld.training.checkpoint import CONFIG
from psld.training.settings import TrainingSettings

__all__ = ["asks_for_labels", "described_run", "read_description", "require_same_run", "written"]

IDENTITY = ("process", "network", "predicts", "matching", "jitter", "loss")
"""What a resumed run must have as it was, beside the data."""

DESCRIBED = 32 * 1024
"""Characters of the description of data or a loss, at most: a whole configuration has `CONFIGURATION_BYTES`."""


def described_run(
    model: ScoreModel, data: TrainingData, loss: object, settings: TrainingSettings, seed: int
) -> dict[str, Any]:
    """The description of a run.

    Data and losses without a spec (a plain `Dataset`, a function) are named by their class only, and so are data whose
    spec would take more than 32 KiB (a list of thousands of files: the data are known by their hash anyway). A network
    without one is refused: nobody could load what was trained.

    Raises:
        SpecError: the network or the process cannot be described; the message says what to do.
    """
    of_scores = {"predicts": model.predicts, "matching": model.matching}
    known = {
        "seed": seed,
        "process": spec_of(model.process).config(),
        "network": spec_of(model.network).config(),
        **({} if asks_for_labels(loss) else of_scores),  # a classifier predicts labels
        "jitter": model.jitter,
        "image_shape": list(data[0].shape),
        "data": _config_or_name(data),
        "loss": _config_or_name(loss),
        "training": asdict(settings),
    }
    if isinstance(data, ImageData):
        known["data_sha256"] = data.fingerprint()
    return known


def asks_for_labels(loss: object) -> bool:
    """Whether a loss cannot do without label=, as that of a classifier."""
    return getattr(loss, "asks_for_labels", False)


def written(description: Mapping[str, Any]) -> str:
    """A description as YAML."""
    return yaml.safe_dump(dict(description), sort_keys=False, allow_unicode=True)


def read_description(text: str, where: str = CONFIG) -> dict[str, Any]:
    """A description from YAML; empty where there is none, as in checkpoints that were put together by hand.

    Raises:
        UnreadableFileError: it is no description; the message calls it `where`.
    """
    return parse_yaml(text, where) if text.strip() else {}


def require_same_run(before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """That a run is resumed as what it was: the same process, network, prediction, loss and data.

    What the older description does not say is not compared. Data are compared by content, so they may have moved.

    Raises:
        ValueError: something differs; the message names everything that does, with both values.
    """
    compared = IDENTITY if "data_sha256" in before and "data_sha256" in now else (*IDENTITY, "data")
    changes = [change for name in compared if name in before for change in _changes(name, before[name], now.get(name))]
    if "data_sha256" in before and before["data_sha256"] != now.get("data_sha256", before["data_sha256"]):
        changes.append("data: other images, labels or order than before (data_sha256 differs)")
    if changes:
        raise ValueError(
            f"this is not the run that was started: {'; '.join(changes)}. Resume it as it was, or train "
            "anew in another folder."
        )


def _config_or_name(made: object) -> Any:
    try:
        config = spec_of(made).config()
        if len(json.dumps(config)) <= DESCRIBED:
            return config
    except SpecError:
        pass
    kind = made if hasattr(made, "__qualname__") else type(made)  # a function, or the class of an object
    return {"unrecorded": f"{kind.__module__}.{getattr(kind, '__qualname__', '')}"}


def _changes(name: str, before: Any, now: Any) -> Iterator[str]:
    """Every place where two descriptions differ, in words; arguments that only one of them has are left out."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if "unrecorded" in before or "unrecorded" in now:  # a function, say: its name tells nothing
            return
        if before.get("class_path") != now.get("class_path"):
            yield f"{name} was {before.get('class_path')} and is {now.get('class_path')}"
            return
        for key in before:
            if key in now:
                yield from _changes(name if key == "init_args" else f"{name}.{key}", before[key], now[key])
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for i, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from _changes(f"{name}[{i}]", old, new)
    elif before != now:
        yield f"{name} was {before} and is {now}"
