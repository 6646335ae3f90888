"""What every public class and function says to an argument that means nothing: one sentence that names it.

Each parameter is given every value of `PROBES` in turn, the others being sound. A probe that the parameter may have
does what it should; any other raises a ValueError or a TypeError which names the parameter, shows what was given and
says what is allowed. What may be given follows from the annotation, and from `ACCEPTED` where a range is wider or
narrower than that. The checks of annotations that tests turn on are off: this is what a user sees.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import psld
from psld import editing, exact
from psld.data import Digits, Framing, ShuffledBatches
from psld.evaluation.features.digit_classifier import train_digit_classifier
from psld.evaluation.metrics.energy import energy_distance
from psld.evaluation.metrics.inception_score import InceptionScore
from psld.evaluation.metrics.kernel_distance import KernelDistance, kernel_distance
from psld.evaluation.metrics.nearest import nearest_distance
from psld.evaluation.metrics.neighbours import neighbourhoods
from psld.guidance.classifier_free import ClassifierFreeGuidance
from psld.guidance.classifier_guidance import ClassifierGuidance
from psld.inverse import masks, operators
from psld.inverse.posterior import DPS, MMPS, PiGDM
from psld.inverse.replacement import Replacement
from psld.jobs.interpolation import interpolate
from psld.likelihood import Hutchinson, ProbabilityFlow, bits_per_dimension, bound
from psld.likelihood.dequantisation import LogitNormal, Uniform, fit
from psld.likelihood.images import LikelihoodSettings
from psld.losses import HSM
from psld.model import Clamped, ScoreModel
from psld.networks import MLP, FourierEmbedding, SinusoidalEmbedding
from psld.processes import VPSDE
from psld.samplers import Exponential, grids
from psld.specs import listed_names
from psld.training import TrainingSettings

PROBES: dict[str, Any] = {
    "text": "many",
    "1.5": 1.5,
    "True": True,
    "None": None,
    "0": 0,
    "-1": -1,
    "1e12": 10**12,
    "1e300": 1e300,
    "10^400": 10**400,
    "nan": math.nan,
    "inf": math.inf,
    "-inf": -math.inf,
    "''": "",
    "[]": [],
    "()": (),
}

POSITIVE, NON_NEGATIVE, FINITE = "1.5 1e12", "0 1.5 1e12", "-1 0 1.5 1e12"
SEED = "-1 0 1e12"
"""Any whole number that 64 bits hold."""

BY_KIND = {"float": POSITIVE, "bool": "True", "str": "text"}
"""What may be given unless `ACCEPTED` says otherwise; whole numbers start at 1."""


@dataclass(frozen=True)
class Subject:
    """A class or function, and arguments with which it works."""

    call: Callable[..., Any]
    given: dict[str, Any]

    @property
    def parameters(self) -> dict[str, str]:
        """Annotations by name."""
        found = inspect.signature(self.call).parameters.values()
        return {p.name: str(p.annotation) for p in found if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


PROCESS = VPSDE()
DATA = exact.GaussianMixture(
    means=torch.tensor([[0.8, -0.4], [-0.7, 0.1]], dtype=torch.float64), std=torch.tensor([0.2, 0.5]).double()
)
MODEL = DATA.model(PROCESS)
IMAGES = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
PICTURES = exact.Gaussian(std=0.5, shape=(3, 8, 8)).model(PROCESS)
SMALL: dict[str, Any] = {"width": 4, "multipliers": (1,), "blocks": 1}
EMPTY_MODEL = ScoreModel(psld.networks.UNet(3, image_size=8, **SMALL), PROCESS, data_shape=(3, 8, 8))
KNOWN = masks.named_mask("half", (3, 8, 8))
NOTHING = Path(__file__).parent / "nowhere"
FEATURES = torch.randn(12, 3, generator=torch.Generator().manual_seed(1))


def classifier(z: Tensor, t: Tensor) -> Tensor:
    return z.flatten(1)[:, :2]


def small_network() -> nn.Module:
    return MLP(1, 2, width=4, depth=1)


def train(**options: Any) -> Path:
    return psld.train(**options)


GIVEN: dict[str, Callable[[], dict[str, Any]]] = {
    "psld.Grid": lambda: {"times": [1.0, 0.5]},
    "psld.Langevin": lambda: {"predictor": Exponential()},
    "psld.LinearRecipe": lambda: {"diffusion": [[0.5]], "curl": [[0.0]], "covariance": [[1.0]]},
    "psld.Process": lambda: {"recipe": psld.CLD().recipe, "schedule": 8.0},
    "psld.Projected": lambda: {"solver": Exponential()},
    "psld.data.AFHQ": lambda: {"root": "nowhere"},
    "psld.data.ArrayFile": lambda: {"file": "nowhere.npz"},
    "psld.data.CIFAR10": lambda: {"root": "nowhere"},
    "psld.data.CelebA": lambda: {"root": "nowhere"},
    "psld.data.FileImages": lambda: {"files": [Path("nowhere.png")], "channels": 3, "framing": Framing(8)},
    "psld.data.Framing": lambda: {"size": 8},
    "psld.data.HuggingFace": lambda: {"source": str(NOTHING), "image_size": 8},
    "psld.data.ImageFolder": lambda: {"root": "nowhere", "image_size": 8},
    "psld.data.Images": lambda: {"images": IMAGES},
    "psld.data.MNIST": lambda: {"root": "nowhere"},
    "psld.data.PixelArray": lambda: {"array": torch.zeros(2, 3, 8, 8, dtype=torch.uint8)},
    "psld.losses.ConditionalScoreMatching": lambda: {"process": PROCESS},
    "psld.networks.Autocast": lambda: {"network": small_network()},
    "psld.networks.DiT": lambda: {"width": 8, "depth": 1, "heads": 2},
    "psld.networks.MLP": lambda: {"variables": 1, "dimension": 2, "width": 4},
    "psld.networks.NCSNpp": lambda: SMALL,
    "psld.networks.NoiseClassifier": lambda: {"classes": 2, **SMALL},
    "psld.networks.Patched": lambda: {"network": small_network()},
    "psld.networks.Preconditioned": lambda: {"network": small_network()},
    "psld.networks.PreconditionedState": lambda: {"network": small_network(), "process": PROCESS},
    "psld.networks.UNet": lambda: SMALL,
    "psld.networks.Wrapping": lambda: {"network": small_network()},
}
"""What listed classes need, or need to be small."""

MODEL_GIVEN = {"model": PICTURES, "operator": operators.SuperResolution(), "observation": torch.zeros(1, 3, 4, 4)}
SAMPLING = {"n": 2, "steps": 2}
ONE = {"model": MODEL, "images": torch.zeros(1, 2), "seeds": [0]}

OTHERS: dict[str, Callable[[], Subject]] = {
    "TrainingSettings": lambda: Subject(TrainingSettings, {"steps": 1, "batch_size": 2}),
    "load": lambda: Subject(psld.load, {"path": "nowhere"}),
    "train": lambda: Subject(
        psld.train,
        {
            "model": ScoreModel(small_network(), PROCESS),
            "data": torch.zeros(4, 2),
            "loss": HSM(),
            "settings": TrainingSettings(steps=1, batch_size=2, tensorboard=False, progress=False, accelerator="cpu"),
            "run": "run",
        },
    ),
    "ScoreModel": lambda: Subject(ScoreModel, {"network": small_network(), "process": PROCESS}),
    "Clamped": lambda: Subject(Clamped, {"model": MODEL}),
    "model.sample": lambda: Subject(MODEL.sample, SAMPLING),
    "sampler.sample": lambda: Subject(Exponential().sample, {"model": MODEL, **SAMPLING}),
    **{
        f"grids.{make.__name__}": lambda make=make: Subject(make, {"process": PROCESS, "nfe": 5})
        for make in (grids.uniform, grids.quadratic, grids.log_snr, grids.edm_rho, grids.paper, grids.safe)
    },
    "grids.optimised": lambda: Subject(grids.optimised, {"process": PROCESS, "nfe": 10}),
    "grids.optimised_projected": lambda: Subject(grids.optimised_projected, {"process": PROCESS, "nfe": 10}),
    "grids.noise_scales": lambda: Subject(grids.noise_scales, {"process": PROCESS, "sigmas": torch.tensor([9.0, 1.0])}),
    "grids.ends": lambda: Subject(grids.ends, {"process": PROCESS}),
    "grids.named": lambda: Subject(grids.named, {"name": "uniform", "process": PROCESS, "nfe": 5}),
    "ClassifierFreeGuidance": lambda: Subject(ClassifierFreeGuidance, {"model": MODEL, "label": 0, "null": 2}),
    "ClassifierGuidance": lambda: Subject(
        ClassifierGuidance, {"model": MODEL, "classifier": classifier, "label": 0, "process": PROCESS}
    ),
    "DPS": lambda: Subject(DPS, {**MODEL_GIVEN, "noise": 0.1, "step": 1.0}),
    "PiGDM": lambda: Subject(PiGDM, MODEL_GIVEN),
    "MMPS": lambda: Subject(MMPS, MODEL_GIVEN),
    "Replacement": lambda: Subject(Replacement, {"sampler": Exponential(), "images": IMAGES, "known": KNOWN}),
    "Mask": lambda: Subject(operators.Mask, {"known": KNOWN}),
    "SuperResolution": lambda: Subject(operators.SuperResolution, {}),
    "Grayscale": lambda: Subject(operators.Grayscale, {}),
    "Blur": lambda: Subject(operators.Blur, {"kernel": torch.ones(3, 3) / 9}),
    "Blur.uniform": lambda: Subject(operators.Blur.uniform, {"size": 3}),
    "GaussianBlur": lambda: Subject(operators.GaussianBlur, {"std": 1.0, "size": 3}),
    "named_mask": lambda: Subject(masks.named_mask, {"name": "random", "shape": (1, 4, 4)}),
    "edit": lambda: Subject(
        editing.edit,
        {
            "sampler": Exponential(),
            "model": MODEL,
            "images": torch.zeros(1, 2),
            "grid": grids.ends(PROCESS),
            "seeds": [0],
        },
    ),
    "encode": lambda: Subject(editing.encode, {**ONE, "tolerance": 1e-2}),
    "decode": lambda: Subject(editing.decode, {"model": MODEL, "z": torch.zeros(1, 1, 2), "tolerance": 1e-2}),
    "from_time": lambda: Subject(editing.from_time, {"grid": grids.uniform(PROCESS, 5), "start": 0.5}),
    "slerp": lambda: Subject(editing.slerp, {"a": torch.ones(1, 1, 2), "b": torch.eye(2)[None, :1], "weight": 0.5}),
    "interpolate": lambda: Subject(
        interpolate, {"out": "out", "model": EMPTY_MODEL, "ends": IMAGES[:2].double(), "frames": 2, "tolerance": 1e-2}
    ),
    "Hutchinson": lambda: Subject(Hutchinson, {}),
    "ProbabilityFlow": lambda: Subject(ProbabilityFlow, {"model": MODEL}),
    "bound": lambda: Subject(
        bound,
        {"flow": ProbabilityFlow(MODEL, rtol=1e-2, atol=1e-2), "x": torch.zeros(1, 2), "t": 1e-2, "seeds": [0]},
    ),
    "bits_per_dimension": lambda: Subject(bits_per_dimension, {"log_prob": torch.zeros(2), "dimensions": 2}),
    "LikelihoodSettings": lambda: Subject(LikelihoodSettings, {}),
    "Uniform": lambda: Subject(Uniform, {}),
    "LogitNormal": lambda: Subject(LogitNormal, {"channels": 3}),
    "fit": lambda: Subject(
        fit, {"dequantiser": LogitNormal(3), "model": PICTURES, "images": IMAGES, "t": 0.1, "steps": 1, "batch_size": 2}
    ),
    "KernelDistance": lambda: Subject(KernelDistance, {}),
    "kernel_distance": lambda: Subject(
        kernel_distance, {"data": FEATURES, "samples": FEATURES, "subsets": 2, "subset_size": 4}
    ),
    "neighbourhoods": lambda: Subject(neighbourhoods, {"data": FEATURES, "samples": FEATURES, "k": 2}),
    "energy_distance": lambda: Subject(energy_distance, {"a": FEATURES, "b": FEATURES}),
    "nearest_distance": lambda: Subject(nearest_distance, {"a": FEATURES, "b": FEATURES}),
    "InceptionScore": lambda: Subject(InceptionScore, {"classes": 10}),
    "train_digit_classifier": lambda: Subject(
        train_digit_classifier,
        {"images": Digits().images[:8], "labels": Digits().labels[:8], "steps": 1, "batch_size": 2},
    ),
    "ShuffledBatches": lambda: Subject(
        ShuffledBatches, {"length": 8, "batch_size": 2, "seed": 0, "start_step": 0, "steps": 2}
    ),
    "SinusoidalEmbedding": lambda: Subject(SinusoidalEmbedding, {"width": 8}),
    "FourierEmbedding": lambda: Subject(FourierEmbedding, {"width": 8}),
}
"""Public classes that no configuration names, and functions."""

UNIT, BELOW_1, EMPTY = "0", "0", "[] ()"
ACCEPTED: dict[str, str] = {
    **dict.fromkeys(
        (
            "psld.CLD.kappa",
            "psld.ConjugateOBA.position_noise",
            "psld.Heun.churn",
            "psld.HigherOrderLangevin.kappa",
            "psld.OBA.position_noise",
            "psld.PSLD.gamma",
            "psld.PSLD.kappa",
            "psld.Process.auxiliary_covariance",
            "psld.ROBA.position_noise",
            "ScoreModel.jitter",
        ),
        NON_NEGATIVE,  # a variance or a rate of noise, of which there may be none
    ),
    **dict.fromkeys(
        (
            "psld.Conjugate.lam",
            "psld.ConjugateOBA.lam",
            "psld.ConjugateVerlet.lam",
            "psld.networks.Preconditioned.mean_data",
            "psld.networks.PreconditionedState.mean_data",
        ),
        FINITE,
    ),
    **dict.fromkeys(
        (
            "psld.DPMSolverPP.eta",
            "psld.Exponential.eta",
            "psld.networks.NCSNpp.dropout",
            "psld.networks.NoiseClassifier.dropout",
            "psld.networks.UNet.dropout",
            "TrainingSettings.ema_decay",
            "TrainingSettings.label_dropout",
            "TrainingSettings.warmup_steps",
            "TrainingSettings.num_workers",
        ),
        "0",  # of [0, 1], or a count of which there may be none
    ),
    **dict.fromkeys(("psld.data.Patches.seed", "train.seed"), SEED),
    **dict.fromkeys(
        (
            "psld.data.FileImages.classes",
            "psld.data.PixelArray.classes",
            "psld.networks.NCSNpp.attention_resolutions",
            "psld.networks.NoiseClassifier.attention_resolutions",
            "psld.networks.UNet.attention_resolutions",
        ),
        "[] ()",  # none of them
    ),
    **dict.fromkeys(
        (
            "model.sample.seeds",
            "sampler.sample.seeds",
            "named_mask.seed",
            "interpolate.seed",
            "LikelihoodSettings.seed",
            "fit.seed",
            "kernel_distance.seed",
            "train_digit_classifier.seed",
            "ShuffledBatches.seed",
        ),
        SEED,
    ),
    **dict.fromkeys(
        (
            "model.sample.grid",
            "sampler.sample.grid",
            "sampler.sample.device",
            "psld.data.FileImages.background",
            "psld.data.HuggingFace.background",
            "psld.data.ImageFolder.background",
            "grids.uniform.end",
            "grids.quadratic.end",
            "grids.log_snr.end",
            "grids.ends.end",
            "grids.named.name",
            "named_mask.name",
            "encode.start",
            "decode.end",
            "from_time.start",
            "interpolate.t_min",
            "interpolate.device",
            "bound.t",
            "fit.t",
        ),
        "",  # a time in (0, T), T = 1; a name of a list; a colour
    ),
    **dict.fromkeys(
        (
            "ClassifierFreeGuidance.label",
            "ClassifierGuidance.label",
            "LikelihoodSettings.probes",
            "ShuffledBatches.start_step",
            "ShuffledBatches.steps",
            "ShuffledBatches.rank",
        ),
        "0",
    ),
    **dict.fromkeys(("DPS.noise", "PiGDM.noise", "MMPS.noise"), NON_NEGATIVE),
    **dict.fromkeys(("ClassifierFreeGuidance.scale", "ClassifierGuidance.scale"), FINITE),
    "grids.edm_rho.rho": "1.5",
    "grids.edm_rho.sigma_min": "1.5",  # below sigma_max, 80
    "GaussianBlur.std": "1.5",
    "slerp.weight": "0",
    "psld.Langevin.size": "",  # in (0, 1)
    "psld.VESDE.sigma_min": "1.5",  # below sigma_max, 50
    "psld.schedules.Geometric.sigma_min": "1.5",
    "psld.networks.Preconditioned.sigma_min": "1.5",
    "psld.networks.PreconditionedState.sigma_min": "1.5",
    "psld.losses.Denoising.P_mean": "-1 0 1.5",  # the logarithm of a noise level
    "psld.losses.Denoising.P_std": "1.5",
    "psld.networks.DiT.mlp_ratio": "1.5",
    "psld.schedules.Cosine.total": "1.5",
    "psld.schedules.Cosine.offset": "",
    "TrainingSettings.clip_norm": "1.5 1e12 1e300 inf",  # inf for no clipping
    "TrainingSettings.max_seconds": "1.5 1e12 1e300 inf",  # as long as it takes
    "TrainingSettings.t_min": "",  # in (0, 1)
    "TrainingSettings.accelerator": "",  # four names
    "load.device": "",
    "Clamped.low": "-1 0 -inf",  # below high, 1; open to one side
    "Clamped.high": "0 1.5 1e12 1e300 inf",
}


ELSEWHERE = {"psld.data.HuggingFace.source"}
"""A name is looked for on the hub: tests/data/test_hugging_face.py."""


def subject(name: str) -> Subject:
    if name in OTHERS:
        return OTHERS[name]()
    kind = locate(name)
    assert isinstance(kind, type)
    return Subject(kind, GIVEN.get(name, dict)())


def cases() -> Iterator[tuple[str, str]]:
    for name in [*listed_names(), *OTHERS]:
        for parameter in subject(name).parameters:
            if f"{name}.{parameter}" not in ELSEWHERE:
                yield name, parameter


def accepted(name: str, parameter: str, annotation: str) -> set[str]:
    """The probes that a parameter may have."""
    if f"{name}.{parameter}" in ACCEPTED:
        found = ACCEPTED[f"{name}.{parameter}"]
    else:
        parts = annotation.split(" | ")
        found = " ".join(probes for kind, probes in BY_KIND.items() if kind in parts)
    optional = "None" in annotation.split(" | ") and f"{name}.{parameter}" not in NEEDED
    return set(found.split()) | ({"None"} if optional else set())


NEEDED = {"model.sample.n", "sampler.sample.n"}
"""Where None is for another call: seeds in a list say how many."""


def fault(subject: Subject, parameter: str, probe: str, may: bool) -> str | None:
    """What is wrong with the answer to a probe; None where nothing is."""
    value = PROBES[probe]
    for folder in ("out", "run"):
        shutil.rmtree(folder, ignore_errors=True)  # of the probe before
    try:
        with pytest.raises(Exception) as caught:
            subject.call(**{**copy.deepcopy(subject.given), parameter: value})
            raise EOFError
    except BaseException as error:  # noqa: BLE001
        return f"{probe}: {type(error).__name__} {error}"
    error = caught.value
    if isinstance(error, EOFError):
        return None if may else f"{probe}: accepted"
    said = str(error)
    if "nowhere" in said or (
        probe in ("text", "True") and isinstance(error, FileNotFoundError)
    ):  # checked, and then looked for
        return None if may else f"{probe}: accepted, and not found"
    if may:
        return f"{probe}: {type(error).__name__} {said}"
    shown = {"[]": r"\[\]|\(\)|torch.Size|\b0\b", "()": r"\[\]|\(\)|\b0\b", "''": "''"}.get(
        probe, re.escape(repr(value))[:60]
    )
    wanted = {
        "a ValueError or TypeError": isinstance(error, ValueError | TypeError),
        "its name": re.search(rf"\b{ALIASES.get(parameter, parameter)}\b", said),
        "what was given": re.search(shown, said),
        "what is allowed": re.search(r"must|needs|at least|one of", said),
        "one line": "\n" not in said and len(said) < 400,
    }
    missing = [what for what, there in wanted.items() if not there]
    return f"{probe}: without {', '.join(missing)}: {type(error).__name__} {said}" if missing else None


ALIASES = {"schedule": "(schedule|beta)", "size": "(image_)?size", "name": "(name|grid|mask)"}
"""What messages call a parameter where that says more: β is what a number for a schedule is."""


@pytest.mark.parametrize(("name", "parameter"), cases())
def test_it_is_refused_in_a_sentence(name: str, parameter: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tried = subject(name)
    may = accepted(name, parameter, tried.parameters[parameter])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        faults = [fault(tried, parameter, probe, probe in may) for probe in PROBES]
    assert [found for found in faults if found] == []
