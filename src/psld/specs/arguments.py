"""Arguments of public constructors and functions: their types from the annotations, their ranges by name.

Annotations are checked once, where an object is made or a function of the library is called, never inside a step: by
`Specified` for classes that derive from it, by `@checked` for functions and for other constructors, by `check_call` for
functions under which a network is called, by `checked_fields` for dataclasses. What they cannot say, the range of a
number, is left to `whole`, `positive` and their kin. All errors have one form: the name, what is allowed, what was
given.
"""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import numbers
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from os import PathLike
from pathlib import PurePath
from types import NoneType, SimpleNamespace, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from jaxtyping import AbstractArray
from torch import Tensor

__all__ = [
    "check_arguments",
    "check_call",
    "checked",
    "checked_fields",
    "constructor_hints",
    "device_name",
    "did_you_mean",
    "finite",
    "fraction",
    "height_and_width",
    "image_shape",
    "non_negative",
    "one_of",
    "positive",
    "seed_number",
    "seed_numbers",
    "shown",
    "side_or_sides",
    "whole",
]

LARGEST = 1e18
"""Numbers of either sign up to here: float32 holds their squares."""

MANY = 10**9
"""Counts up to here, unless a caller knows less."""

WIDEST, MOST, LARGEST_IMAGE, MOST_CLASSES = 2**16, 2**10, 2**14, 2**20
"""Of a network, at most: channels, parts of one kind, pixels of a side, classes. None was ever near."""

F = TypeVar("F", bound=Callable[..., Any])


# -- ranges ------------------------------------------------------------------------------------------------------------


def whole(name: str, value: Any, least: int = 1, most: int = MANY) -> int:
    """A whole number in least … most; raises ValueError for anything else."""
    if not _is_whole(value):
        raise ValueError(f"{name} must be a whole number: got {shown(value)}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}: got {shown(value)}.")
    if value > most:
        raise ValueError(f"{name} must be at most {most:,}: got {shown(value)}.")
    return value


def finite(name: str, value: Any) -> float:
    """A number of either sign, of at most 1e18; raises ValueError for anything else."""
    return _within(name, value, "finite", -math.inf, inclusive=False)


def positive(name: str, value: Any) -> float:
    """A number above 0, of at most 1e18; raises ValueError for anything else."""
    return _within(name, value, "positive, finite", 0.0, inclusive=False)


def non_negative(name: str, value: Any) -> float:
    """0, or a number above it of at most 1e18; raises ValueError for anything else."""
    return _within(name, value, "finite, non-negative", 0.0, inclusive=True)


def _within(name: str, value: Any, kind: str, least: float, inclusive: bool) -> float:
    if not (_is_number(value) and math.isfinite(value) and (value > least or (inclusive and value == least))):
        raise ValueError(f"{name} must be a {kind} number: got {shown(value)}.")
    if abs(value) > LARGEST:
        raise ValueError(f"{name} must be at most {LARGEST:g}: got {shown(value)}.")
    return value


def fraction(name: str, value: Any) -> float:
    """A number in [0, 1]; raises ValueError for anything else."""
    if not (_is_number(value) and 0 <= value <= 1):
        raise ValueError(f"{name} must be in [0, 1]: got {shown(value)}.")
    return value


def seed_number(name: str, value: Any) -> int:
    """A whole number that 64 bits hold, of either sign; raises ValueError for anything else."""
    return whole(name, value, least=-(2**63), most=2**63 - 1)


