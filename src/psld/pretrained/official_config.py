"""The official configuration of a network, read as arguments of this library's networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psld.networks import (
    FIR,
    FourierTime,
    NCSNpp,
    NoiseClassifier,
    PositionalTime,
    ResidualInput,
    SkipInput,
    TimeEmbedding,
)
from psld.networks.encoder import LevelChange

__all__ = ["network_from_official"]

RENAMED = {
    "in_ch": "in_channels",
    "out_ch": "out_channels",
    "n_cls": "classes",
    "image_size": "image_size",
    "nf": "width",
    "ch_mult": "multipliers",
    "num_res_blocks": "blocks",
    "dropout": "dropout",
    "skip_rescale": "skip_rescale",
}
TRANSLATED = {
    "attn_resolutions",
    "embedding_type",
    "fourier_scale",
    "fir",
    "fir_kernel",
    "resblock_type",
    "resamp_with_conv",
    "progressive",
    "progressive_input",
    "progressive_combine",
}
"""Official keys that several arguments, or objects, are made of."""
REQUIRED = ("in_ch", "image_size", "nf", "ch_mult", "num_res_blocks", "attn_resolutions")
FIXED = {"nonlinearity": "swish", "noise_cond": True}
IGNORED = {"name", "init_scale"}  # the kind, and the initial weights


def network_from_official(config: Mapping[str, Any], classifier: bool) -> NCSNpp | NoiseClassifier:
    """The network that a `score_fn` (or `clf_fn`) section with `image_size` beside it describes.

    Args:
        config: official keys and values.
        classifier: build the noise-conditional classifier; `n_cls` is then required, else `out_ch`.

    Raises:
        ValueError: a key is missing or unknown, or has a value that this library has no network for.
    """
    missing = [key for key in (*REQUIRED, "n_cls" if classifier else "out_ch") if key not in config]
    unknown = sorted(set(config) - set(RENAMED) - TRANSLATED - set(FIXED) - IGNORED)
    if missing or unknown:
        problems = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(
            unknown
        )
        raise ValueError(
            f"the official configuration {' and '.join(problems)}. Known keys: "
            f"{', '.join([*RENAMED, *sorted(TRANSLATED), *FIXED])}; "
            "image_size is in its data section."
        )
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise ValueError(f"{key}={config[key]!r} is not supported: published networks have {value!r}.")
    arguments = {RENAMED[key]: value for key, value in config.items() if key in RENAMED}
    levels = [arguments["image_size"] // 2**level for level in range(len(arguments["multipliers"]))]
    arguments |= {
        "attention_resolutions": [size for size in config["attn_resolutions"] if size in levels],
        "time": _time(config),
        "resampling": FIR(config.get("fir_kernel", (1, 3, 3, 1))) if config.get("fir", False) else None,
        "level_change": _level_change(config),
        "progressive_input": _progressive_input(config),
    }
    if classifier:
        return NoiseClassifier(**_without(arguments, "out_channels"))
    progressive = _name(config, "progressive", ("none", "output_skip", "residual"))
    return NCSNpp(**_without(arguments, "classes"), progressive_output=None if progressive == "none" else progressive)


def _time(config: Mapping[str, Any]) -> TimeEmbedding:
    if _name(config, "embedding_type", ("positional", "fourier")) == "fourier":
        return FourierTime(config.get("fourier_scale", 16.0))
    return PositionalTime(1.0)


def _level_change(config: Mapping[str, Any]) -> LevelChange:
    if _name(config, "resblock_type", ("biggan", "ddpm")) == "biggan":
        return "block"
    return "convolution" if config.get("resamp_with_conv", True) else "resampling"


def _progressive_input(config: Mapping[str, Any]) -> SkipInput | ResidualInput | None:
    chosen = _name(config, "progressive_input", ("none", "input_skip", "residual"))
    if chosen == "input_skip":
        return SkipInput(_name(config, "progressive_combine", ("sum", "cat")))
    return ResidualInput() if chosen == "residual" else None


def _name(config: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> Any:
    """The value of an official key, in lower case; the first of those allowed where it is absent."""
    value = str(config.get(key, allowed[0])).lower()
    if value not in allowed:
        raise ValueError(f"{key} must be one of {', '.join(map(repr, allowed))}: got {config[key]!r}.")
    return value


def _without(arguments: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in names}
