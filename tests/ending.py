"""How a command ends."""

from psld.cli import main


def exit_code(arguments: list[str]) -> int:
    """Of a command that returns it, or that ends the program where its parser refuses an argument."""
    try:
        return main(arguments)
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code
