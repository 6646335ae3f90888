"""Samplers side by side: speed against quality."""

from psld.comparison.cells import (
    Cell,
    Plotted,
    Reference,
    Row,
    cells,
    draw_plot,
    markdown,
    measure,
    read_rows,
    write_rows,
)

__all__ = [
    "Cell",
    "Plotted",
    "Reference",
    "Row",
    "cells",
    "draw_plot",
    "markdown",
    "measure",
    "read_rows",
    "write_rows",
]
