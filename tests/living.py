"""Which processes a process has started, and whether they are still there (Linux)."""

import time
from pathlib import Path
from typing import NamedTuple


class Member(NamedTuple):
    """A process; its start tells it from a later one of that number."""

    number: int
    parent: int
    start: str


def _living() -> dict[int, Member]:
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                state, parent, *rest = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has just ended
                continue
            if state != "Z":
                found[int(folder.name)] = Member(int(folder.name), int(parent), rest[17])
    return found


def descendants(process: int) -> list[Member]:
    """All that a process, or one of those, started."""
    living, found = _living(), [process]
    for known in found:
        found += [member.number for member in living.values() if member.parent == known]
    return [living[number] for number in found[1:]]


def gone_after(members: list[Member], patience: float) -> float:
    """Seconds until none of them is there any more."""
    started = time.monotonic()
    while left := [m for m in members if _living().get(m.number, m._replace(start="")).start == m.start]:
        assert time.monotonic() - started < patience, [Path(f"/proc/{m.number}/cmdline").read_text() for m in left]
        time.sleep(0.05)
    return time.monotonic() - started