def seed_numbers(name: str, values: Iterable[int]) -> tuple[int, ...]:
    """At least one seed; raises ValueError for none, and for one that is no `seed_number`."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ValueError(f"{name} must be a list of whole numbers: got {shown(values)}.")
    listed = values.tolist() if isinstance(values, Tensor | np.ndarray) else values
    chosen = tuple(int(seed_number(name, seed)) for seed in listed)
    if not chosen:
        raise ValueError(f"{name} must be at least one whole number, one a sample: got {shown(values)}.")
    return chosen


def image_shape(name: str, value: Sequence[int]) -> tuple[int, ...]:
    """The shape of one item of the data, 2³² values at most; raises ValueError for anything else."""
    if not (value and all(_is_whole(size) and size >= 1 for size in value) and math.prod(value) <= 2**32):
        raise ValueError(f"{name} must be whole numbers of at least 1, (C, H, W) or any other: got {shown(value)}.")
    return tuple(value)


def height_and_width(name: str, value: Any) -> tuple[int, int]:
    """One whole number, of a square, or two; raises ValueError for anything else."""
    sides = list(value) if _is_list(value) else [value, value]
    if len(sides) != 2:
        raise ValueError(f"{name} must be one whole number, of a square, or two, height and width: got {shown(value)}.")
    height, width = (whole(name, side, most=LARGEST_IMAGE) for side in sides)
    return height, width


def side_or_sides(height: int, width: int) -> int | tuple[int, int]:
    """What `height_and_width` reads: one number of a square, and else two."""
    return height if height == width else (height, width)


def device_name(name: str, value: Any) -> torch.device:
    """A device of torch; raises ValueError for anything else."""
    try:
        return torch.device(value)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"{name} must be a device, 'cpu', 'cuda' or 'cuda:1' say: got {shown(value)}.") from error


def one_of(name: str, value: Any, allowed: Collection[Any]) -> Any:
    """A value of a list; raises ValueError for anything else."""
    if not any(type(value) is type(known) and value == known for known in allowed):
        raise ValueError(f"{name} must be {_alternatives([repr(known) for known in allowed])}: got {shown(value)}.")
    return value


# -- types -------------------------------------------------------------------------------------------------------------


def checked(function: F) -> F:
    """Decorates a function: its arguments are held against their annotations at every call.

    Numbers are never NaN, strings never empty; True is no number and 2.0 no whole one. Annotations that are not plain
    types, classes or tensors are taken on trust.
    """

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        check_call(function, _signature(function).bind(*args, **kwargs).arguments)
        return function(*args, **kwargs)

    return typing.cast(F, call)


def check_call(function: Callable[..., Any], given: Mapping[str, Any]) -> None:
    """What `checked` does, for a function whose first line calls it with itself and `locals()`.

    So nothing of it is left on the stack, which is what a debugger shows of a call of the network.
    """
    check_arguments(_function_hints(function), given, _signature(function))


def checked_fields(made: Any) -> None:
    """For the `__post_init__` of a dataclass: raises ValueError for a field that is not of its type."""
    hints = constructor_hints(type(made))
    given = {field.name: getattr(made, field.name) for field in fields(made)}
    check_arguments(hints, given, inspect.signature(type(made).__init__))


def check_arguments(hints: Mapping[str, Any], given: Mapping[str, Any], signature: inspect.Signature) -> None:
    """Raises ValueError for an argument that is not of its type; the default of a parameter is always right."""
    for name, value in given.items():
        if name in hints and value is not signature.parameters[name].default and not _fits(value, hints[name]):
            raise ValueError(f"{name} must be {_said(hints[name])}: got {shown(value)}.")


@functools.cache
def constructor_hints(kind: type) -> Mapping[str, Any]:
    """Types of the parameters of a class, as far as they can be resolved."""
    return _hints(kind.__init__)


@functools.cache
def _signature(function: Callable[..., Any]) -> inspect.Signature:
    return inspect.signature(function)


@functools.cache  # at the first call: annotations may name what the module defines further down
def _function_hints(function: Callable[..., Any]) -> Mapping[str, Any]:
    return _hints(function)


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    inner = inspect.unwrap(function)
    hints: dict[str, Any] = {}
    for name, annotation in getattr(inner, "__annotations__", {}).items():
        parameter = inspect.signature(inner).parameters.get(name)
        if parameter is None or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        alone: Any = SimpleNamespace(__annotations__={name: annotation})  # one by one: some are known to pyright only
        try:
            hints |= typing.get_type_hints(alone, globalns=getattr(inner, "__globals__", {}))
        except (NameError, AttributeError, TypeError):
            continue
    return hints


def _fits(value: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return any(type(value) is type(known) and value == known for known in get_args(hint))
    if hint in (None, NoneType):
        return value is None
    if hint is bool:
        return isinstance(value, bool | np.bool_)
    if hint is int:
        return _is_whole(value)
    if hint is float:
        return _is_number(value)
    if hint is str:
        return isinstance(value, str) and value != ""
    if origin in (tuple, list, collections.abc.Sequence):
        if isinstance(value, np.ndarray | Tensor):
            return origin is collections.abc.Sequence
        return _is_list(value) and _items_fit(list(value), origin, get_args(hint))
    if origin is collections.abc.Callable:
        return callable(value)
    return _is_made_of(value, origin or hint)


def _items_fit(values: list[Any], origin: Any, parts: tuple[Any, ...]) -> bool:
    if origin is tuple and parts and parts[-1] is not Ellipsis:
        return len(values) == len(parts) and all(map(_item_fits, values, parts))
    return not parts or all(_item_fits(value, parts[0]) for value in values)


def _item_fits(value: Any, hint: Any) -> bool:
    """Of a list: a NaN, and what lists in it hold, are left to whoever knows which entry it is."""
    if get_origin(hint) in (tuple, list, collections.abc.Sequence):
        return _is_list(value) or isinstance(value, np.ndarray)
    return _fits(value, hint) or (hint is float and isinstance(value, float))


def _is_made_of(value: Any, kind: Any) -> bool:
    if not isinstance(kind, type) or getattr(kind, "_is_protocol", False):
        return True
    if issubclass(kind, AbstractArray):
        kind = kind.array_type
        if not isinstance(kind, type):
            return True
    if kind is object or issubclass(kind, tuple):  # a named tuple may be given as a plain one
        return True
    if getattr(kind, "__parameters__", ()) and kind.__bases__[0] is not typing.Generic:
        kind = kind.__bases__[0]  # a sampler that is not of the right kind is told why by who takes it
    return isinstance(value, PathLike if issubclass(kind, PurePath) else kind)


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool | np.bool_) and abs(int(value)) <= 2**64


def _is_number(value: Any) -> bool:
    if not isinstance(value, numbers.Real) or isinstance(value, bool | np.bool_):
        return False
    try:
        return not math.isnan(float(value))
    except OverflowError:  # a whole number that no float holds
        return False


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


# -- words -------------------------------------------------------------------------------------------------------------

WORDS = {
    NoneType: "None",
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string that is not empty",
}
PLURALS = {int: "whole numbers", float: "numbers", str: "strings that are not empty", bool: "True and False"}


def _said(hint: Any) -> str:
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _alternatives(list(dict.fromkeys(map(_said, parts))))
    if origin is Literal:
        return _alternatives([repr(known) for known in parts])
    if hint in WORDS:
        return WORDS[hint]
    if origin is tuple and parts and parts[-1] is not Ellipsis:
        of_one_kind = PLURALS.get(parts[0], "values") if len(set(parts)) == 1 else "values"
        return f"{len(parts)} {of_one_kind} in a list"
    if origin in (tuple, list, collections.abc.Sequence):
        return f"a list of {_plural(parts[0])}" if parts else "a list"
    if origin is collections.abc.Callable:
        return "a function"
    kind = origin or hint
    if isinstance(kind, type) and issubclass(kind, AbstractArray):
        return "a tensor"
    if isinstance(kind, type) and issubclass(kind, PurePath):
        return "a path"
    return f"a {getattr(kind, '__name__', kind)}"


def _plural(hint: Any) -> str:
    if hint in PLURALS:
        return PLURALS[hint]
    if get_origin(hint) in (tuple, list, collections.abc.Sequence):
        return "lists"
    if get_origin(hint) is Literal:
        return _said(hint)
    return f"{getattr(hint, '__name__', 'value')} objects"


def _alternatives(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def did_you_mean(near: Sequence[str]) -> str:
    """The end of an error, with the names that may have been meant; nothing where there are none."""
    return f" Did you mean {_alternatives(near)}?" if near else ""


def shown(value: object) -> str:
    """A value in an error: as Python writes it where that is short, else its beginning, or its kind."""
    if isinstance(value, str | bytes | numbers.Number | list | tuple | dict | NoneType):
        try:
            text = repr(value)
        except ValueError:  # a number of more digits than Python writes
            return "a number of thousands of digits"
    else:
        text = f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}…"
