"""What is said of a command line or a configuration that is refused: one sentence.

jsonargparse says which key it refuses. What is allowed there is read from the parser and from constructors (the types
of options and of arguments), and is said in words; its own description of types is not shown.
"""

from __future__ import annotations

import difflib
import errno
import inspect
import operator
import re
import sys
import typing
from argparse import Action
from collections.abc import Iterator, Sequence
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser
from jsonargparse.typing import NotEmptyStr

from psld.files.atomic import FULL, ROOM, DiskFullError
from psld.specs import listed_names, resolve
from psld.specs.arguments import did_you_mean
from psld.specs.spec import class_path

__all__ = ["allowed", "of_the_system", "refusal", "subclasses"]

LONGEST = 80
"""Characters of a value that a message repeats."""


def refusal(parser: ArgumentParser, message: str, arguments: Sequence[str]) -> str:
    """What a parser says, as the sentence that the user needs.

    Args:
        parser: of the command.
        message: of jsonargparse or argparse.
        arguments: that it was given.
    """
    if missing := re.fullmatch(r"the following arguments are required: (.+)", message):
        return f"{_listed([_with_help(parser, name) for name in missing[1].split(', ')])} must be given."
    if unknown := re.fullmatch(r"unrecognized arguments: (.+)", message, re.S):
        return _unknown(parser, unknown[1])
    if argument := re.fullmatch(r"argument ([\w.-]+)\S*: (expected .+)", message):
        return f"{argument[1]} needs a value{_of_allowed(_hint(parser, argument[1].lstrip('-')))}: got none."
    if choice := re.fullmatch(r"argument (\S+): invalid choice: '(.*)' \(choose from (.+)\)", message, re.S):
        return f"{choice[1].upper()} must be {choice[3]}: got {_short(choice[2])}."
    if helped := re.match(r"--([\w.]+)\.help: ", message):
        option = f"--{helped[1]}.help"
        given = _given(option, message, arguments) or ""
        names = [name for kind in _alternatives(_hint(parser, helped[1])) for name in _names(kind)]
        return f"{option} must be {allowed(_hint(parser, helped[1]))}: got {_short(given)}.{_near(given, names)}"
    if file := re.search(r"File does not exist: '(.*?)'", message):
        return f"there is no file {file[1]}."
    return _about_key(parser, message, arguments)


def _about_key(parser: ArgumentParser, message: str, arguments: Sequence[str]) -> str:
    key, hint, owner = _place(parser, message)
    if not key:
        return " ".join(message.split())
    action = _action(parser, key)
    option = key.upper() if action is not None and not action.option_strings and owner is None else f"--{key}"
    if owner is not None:
        known = list(inspect.signature(owner).parameters)
        if unknown := re.search(r"Option '([^']+)' is not accepted", message):
            near = _near(unknown[1], known)
            return f"{option} {class_path(owner)} has no argument {unknown[1]!r}: it has {_listed(known)}.{near}"
        if missing := re.search(r"arguments are required: ([\w., ]+)", message):
            needed = _listed([f"{option}.{name}" for name in missing[1].split(", ")])
            return f"{option} {class_path(owner)} needs {needed}."
    nested = re.search(r"NestedArg\(key='([\w.]+)'", message)
    if nested and not key.endswith(f".{nested[1]}"):
        return f"{option}.{nested[1]} is an argument of a class, and none is named: give {option} as well."
    given = _given(option, message, arguments)
    said = "" if given is None else f": got {_short(given)}"
    names = [name for kind in _alternatives(hint) for name in _names(kind)]
    words = allowed(hint) or "of another type"
    return f"{option} must be {words}{said}.{_near(given or '', names)}"


def _place(parser: ArgumentParser, message: str) -> tuple[str, Any, type | None]:
    """Where a message is about: the key, the type it must have, and the class whose arguments are wrong, if any."""
    key, hint, owner = "", None, None
    for part in re.finditer(r"Parser key \"([\w.]+)\"|given class_path '([\w.]+)'", message):
        name, path = part.groups()
        if path is not None:
            owner = _class_of_any(path)
        elif owner is not None:
            key, hint, owner = f"{key}.{name}", _argument_type(owner, name), None
        else:  # the last of them: a key of a file comes after that of the option that named the file
            key, hint = name, _hint(parser, name)
    if group := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message):
        key = key or f"{group[1]}.{group[2]}"
    return key, hint, owner


def _class_of_any(path: str) -> type | None:
    try:
        found = resolve(path, trust=True)
    except ValueError:  # there is none of that name, which is what is wrong
        return None
    return found if isinstance(found, type) else None


def _hint(parser: ArgumentParser, name: str) -> Any:
    action = _action(parser, name)
    if action is None:
        return None
    return Literal[tuple(action.choices)] if action.choices else getattr(action, "_typehint", None) or action.type


def _action(parser: ArgumentParser, name: str) -> Action | None:
    return next((action for action in parser._actions if action.dest == name), None)


def _argument_type(owner: type, name: str) -> Any:
    try:
        return typing.get_type_hints(owner.__init__).get(name)
    except NameError:  # a name that is there for type checkers only
        return None


def _given(option: str, message: str, arguments: Sequence[str]) -> str | None:
    """The value of an option: as it was typed, or else as the message has it, which is how a file gives it."""
    for place, argument in reversed(list(enumerate(arguments))):
        if argument.startswith(f"{option}="):
            return argument.partition("=")[2]
        if argument == option:
            values = arguments[place + 1 :]
            end = next((i for i, value in enumerate(values) if re.match(r"--?[a-z]", value)), len(values))
            return " ".join(values[:end])
    wrong_class = r"Import path (\S+) does not correspond|import path string: (\S+)"
    quoted = re.search(rf"NestedArg\(key='\w+', val='(.*?)'\)|Got value: (.*)|Given value: (.*)|{wrong_class}", message)
    if quoted is None and "does not correspond to a subclass" in message:
        return message.split()[-1]
    return None if quoted is None else next(text for text in quoted.groups() if text is not None)


