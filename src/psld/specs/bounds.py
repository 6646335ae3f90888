"""What a configuration from elsewhere may ask of memory: refused before it is allocated, and after so many calls.

A line of text can ask for a network of terabytes, or of a billion layers. The file of weights beside it says how large
the network can be at most, so what is made of the configuration is counted against that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["OutsizedError", "bounded"]

SHAPED = {torch.empty, torch.full, torch.ones, torch.rand, torch.randn, torch.zeros}
"""Functions that make a tensor of a shape; of `COUNTED` the number of elements is an argument."""

COUNTED = {torch.arange, torch.eye, torch.linspace, torch.logspace, torch.randperm}


class OutsizedError(ValueError):
    """A configuration asks for more memory, or more tensors, than what it describes can need."""


@contextmanager
def bounded(size: int, calls: int, refusal: str) -> Iterator[None]:
    """Counts the tensors that are made inside, and refuses the one that is too many or too large.

    Results are bit for bit what they are outside. Tensors of Python lists, and what NumPy makes, are not counted.

    Args:
        size: bytes that all tensors together may have, those that are freed again included.
        calls: operations that may be asked for.
        refusal: the message of the error.

    Raises:
        OutsizedError: beyond either.
    """
    differentiating = torch.is_grad_enabled()
    try:
        with _Counting(size, calls, refusal):
            yield
    finally:  # leaving torch.no_grad() is a call too, and may be the one that was refused
        torch.set_grad_enabled(differentiating)


class _Counting(TorchFunctionMode):
    def __init__(self, size: int, calls: int, refusal: str):
        super().__init__()
        self.size, self.calls, self.refusal = size, calls, refusal

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        options = dict(kwargs or {})
        self.calls -= 1
        if self.calls < 0:
            raise OutsizedError(self.refusal)
        if func in SHAPED or func in COUNTED:  # its size is known before there is anything
            kind = options.get("dtype") or torch.get_default_dtype()
            try:
                wanted = _elements(func, args, options)
            except (ArithmeticError, LookupError, TypeError, ValueError):
                wanted = 0  # the call itself says what is wrong with its arguments
            self._spend(wanted * kind.itemsize)
            return func(*args, **options)
        made = func(*args, **options)
        if isinstance(made, Tensor) and not any(_share_memory(made, value) for value in args):
            self._spend(made.numel() * made.element_size())
        return made

    def _spend(self, size: int) -> None:
        self.size -= size
        if self.size < 0:
            raise OutsizedError(self.refusal)


def _elements(func: Any, args: Sequence[Any], options: Mapping[str, Any]) -> int:
    """How many a call asks for; of functions that take a range, those that `torch.arange` has."""
    if func in SHAPED:
        shape = options.get("size", args[:1] if func is torch.full else args)
        return math.prod(_numbers(shape))
    numbers = _numbers(args)
    if func is torch.eye:
        return math.prod([*numbers, options.get("m", numbers[-1])][:2])
    if func is torch.arange:
        start, end, step = {1: (0, *numbers, 1), 2: (*numbers, 1), 3: numbers}[len(numbers)]
        return math.ceil(abs(end - start) / abs(options.get("step", step) or 1))
    return int(options.get("steps", numbers[-1]))


def _numbers(values: Any) -> list[Any]:
    if isinstance(values, (list, tuple)):
        return [number for value in values for number in _numbers(value)]
    return [values.item() if isinstance(values, Tensor) else values]


def _share_memory(made: Tensor, value: object) -> bool:
    return isinstance(value, Tensor) and made.untyped_storage().data_ptr() == value.untyped_storage().data_ptr()
