"""What a command warns of: one plain line on standard error, as its errors are."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import psld

__all__ = ["plain_warnings"]

PACKAGE = Path(psld.__file__).parent


@contextmanager
def plain_warnings(command: str) -> Iterator[None]:
    """Inside, what psld warns of is printed without file, line and code; other packages warn as they do."""
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
            if category is UserWarning and PACKAGE in Path(filename).parents:
                print(f"psld {command}: {message}", file=sys.stderr)
            else:
                usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield
