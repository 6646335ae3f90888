"""Kinds of values that options take: numbers with their bounds, and text that is not empty.

A bound is either what the option means (a count is at least 1) or far beyond what anybody computes; it keeps a slip of
the finger (--num 3000000000) from filling the memory before anything else is looked at.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from jsonargparse.typing import NotEmptyStr, restricted_number_type

__all__ = [
    "Accelerator",
    "Count",
    "Devices",
    "Evaluations",
    "Finite",
    "NotNegative",
    "Number",
    "Positive",
    "Seed",
    "Several",
    "Text",
    "plain",
]

Count: Any = restricted_number_type("Count", int, [(">=", 1), ("<=", 10_000_000)], docstring="Images, draws, or steps.")
Several: Any = restricted_number_type(
    "Several", int, [(">=", 2), ("<=", 10_000_000)], docstring="What statistics need."
)
Number: Any = restricted_number_type("Number", int, [(">=", 0), ("<=", 10_000_000)], docstring="A label, or how many.")
Evaluations: Any = restricted_number_type(
    "Evaluations", int, [(">=", 1), ("<=", 100_000)], docstring="Network evaluations."
)
Devices: Any = restricted_number_type("Devices", int, [(">=", 1), ("<=", 1024)], docstring="Devices, or nodes.")
Seed: Any = restricted_number_type("Seed", int, [(">=", 0), ("<=", 10**18)], docstring="Of the first sample.")

Finite: Any = restricted_number_type("Finite", float, [(">", -math.inf), ("<", math.inf)], docstring="Not NaN either.")
Positive: Any = restricted_number_type("Positive", float, [(">", 0.0), ("<", math.inf)], docstring="And finite.")
NotNegative: Any = restricted_number_type("NotNegative", float, [(">=", 0.0), ("<", math.inf)], docstring="And finite.")

Accelerator = Literal["auto", "cpu", "cuda", "gpu", "mps"]

Text: Any = NotEmptyStr


def plain(value: Any) -> Any:
    """A parsed value with numbers of the types above as Python's own, which every writer knows."""
    if isinstance(value, list):
        return [plain(own) for own in value]
    return value._type(value) if hasattr(value, "_restrictions") else value
