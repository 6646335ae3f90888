"""psld: diffusion models whose forward process comes from the complete recipe.

The names below are loaded on first use, so that `import psld` and `psld --help` stay quick.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:
    from psld.kernels import Kernel
    from psld.model import Clamped, Model, ModelWrapper, Prediction, ScoreModel
    from psld.processes import CLD, EDM, PSLD, VESDE, VPSDE, HigherOrderLangevin, Process, SubVPSDE
    from psld.recipe import LinearRecipe, Recipe, RecipeError, RecipeReport
    from psld.runs import load
    from psld.samplers import (
        GDDIM,
        OBA,
        RK45,
        ROBA,
        RVV,
        SSCS,
        Ancestral,
        Conjugate,
        ConjugateOBA,
        ConjugateVerlet,
        DPMSolverPP,
        EulerMaruyama,
        Exponential,
        Heun,
        Langevin,
        PredictorCorrector,
        Projected,
        Sampler,
        SymplecticEuler,
        VelocityVerlet,
    )
    from psld.samplers.grids import Grid
    from psld.specs import Specified
    from psld.training import TrainingSettings, train

_HOME = {
    "psld.samplers.grids": ("Grid",),
    "psld.kernels": ("Kernel",),
    "psld.model": ("Clamped", "Model", "ModelWrapper", "Prediction", "ScoreModel"),
    "psld.processes": ("CLD", "EDM", "PSLD", "VESDE", "VPSDE", "HigherOrderLangevin", "Process", "SubVPSDE"),
    "psld.recipe": ("LinearRecipe", "Recipe", "RecipeError", "RecipeReport"),
    "psld.runs": ("load",),
    "psld.specs": ("Specified",),
    "psld.training": ("TrainingSettings", "train"),
    "psld.samplers": (
        "GDDIM",
        "OBA",
        "RK45",
        "ROBA",
        "RVV",
        "SSCS",
        "Ancestral",
        "Conjugate",
        "ConjugateOBA",
        "ConjugateVerlet",
        "DPMSolverPP",
        "EulerMaruyama",
        "Exponential",
        "Heun",
        "Langevin",
        "PredictorCorrector",
        "Projected",
        "Sampler",
        "SymplecticEuler",
        "VelocityVerlet",
    ),
}

__all__ = [
    "CLD",
    "EDM",
    "GDDIM",
    "OBA",
    "PSLD",
    "RK45",
    "ROBA",
    "RVV",
    "SSCS",
    "VESDE",
    "VPSDE",
    "Ancestral",
    "Clamped",
    "Conjugate",
    "ConjugateOBA",
    "ConjugateVerlet",
    "DPMSolverPP",
    "EulerMaruyama",
    "Exponential",
    "Grid",
    "Heun",
    "HigherOrderLangevin",
    "Kernel",
    "Langevin",
    "LinearRecipe",
    "Model",
    "ModelWrapper",
    "Prediction",
    "PredictorCorrector",
    "Process",
    "Projected",
    "Recipe",
    "RecipeError",
    "RecipeReport",
    "Sampler",
    "ScoreModel",
    "Specified",
    "TrainingSettings",
    "SubVPSDE",
    "SymplecticEuler",
    "VelocityVerlet",
    "load",
    "train",
]


def __getattr__(name: str):
    for module, names in _HOME.items():
        if name in names:
            return getattr(importlib.import_module(module), name)
    raise AttributeError(f"module 'psld' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
