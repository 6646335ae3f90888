"""What an object is made of: its class and every argument, recorded when it is constructed.

Identity, `repr`, a run's config.yaml, caches and the provenance of samples are all made from a `Spec`. A class takes
part by deriving from `Specified`; it writes its `__init__` as usual and nothing else:

    class Halved(Schedule):                       # Schedule derives from Specified
        def __init__(self, beta: float = 8.0): ...

    Halved(4.0).spec.config()      # {"class_path": "my_package.Halved", "init_args": {"beta": 4.0}}
    Halved(4.0) == Halved(4)       # True
    Halved(4.0)                    # Halved(beta=4)
"""

from __future__ import annotations

import hashlib
import inspect
import json
import sys
from abc import ABC
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from os import PathLike, fspath
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from psld.specs.arguments import check_arguments, constructor_hints

__all__ = ["Spec", "SpecError", "Specified", "SpecifiedValue", "attach_spec", "class_path", "describe", "spec_of"]

SMALL = 256
"""Tensors of up to so many values are written out in a spec; larger ones are known by their hash."""

T = TypeVar("T")


class SpecError(ValueError):
    """An object cannot be described by a class and plain arguments; the message names the argument."""


@dataclass(frozen=True)
class Spec:
    """A class and all arguments of one construction, defaults included.

    Attributes:
        path: shortest import path of the class, e.g. "psld.PSLD".
        arguments: by name; each None, a bool, a number, a string, a list, a dict with strings for keys, or a Spec.
    """

    path: str
    arguments: Mapping[str, Any]

    def config(self) -> dict[str, Any]:
        """As configurations write it: {"class_path": …, "init_args": {…}}, plain data throughout."""
        return {"class_path": self.path, "init_args": {name: _plain(value) for name, value in self.arguments.items()}}

    @property
    def digest(self) -> str:
        """SHA-256 of the configuration, where 8 and 8.0 are one number: 64 hexadecimal digits."""
        text = json.dumps(_canonical(self.config()), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


class Specified:
    """Records class and arguments of every construction, for `spec`.

    Arguments are held against their annotations first, with a ValueError for one of another type, a NaN or an empty
    string (`psld.specs.arguments`). They are kept as they were given: containers are copied, tensors and objects are
    not. They are described when
    `spec` is asked for, so an object made of something that cannot be described (a function, say) works, and only its
    `spec` raises.
    """

    _recorded: dict[str, Any]

    def __new__(cls, *args: Any, **kwargs: Any):
        self = super().__new__(cls)
        if cls.__init__ is object.__init__ and (args or kwargs):  # which would let them pass
            raise TypeError(f"{cls.__name__}() takes no arguments.")
        try:
            bound = _signature(cls).bind(self, *args, **kwargs)
        except TypeError:  # __init__ says it better; and copying makes an object without any arguments first
            return self
        given = dict(list(bound.arguments.items())[1:])
        check_arguments(constructor_hints(cls), given, bound.signature)
        bound.apply_defaults()
        recorded: dict[str, Any] = {}
        for name, value in list(bound.arguments.items())[1:]:
            kind = bound.signature.parameters[name].kind
            if kind is inspect.Parameter.VAR_KEYWORD:
                recorded |= {key: _copied(own) for key, own in value.items()}
            else:
                recorded[name] = _copied(value)
        object.__setattr__(self, "_recorded", recorded)  # a frozen dataclass, or a module that is not set up yet
        return self

    @property
    def spec(self) -> Spec:
        """Class and arguments.

        Raises:
            SpecError: an argument is neither plain data nor an object with a spec; the message names it.
        """
        attached = self.__dict__.get("_spec")
        return attached if attached is not None else Spec(class_path(type(self)), described_arguments(self))


class SpecifiedValue(Specified, ABC):
    """A `Specified` object that *is* its arguments: equal to another of equal spec, and shown as it was constructed.

    Attributes:
        shown: arguments that `repr` names even where they have their default value.
    """

    shown: ClassVar[tuple[str, ...]] = ()

    def __repr__(self) -> str:
        return _constructor_call(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if type(self) is not type(other):
            return NotImplemented
        try:
            return self.spec == other.spec  # pyright: ignore[reportAttributeAccessIssue]: of the same type
        except SpecError:
            return False

    def __hash__(self) -> int:
        try:
            return hash(self.spec)
        except SpecError:
            return id(self)


def attach_spec(made: T, spec: Spec) -> T:
    """Gives a spec to an object whose class does not record one: whoever made it knows how. Returns the object."""
    object.__setattr__(made, "_spec", spec)
    return made


def spec_of(made: object) -> Spec:
    """The spec of any object.

    Raises:
        SpecError: its class does not derive from `Specified`, or an argument cannot be described.
    """
    if isinstance(made, Specified):
        return made.spec
    attached = getattr(made, "__dict__", {}).get("_spec")
    if isinstance(attached, Spec):
        return attached
    name = getattr(made, "__qualname__", None) or type(made).__qualname__
    raise SpecError(
        f"{name} does not record how it was made, so it cannot be written to a configuration: derive its class from "
        f"psld.Specified as well, as in class {type(made).__name__}(psld.Specified, …)."
    )


def described_arguments(made: Specified) -> dict[str, Any]:
    """The recorded arguments as a spec holds them; raises SpecError as `Specified.spec`."""
    described = {}
    for name, value in made.__dict__.get("_recorded", {}).items():
        try:
            described[name] = describe(value)
        except SpecError as error:
            raise SpecError(f"{type(made).__name__}({name}=…): {error}") from error
    return described


def describe(value: Any) -> Any:
    """A value as a spec holds it: plain data, or a Spec.

    Raises:
        SpecError: neither.
    """
    if value is None or isinstance(value, bool | int | float | str | Spec):
        return value
    if isinstance(value, PathLike):
        return fspath(value)
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, Tensor):
        return _described_tensor(value)
    if hasattr(value, "__array__") and hasattr(value, "dtype"):
        return _described_tensor(torch.as_tensor(value))
    if isinstance(value, Mapping):
        return {str(key): describe(own) for key, own in value.items()}
    if isinstance(value, Sequence):
        return [describe(own) for own in value]
    if isinstance(value, Set):
        return sorted(describe(own) for own in value)
    return spec_of(value)


def class_path(kind: type) -> str:
    """The shortest path under which a class can be imported: of the outermost package that offers it by its name.

    A class of the running script is one of the module that the script is to others; a notebook is none.
    """
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if kind.__module__ == "__main__" and script is not None:
        return f"{Path(script).stem}.{kind.__qualname__}"
    parts = kind.__module__.split(".")
    for end in range(1, len(parts)):
        package = sys.modules.get(".".join(parts[:end]))
        if package is not None and getattr(package, kind.__name__, None) is kind:
            return f"{package.__name__}.{kind.__name__}"
    return f"{kind.__module__}.{kind.__qualname__}"


def _signature(cls: type) -> inspect.Signature:
    """Of the constructor, `self` first; object's own, which claims to take anything, takes nothing."""
    if cls.__init__ is object.__init__:
        return inspect.Signature([inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)])
    return inspect.signature(cls.__init__)


