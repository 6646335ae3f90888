"""One checked way to read YAML, JSON and CSV that psld wrote, or that somebody else wrote in its place.

Such a file may come from elsewhere, so what it can ask for is bounded before it is given: size, nesting, length of a
number. Names appear once in a mapping, text is UTF-8, and NaN is no value. YAML is data alone: no tags, anchors,
aliases or merge keys, so it is never larger than the file. Every refusal is one sentence that names the file, and none
quotes it at length.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

__all__ = [
    "CONFIGURATION_BYTES",
    "JSON_BYTES",
    "NESTING",
    "TABLE_BYTES",
    "UnreadableFileError",
    "parse_json",
    "parse_yaml",
    "read_json",
    "read_table",
    "read_text",
    "read_yaml",
    "require_file",
    "said",
]

CONFIGURATION_BYTES = 128 * 1024
"""Of YAML: published configurations have 2 KiB; one that writes out a thousand numbers has 20."""

JSON_BYTES = 16 * 1024**2
"""Of JSON: a hundred thousand rows of results."""

TABLE_BYTES = 256 * 1024**2
"""Of CSV: two million rows of a training log."""

NESTING = 64
"""Containers within containers, at most: two for each object within an object."""

DIGITS = 64
"""Characters of one number, at most: a float64 needs 24."""

Kind = type[dict] | type[list]

PLAIN = {f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map")}
KINDS = {dict: "a mapping of names to values", list: "a list"}


class UnreadableFileError(ValueError):
    """A file is not what psld writes in its place; the message says which file, what is wrong and what to do."""


def require_file(file: str | Path, advice: str = "Copy or write it again.") -> Path:
    """The path of a regular file, or of a link to one.

    Raises:
        FileNotFoundError: there is no such file, or a link to none.
        UnreadableFileError: it is a folder, a device or a pipe.
    """
    file = Path(file)
    if not file.is_file():
        if file.exists():
            raise UnreadableFileError(f"{file} is no file: a folder, device or pipe is in its place. {advice}")
        raise FileNotFoundError(f"there is no file {file}.")
    return file


def read_text(file: str | Path, limit: int, advice: str = "Copy or write it again.") -> str:
    """The text of a file of at most `limit` bytes.

    Raises:
        FileNotFoundError: there is no such file, or a link to none.
        UnreadableFileError: it is larger, no file (a folder, a device, a pipe), or not UTF-8.
        OSError: it cannot be opened.
    """
    file = require_file(file, advice)
    with open(file, "rb") as opened:
        content = opened.read(limit + 1)
    if len(content) > limit:
        raise UnreadableFileError(f"{file} is larger than {limit // 1024} KiB, and no such file of psld is. {advice}")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UnreadableFileError(
            f"{file} is not UTF-8: byte {error.start} is {content[error.start]:#04x}. {advice}"
        ) from error


def read_yaml(file: str | Path) -> dict[str, Any]:
    """A configuration: a mapping of names to plain data.

    Raises:
        FileNotFoundError, OSError: as for `read_text`.
        UnreadableFileError: not such a mapping in plain YAML; see `parse_yaml`.
    """
    return parse_yaml(read_text(file, CONFIGURATION_BYTES), str(file))


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """A mapping from YAML: None, bools, numbers, strings, lists and mappings with strings for names.

    Args:
        text: of at most CONFIGURATION_BYTES characters.
        where: what messages call it.

    Raises:
        UnreadableFileError: too large or too deeply nested; a name that is there twice or is not text; a tag, anchor,
            alias or merge key; a date; NaN; a number of more than 64 characters; more than one document; no mapping.
    """
    if len(text) > CONFIGURATION_BYTES:
        raise UnreadableFileError(f"{where} is larger than {CONFIGURATION_BYTES // 1024} KiB: no configuration is.")
    try:
        loader = _PlainLoader(text)
        try:
            content = loader.get_single_data()
        finally:
            loader.dispose()
    except _RefusedError as error:
        raise UnreadableFileError(f"{where} cannot be read: {error}. Correct it, or copy it again.") from error
    except yaml.YAMLError as error:
        raise UnreadableFileError(f"{where} is not YAML: {_problem(error)}. Correct it, or copy it again.") from error
    except (ValueError, RecursionError) as error:  # of a number, say
        raise UnreadableFileError(f"{where} is not YAML ({error}). Correct it, or copy it again.") from error
    return _of_kind(content, dict, where)


def read_json(file: str | Path, kind: Kind = dict, nan: bool = False) -> Any:
    """What `psld.files.write_json` wrote.

    Args:
        file: of at most JSON_BYTES bytes.
        kind: what it must hold, dict or list.
        nan: NaN may stand for a number, as for a distance that could not be computed.

    Raises:
        FileNotFoundError, OSError: as for `read_text`.
        UnreadableFileError: it holds something else; see `parse_json`.
    """
    return parse_json(read_text(file, JSON_BYTES), str(file), kind, nan)


def parse_json(text: str, where: str, kind: Kind = dict, nan: bool = False) -> Any:
    """A mapping or a list from JSON.

    Args:
        text: JSON.
        where: what messages call it.
        kind: what it must hold, dict or list.
        nan: as for `read_json`.

    Raises:
        UnreadableFileError: not JSON, or truncated; too deeply nested; a name that is there twice; NaN; a number of
            more than 64 characters; another kind.
    """
    try:
        content = json.loads(
            text,
            object_pairs_hook=_distinct,
            parse_int=_number(int),
            parse_float=_number(float),
            parse_constant=float if nan else _named,
        )
        _require_shallow(content)
    except _RefusedError as error:
        raise UnreadableFileError(f"{where} cannot be read: {error}. Correct it, or write it again.") from error
    except json.JSONDecodeError as error:
        what = "is empty" if not text.strip() else f"is not JSON, or truncated: {error.msg} in line {error.lineno}"
        raise UnreadableFileError(f"{where} {what}. Delete it, or write it again.") from error
    except RecursionError as error:
        raise UnreadableFileError(f"{where} nests more than {NESTING} containers: no file of psld does.") from error
    return _of_kind(content, kind, where)


def read_table(file: str | Path, torn: bool = False) -> list[dict[str, str]]:
    """The rows of a CSV file, each by the names in its first line.

    Args:
        file: of at most TABLE_BYTES bytes.
        torn: leave out what follows the last end of line: a process that is killed can leave part of a row there.

    Raises:
        FileNotFoundError, OSError: as for `read_text`.
        UnreadableFileError: no such table, or one whose last line has no end; names that are there twice; a row with
            more or fewer cells than names.
    """
    text = read_text(file, TABLE_BYTES, "Delete or repair it.")
    if torn:
        text = text[: text.rfind("\n") + 1]
    elif text and not text.endswith("\n"):
        raise UnreadableFileError(f"{file} does not end with an end of line: it is truncated. Delete or repair it.")
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
    except csv.Error as error:
        raise UnreadableFileError(f"{file} is not CSV: {error}. Delete or repair it.") from error
    if not rows:
        return []
    names = rows[0]
    if len(set(names)) != len(names):
        raise UnreadableFileError(f"{file} names a column twice in its first line. Delete or repair it.")
    for number, cells in enumerate(rows[1:], start=2):
        if len(cells) != len(names):
            raise UnreadableFileError(
                f"{file} has {len(cells)} cells in row {number} and {len(names)} columns. Delete or repair it."
            )
    return [dict(zip(names, cells, strict=True)) for cells in rows[1:]]


# -- YAML --------------------------------------------------------------------------------------------------------------


class _RefusedError(Exception):
    """Something that is well formed and not wanted."""


class _PlainLoader(yaml.SafeLoader):
    """Plain data; refuses everything else as soon as it is seen, before it is built."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event, line = self.peek_event(), _line(self.peek_event())
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _RefusedError(f"{line} has an anchor or alias (& or *), so write the value out")
        if getattr(event, "tag", None) is not None:
            raise _RefusedError(f"{line} has a tag (!), and plain values need none")
        if self.depth >= NESTING:
            raise _RefusedError(f"{line} nests more than {NESTING} lists and mappings")
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        assert node is not None  # of an event that begins one
        if node.tag not in PLAIN:
            kind = node.tag.rpartition(":")[2]
            raise _RefusedError(f"{line} has a {kind} where text or a number is needed, so put it in quotes")
        if node.tag.endswith((":int", ":float")) and len(node.value) > DIGITS:
            raise _RefusedError(f"{line} has a number of {len(node.value)} characters")
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        names = set()
        for key, _ in node.value:
            if not key.tag.endswith(":str"):
                raise _RefusedError(f"{_line(key)} has a name that is no text, so put it in quotes")
            if key.value in names:
                raise _RefusedError(f"{_line(key)} has the name {_short(key.value)} again")
            names.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_yaml_float(self, node: Any) -> float:
        value = super().construct_yaml_float(node)
        if math.isnan(value):
            raise _RefusedError(f"{_line(node)} has NaN")
        return value


