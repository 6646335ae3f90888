"""Shapes and types of annotations are checked while the tests run; an installed psld does not pay for it."""

from jaxtyping import install_import_hook

CHECKED = "recipe schedules kernels processes"

install_import_hook(
    [f"psld.{module}" for module in CHECKED.split()],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",  # the tower: an int passes for a float
)