def _copied(value: Any) -> Any:
    if isinstance(value, list):
        return [_copied(own) for own in value]
    if isinstance(value, dict):
        return {key: _copied(own) for key, own in value.items()}
    return value


def _described_tensor(tensor: Tensor) -> Any:
    if tensor.numel() <= SMALL:
        return tensor.detach().cpu().tolist()
    content = tensor.detach().cpu().contiguous()
    digest = hashlib.sha256(content.view(torch.uint8).numpy().tobytes()).hexdigest()
    return {"tensor": list(tensor.shape), "dtype": str(tensor.dtype), "sha256": digest}


def _plain(value: Any) -> Any:
    if isinstance(value, Spec):
        return value.config()
    if isinstance(value, list):
        return [_plain(own) for own in value]
    if isinstance(value, dict):
        return {key: _plain(own) for key, own in value.items()}
    return value


def _canonical(value: Any) -> Any:
    """Plain data in which every whole number is an int."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [_canonical(own) for own in value]
    if isinstance(value, dict):
        return {key: _canonical(own) for key, own in value.items()}
    return value


def _constructor_call(made: SpecifiedValue) -> str:
    """A constructor call that makes an equal object; arguments at their default are left out unless `shown`."""
    recorded, parameters = made.__dict__.get("_recorded", {}), list(_signature(type(made)).parameters.values())[1:]
    given = []
    leading = True  # required arguments at the front need no name
    for parameter in parameters:
        value = recorded.get(parameter.name, parameter.default)
        required = parameter.default is inspect.Parameter.empty
        leading = leading and required and parameter.kind is not inspect.Parameter.KEYWORD_ONLY
        if leading:
            given.append(_shown(value))
        elif required or parameter.name in made.shown or not _same(value, parameter.default):
            given.append(f"{parameter.name}={_shown(value)}")
    return f"{type(made).__name__}({', '.join(given)})"


def _same(value: Any, default: Any) -> bool:
    try:
        return _canonical(_plain(describe(value))) == _canonical(_plain(describe(default)))
    except SpecError:
        return value is default


def _shown(value: Any) -> str:
    """As Python writes it; numbers short, unless that would hide a digit."""
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    if isinstance(value, Tensor) and value.numel() <= SMALL:
        return repr(value.tolist())
    if isinstance(value, Tensor):
        return f"<tensor {tuple(value.shape)}>"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, tuple):
        return f"({', '.join(map(_shown, value))}{',' if len(value) == 1 else ''})"
    return repr(value)
