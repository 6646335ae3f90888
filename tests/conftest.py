"""Shapes and types of annotations are checked while the tests run; an installed psld does not pay for it."""

import jaxtyping
import pytest

CHECKED = "recipe schedules kernels processes"

jaxtyping.install_import_hook(
    [f"psld.{module}" for module in CHECKED.split()],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",  # the tower: an int passes for a float
)


def pytest_configure(config):
    # beartype looks at a random row of a nested list, which hypothesis takes for randomness in a strategy
    config.addinivalue_line("filterwarnings", "ignore:Do not use the `random` module inside strategies")


@pytest.fixture
def unchecked(monkeypatch):
    """Turns the checks off, for a test of what a user sees who passes something of the wrong type."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
