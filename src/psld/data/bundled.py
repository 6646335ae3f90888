"""Where scikit-image keeps the images that come inside its package: real pixels without a download."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

__all__ = ["bundled_file"]


def bundled_file(name: str) -> Path:
    """The path of a file of scikit-image's data folder; nothing is downloaded, and scikit-image is not imported.

    Raises:
        ModuleNotFoundError: scikit-image is not installed.
        FileNotFoundError: the installed version does not bundle the file.
    """
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError(
            f"{name} comes with scikit-image, which is not installed: pip install 'psld[scikit-image]'."
        )
    file = Path(spec.submodule_search_locations[0]) / "data" / name
    if not file.is_file():
        raise FileNotFoundError(
            f"the installed scikit-image does not bundle {name}: pip install --upgrade 'psld[scikit-image]'."
        )
    return file
