"""What a command warns of: one plain line on standard error, as its errors are."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["plain_warnings"]


@contextmanager
def plain_warnings(command: str) -> Iterator[None]:
    """Inside, warnings of psld's own categories are printed without file, line and code; all others as ever."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category.__module__.partition(".")[0] == "psld":
                print(f"psld {command}: {message}", file=sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
