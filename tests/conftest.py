"""Shapes and types of annotations are checked while the tests run; an installed psld does not pay for it.

All of the package is checked, but not inside `pytest.raises`: there a test shows what a user sees who passes something
wrong, and the annotation would see it first.
"""

from typing import Any

import jaxtyping
import pytest

jaxtyping.install_import_hook(
    ["psld"],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",  # the tower: an int passes for a float
)


class Unchecked:
    """A context manager with the checks of annotations turned off inside it."""

    def __init__(self, inner: Any):
        self.inner = inner

    def __enter__(self) -> Any:
        self.before = jaxtyping.config.jaxtyping_disable
        jaxtyping.config.update("jaxtyping_disable", True)
        return self.inner.__enter__()

    def __exit__(self, *error: Any) -> Any:
        jaxtyping.config.update("jaxtyping_disable", self.before)
        return self.inner.__exit__(*error)


def pytest_configure(config):
    # beartype looks at a random row of a nested list, which hypothesis takes for randomness in a strategy
    config.addinivalue_line("filterwarnings", "ignore:Do not use the `random` module inside strategies")
    raises = pytest.raises
    pytest.raises = lambda *given, **options: Unchecked(raises(*given, **options))


@pytest.fixture
def unchecked(monkeypatch):
    """Turns the checks off, for a test of what a user sees who passes something of the wrong type."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