# -- what is allowed ---------------------------------------------------------------------------------------------------

AT_LEAST, ABOVE, AT_MOST, BELOW = operator.ge, operator.gt, operator.le, operator.lt


def allowed(hint: Any) -> str:
    """The values of a type in words, "a whole number from 1 to 10,000,000" or "png or npz"; "" where there are none."""
    words = [text for kind in _alternatives(hint) if (text := _words(kind))]
    return _listed(words, "or")


def subclasses(kind: type) -> list[str]:
    """The classes of psld of a kind, by their short names: those configurations may name, or else all public ones."""
    listed = [path.rpartition(".")[2] for path in listed_names() if issubclass(_class(path), kind)]
    return listed or sorted({name for own in [kind, *_descendants(kind)] if (name := _public_name(own))})


def _class(path: str) -> type:
    return typing.cast(type, resolve(path))


def _alternatives(hint: Any) -> Iterator[Any]:
    if get_origin(hint) in (Union, UnionType):
        for inner in get_args(hint):
            yield from _alternatives(inner)
    elif hint is not None and hint is not NoneType:
        yield hint


def _words(kind: Any) -> str:
    plain = {
        bool: "true or false",
        int: "a whole number",
        float: "a number",
        str: "text",
        NotEmptyStr: "text that is not empty",
    }
    if kind in plain:
        return plain[kind]
    if get_origin(kind) is Literal:
        return _listed([str(value) for value in get_args(kind)], "or")
    if get_origin(kind) in (list, tuple, Sequence, typing.Sequence):
        inner = get_args(kind)
        return f"a list, as [1, 2], each {allowed(inner[0])}" if inner else "a list, as [1, 2]"
    if hasattr(kind, "_restrictions"):
        return _bounded(kind)
    if inspect.isclass(kind) and (names := subclasses(kind)):
        return f"a class ({', '.join(names)}, or one of your own by its import path)"
    return ""


def _bounded(kind: Any) -> str:
    """In words: jsonargparse keeps the bounds of a number as pairs of a comparison and a number."""
    bounds, what = dict(kind._restrictions), "a whole number" if kind._type is int else "a finite number"
    if AT_LEAST in bounds and AT_MOST in bounds:
        return f"{what} from {bounds[AT_LEAST]:,} to {bounds[AT_MOST]:,}"
    if bounds.get(ABOVE) == 0:
        return f"{what} above 0"
    return f"{what} of at least {bounds[AT_LEAST]:g}" if AT_LEAST in bounds else what


def _names(kind: Any) -> list[str]:
    if get_origin(kind) is Literal:
        return [str(value) for value in get_args(kind)]
    return subclasses(kind) if inspect.isclass(kind) and not hasattr(kind, "_restrictions") else []


def _descendants(kind: type) -> Iterator[type]:
    for own in type.__subclasses__(kind):
        yield own
        yield from _descendants(own)


def _public_name(kind: type) -> str | None:
    if not kind.__module__.startswith("psld.") or inspect.isabstract(kind):
        return None
    room, _, name = class_path(kind).rpartition(".")
    return name if name in getattr(sys.modules.get(room), "__all__", ()) else None


# -- words -------------------------------------------------------------------------------------------------------------


def _unknown(parser: ArgumentParser, given: str) -> str:
    first = given.split()[0]
    if not first.startswith("-"):
        return f"{_short(given)} belongs to no option: {parser.prog} --help lists them."
    name = first.partition("=")[0]
    root, dot, rest = name.partition(".")
    known = [option for action in parser._actions for option in action.option_strings if not option.endswith(".help")]
    near = _near(name, known) or _near(root, known, dot + rest)
    return f"there is no option {name}: {parser.prog} --help lists them.{near}"


def _with_help(parser: ArgumentParser, name: str) -> str:
    action = _action(parser, name)
    if action is None:
        return f"--{name}"
    shown = action.option_strings[0] if action.option_strings else name.upper()
    return f"{shown} ({action.help})" if isinstance(action.help, str) else shown


def _of_allowed(hint: Any) -> str:
    words = allowed(hint)
    return f", {words}" if words else ""


def _near(given: str, known: Sequence[str], after: str = "") -> str:
    by_small = {name.lower(): name for name in known}
    small = given.rpartition(".")[2].lower() if not given.startswith("-") else given.lower()
    near = [by_small[name] + after for name in difflib.get_close_matches(small, by_small, n=3)]
    return did_you_mean(near)


def _listed(words: Sequence[str], last: str = "and") -> str:
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


def _short(value: str) -> str:
    text = " ".join(value.split())
    return repr(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")


# -- the system --------------------------------------------------------------------------------------------------------

ADVICE = {
    **dict.fromkeys(FULL, ROOM),
    errno.EACCES: "change its permissions, or give another path",
    errno.EPERM: "change its permissions, or give another path",
    errno.EROFS: "give a path on a file system that can be written",
    errno.EISDIR: "a file is needed there",
    errno.ENOTDIR: "a folder is needed there",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.ENOENT: "give the path of one that is there",
}
"""What to do, by what the operating system answers."""


def of_the_system(error: OSError) -> str:
    """An error of the operating system as a sentence with the file and what to do; of our own, what it says."""
    if error.errno is None or isinstance(error, DiskFullError):
        return str(error)
    what = f"{error.strerror}" if error.filename is None else f"{str(error.filename)!r}: {error.strerror}"
    advice = ADVICE.get(error.errno)
    return f"{what}{'; ' + advice if advice else ''}."
