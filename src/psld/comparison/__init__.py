"""Samplers side by side: speed against quality.

What is compared (`cells`), what it is held against (`references`), how a cell is measured (`measuring`), and how
results are kept and shown (`results`, `tables`; `psld.plots.speed_quality` draws them).
"""

from psld.comparison.cells import Cell, cells
from psld.comparison.drawing import draw
from psld.comparison.measuring import measure
from psld.comparison.references import DataReference, DigitsReference, ExactReference, Reference
from psld.comparison.results import SweepResult, read_results, write_results
from psld.comparison.tables import best_of_each, markdown_table, process_tables

__all__ = [
    "Cell",
    "DataReference",
    "DigitsReference",
    "ExactReference",
    "Reference",
    "SweepResult",
    "best_of_each",
    "cells",
    "draw",
    "markdown_table",
    "measure",
    "process_tables",
    "read_results",
    "write_results",
]
