"""From a configuration back to objects, of classes that psld lists: a file from elsewhere can name no other.

A configuration says {class_path: psld.PSLD, init_args: {gamma: 0.01}}, nested as deep as need be. A name is looked up
among the public classes of the rooms below, before anything is imported; nothing else is ever imported or called
unless the caller says that the file is trusted.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping
from pydoc import locate
from typing import Any

from psld.specs.arguments import did_you_mean
from psld.specs.spec import Spec, Specified, attach_spec, class_path, describe

__all__ = ["ROOMS", "UntrustedClassError", "build", "listed_names", "resolve"]

ROOMS = ("psld", "psld.data", "psld.losses", "psld.networks", "psld.samplers", "psld.schedules", "psld.training")
"""Packages and modules whose public classes configurations may name: those that derive from `Specified`."""

DEPTH = 32
"""Objects within objects, at most."""


CANNOT_BE_MADE = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError)
"""What constructors raise about arguments of the wrong type or size that they do not look at themselves."""


class UntrustedClassError(ValueError):
    """A configuration names something that is not one of psld's classes."""


def build(config: Any, trust: bool = False, where: str = "the configuration") -> Any:
    """The object that a configuration describes; plain data are returned as they are.

    Args:
        config: {"class_path": …, "init_args": {…}}, a Spec, or plain data with such dicts in it.
        trust: import and call whatever the configuration names. This runs code that the file chooses.
        where: what the configuration is called in messages.

    Raises:
        UntrustedClassError: a class that psld does not list, without `trust`.
        ValueError: an unknown or missing argument, or what the constructor refuses.
    """
    if isinstance(config, Spec):
        config = config.config()
    return _built(config, trust, where, DEPTH)


def _built(config: Any, trust: bool, where: str, depth: int) -> Any:
    if depth < 0:
        raise ValueError(f"{where} nests more than {DEPTH} objects in one another: no model does.")
    if isinstance(config, list):
        return [_built(value, trust, where, depth - 1) for value in config]
    if not isinstance(config, Mapping):
        return config
    if "class_path" not in config:
        return {key: _built(value, trust, where, depth - 1) for key, value in config.items()}
    unknown = sorted(set(config) - {"class_path", "init_args"})
    path, given = config["class_path"], config.get("init_args") or {}
    if unknown or not isinstance(path, str) or not isinstance(given, Mapping):
        raise ValueError(
            f"{where}: an object is written {{class_path: name, init_args: {{…}}}}: got {_short(dict(config))}."
        )
    make = resolve(path, trust, where)  # before any of its arguments are made
    _require_arguments(make, path, given, where)
    arguments = {name: _built(value, trust, where, depth - 1) for name, value in given.items()}
    try:
        made = make(**arguments)
    except CANNOT_BE_MADE as error:
        raise ValueError(f"{where}: {path} cannot be made with these arguments: {_said(error)}.") from error
    if not isinstance(made, Specified) and hasattr(made, "__dict__"):
        attach_spec(made, Spec(path, {name: describe(value) for name, value in arguments.items()}))
    return made


def resolve(path: str, trust: bool = False, where: str = "the configuration") -> Callable[..., Any]:
    """The class of that name, or the classmethod of one that makes it, as psld.LinearRecipe.from_sde.

    Raises:
        UntrustedClassError: psld does not list it, and `trust` was not given.
        ValueError: there is nothing of that name.
    """
    listed = _listed(path)
    if listed is not None:
        return listed
    if not trust:
        advice = did_you_mean(difflib.get_close_matches(path[:200], listed_names()))
        raise UntrustedClassError(
            f"{where} names {_short(path)}, which is not one of psld's classes, so nothing was imported.{advice} If it "
            "is your own code, say so (trust=True, --trust): whatever the file names is then imported and run."
        )
    found = locate(path)
    if not callable(found):
        raise ValueError(f"{where} names {_short(path)}, and there is no such class here.")
    return found


def listed_names() -> list[str]:
    """Every class that a configuration may name, each by its shortest path."""
    names = set()
    for room in ROOMS:
        module = importlib.import_module(room)
        names |= {
            class_path(kind) for kind in (getattr(module, name) for name in module.__all__) if _may_be_named(kind)
        }
    return sorted(names)


def _listed(path: str) -> Callable[..., Any] | None:
    """The listed class, or a constructor of one; None of anything else. Imports nothing but psld's own rooms."""
    room, _, name = path.rpartition(".")
    if room in ROOMS:
        module = importlib.import_module(room)
        kind = getattr(module, name) if name in module.__all__ else None
        return kind if _may_be_named(kind) else None
    room, _, owner = room.rpartition(".")
    if room in ROOMS:
        module = importlib.import_module(room)
        kind = getattr(module, owner) if owner in module.__all__ else None
        if _may_be_named(kind) and name in getattr(kind, "constructors", ()):
            return getattr(kind, name)
    return None


def _may_be_named(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Specified) and not inspect.isabstract(kind)


def _short(value: object) -> str:
    """As Python writes it, or the beginning of that: a file can name things of any length."""
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}…"


def _said(error: Exception) -> str:
    """The first line of a message; of an error without one its kind."""
    lines = str(error).strip().splitlines()
    text = lines[0].rstrip(".") if lines else type(error).__name__
    return text if len(text) <= 300 else f"{text[:300]}…"


def _require_arguments(make: Callable[..., Any], path: str, given: Mapping[str, Any], where: str) -> None:
    """Raises ValueError for an argument that is not known, naming those that are, and for one that is missing."""
    parameters = inspect.signature(make).parameters
    if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        return
    for name in given:
        if name not in parameters:
            known = ", ".join(parameters) or "none"
            raise ValueError(f"{where}: {path} has no argument {_short(name)}. Its arguments: {known}.")
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in given]
    if missing:
        raise ValueError(f"{where}: {path} needs {', '.join(missing)}.")
