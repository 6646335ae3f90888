"""psld: diffusion models whose forward process comes from the complete recipe.

The names of `__all__` are loaded on first use, so that `import psld` and `psld --help` stay quick. The processes among
them are the classes of `psld.processes`, the samplers those of `psld.samplers.catalogue`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from psld.jobs.configuring import setup_for as setup_for
    from psld.kernels import Kernel as Kernel
    from psld.model import Clamped as Clamped
    from psld.model import Model as Model
    from psld.model import ModelWrapper as ModelWrapper
    from psld.model import Prediction as Prediction
    from psld.model import ScoreModel as ScoreModel
    from psld.processes import *  # noqa: F403
    from psld.recipe import LinearRecipe as LinearRecipe
    from psld.recipe import Recipe as Recipe
    from psld.recipe import RecipeError as RecipeError
    from psld.recipe import RecipeReport as RecipeReport
    from psld.runs import load as load
    from psld.samplers.catalogue import *  # noqa: F403
    from psld.samplers.grids import Grid as Grid
    from psld.samplers.sampler import Sampler as Sampler
    from psld.specs import Specified as Specified
    from psld.training import TrainingSettings as TrainingSettings
    from psld.training import train as train

_HOME = {
    "psld.samplers.grids": ("Grid",),
    "psld.samplers.sampler": ("Sampler",),
    "psld.jobs.configuring": ("setup_for",),
    "psld.kernels": ("Kernel",),
    "psld.model": ("Clamped", "Model", "ModelWrapper", "Prediction", "ScoreModel"),
    "psld.recipe": ("LinearRecipe", "Recipe", "RecipeError", "RecipeReport"),
    "psld.runs": ("load",),
    "psld.specs": ("Specified",),
    "psld.training": ("TrainingSettings", "train"),
}


def _processes() -> list[str]:
    processes = importlib.import_module("psld.processes")
    return [name for name in processes.__all__ if isinstance(getattr(processes, name), type)]


def _samplers() -> list[str]:
    return importlib.import_module("psld.samplers.catalogue").__all__


def __getattr__(name: str) -> Any:
    if name == "__all__":  # of `from psld import *`, which needs both rooms anyway
        return sorted([*(own for names in _HOME.values() for own in names), *_processes(), *_samplers()])
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    if not name.startswith("_"):
        for module, offered in (("psld.processes", _processes), ("psld.samplers.catalogue", _samplers)):
            if name in offered():
                return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'psld' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__getattr__("__all__"), "__version__"])