_PlainLoader.add_constructor("tag:yaml.org,2002:float", _PlainLoader.construct_yaml_float)


def _line(placed: Any) -> str:
    return f"line {placed.start_mark.line + 1}"


def _problem(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"{error.problem or error.context} in line {error.problem_mark.line + 1}"
    return " ".join(str(error).split())[:200]


# -- JSON --------------------------------------------------------------------------------------------------------------


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    known = dict(pairs)
    if len(known) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _RefusedError(f"it has the name {_short(twice)} twice in a mapping")
    return known


def _number(make: Callable[[str], Any]) -> Callable[[str], Any]:
    def made(text: str) -> Any:
        if len(text) > DIGITS:
            raise _RefusedError(f"it has a number of {len(text)} characters")
        return make(text)

    return made


def _named(name: str) -> float:
    if name == "NaN":
        raise _RefusedError("it has NaN")
    return float(name)


def _require_shallow(content: Any) -> None:
    level = [content]
    for _ in range(NESTING):
        level = [own for value in level if isinstance(value, (dict, list)) for own in _members(value)]
        if not level:
            return
    if any(isinstance(value, (dict, list)) for value in level):
        raise _RefusedError(f"it nests more than {NESTING} lists and mappings")


def _members(value: dict[str, Any] | list[Any]) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


# -- both --------------------------------------------------------------------------------------------------------------


def _of_kind(content: Any, kind: Kind, where: str) -> Any:
    if not isinstance(content, kind):
        found = "nothing" if content is None else f"a {type(content).__name__}"
        raise UnreadableFileError(f"{where} holds {found} where {KINDS[kind]} is needed. Correct it, or copy it again.")
    return content


def said(error: BaseException) -> str:
    """The first line of what an error says, cut and without its full stop; its class where it says nothing."""
    told = str((isinstance(error, OSError) and error.strerror) or error)  # without the number of the system's error
    lines = told.strip().splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".:")[:300]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")
