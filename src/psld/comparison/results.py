"""How results are kept: one type for every sweep, as JSON and CSV, each known by the specs of what was measured."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from psld.files import UnreadableFileError, atomic_file, parse_json, read_json, read_table, write_json
from psld.files.reading import said

__all__ = ["SweepResult", "read_results", "write_results"]


@dataclass(frozen=True)
class SweepResult:
    """One measured cell. A figure that was not measured is None.

    Attributes:
        process, family, sampler: what tables and plots call them.
        budget: network evaluations that were allowed.
        nfe: mean number of evaluations made, within the budget where that was possible.
        frechet: Fréchet distance, or FID.
        frechet_low, frechet_high: 95 % interval of the distance that so many samples have on average.
        frechet_floor: the same between two sets of data.
        floor_images: how many real images the floor is of; None where it is of as many as there are samples.
        frechet_at_floor: the distance of so many of the samples, to be held against the floor.
        samples: how many were drawn.
        energy_distance, energy_floor, rms_to_exact: of an `ExactReference`.
        precision, recall, confident, confident_data: of a `DataReference`; the last is the share of the data.
        seconds: drawing and measuring.
        spec: configuration of the sampler that was built, tuned parameters included.
        key: `Cell.key`; "" in files that older versions wrote.
    """

    process: str
    family: str
    sampler: str
    budget: int
    nfe: float
    frechet: float
    frechet_low: float | None = None
    frechet_high: float | None = None
    frechet_floor: float | None = None
    floor_images: int | None = None
    frechet_at_floor: float | None = None
    samples: int | None = None
    energy_distance: float | None = None
    energy_floor: float | None = None
    rms_to_exact: float | None = None
    precision: float | None = None
    recall: float | None = None
    confident: float | None = None
    confident_data: float | None = None
    seconds: float | None = None
    spec: Mapping[str, Any] | None = None
    key: str = ""

    @property
    def times_floor(self) -> float | None:
        """The distance over its floor, at the same number of images; None where there is none of that number."""
        if not self.frechet_floor or (self.frechet_at_floor is None and self.floor_images not in (None, self.samples)):
            return None
        return (self.frechet if self.frechet_at_floor is None else self.frechet_at_floor) / self.frechet_floor

    @property
    def floor_at_this_size(self) -> float | None:
        """The floor, where it is of as many images as there are samples."""
        return self.frechet_floor if self.floor_images in (None, self.samples) else None

    @classmethod
    def read(cls, known: Mapping[str, Any]) -> SweepResult:
        """From a row of JSON or CSV; sampler, nfe and frechet must be there, columns of other names are passed over.

        Raises:
            AttributeError, KeyError, OverflowError, TypeError, ValueError: it is no such row.
        """
        nested = [name for name in NUMBERS + TEXTS if isinstance(known.get(name), (list, Mapping))]
        if nested:
            raise TypeError(f"its {nested[0]} is a {type(known[nested[0]]).__name__}")
        given = {name: value for name, value in known.items() if name in NUMBERS + TEXTS and value not in (None, "")}
        numbers = {name: float(given[name]) for name in NUMBERS if name in given}
        numbers |= {name: int(numbers[name]) for name in ("budget", "samples", "floor_images") if name in numbers}
        texts = {"process": "", "family": ""} | {name: str(given[name]) for name in TEXTS if name in given}
        spec = known.get("spec") or None
        spec = parse_json(spec, "the column 'spec'") if isinstance(spec, str) else spec
        if not (spec is None or isinstance(spec, Mapping)):
            raise TypeError(f"its spec is a {type(spec).__name__}")
        return cls(**{"budget": math.ceil(numbers["nfe"])} | numbers | texts, spec=spec)  # pyright: ignore[reportArgumentType]


TEXTS = ("process", "family", "sampler", "key")
NUMBERS = tuple(field.name for field in fields(SweepResult) if field.name not in (*TEXTS, "spec"))


def write_results(results: Sequence[SweepResult], path: Path) -> None:
    """A .json or a .csv file, in one piece; a column of the latter that holds nothing is left out."""
    known = [asdict(result) for result in results]
    if path.suffix == ".json":
        write_json(known, path)
        return
    columns = [column for column in known[0] if any(row[column] not in (None, "") for row in known)] if known else []
    text = io.StringIO()
    table = csv.DictWriter(text, columns, extrasaction="ignore")
    table.writeheader()
    table.writerows(row | {"spec": row["spec"] and json.dumps(row["spec"], ensure_ascii=False)} for row in known)
    with atomic_file(path) as file:
        file.write(text.getvalue().encode())


def read_results(path: Path) -> list[SweepResult]:
    """What `write_results` wrote, or an older version: a .json or a .csv file; nothing where there is none.

    Raises:
        UnreadableFileError: it holds something else.
    """
    if not path.exists():
        return []
    wrong = f"{path} is not the result of a sweep (a list of objects with sampler, nfe, frechet)"
    try:
        rows = read_table(path) if path.suffix == ".csv" else read_json(path, list, nan=True)
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{wrong}: {said(error)}.") from error
    results = []
    for number, row in enumerate(rows, start=1):
        try:
            results.append(SweepResult.read(row))
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            problem = f"lacks {error}" if isinstance(error, KeyError) else f"is no such object ({said(error)})"
            message = f"{wrong}: row {number} {problem}. Delete it, or measure again."
            raise UnreadableFileError(message) from error
    return results
