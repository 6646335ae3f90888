"""The official configuration of a network, read as arguments of this library's networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from psld.networks import NCSNpp, NoiseClassifier

__all__ = ["network_from_official"]

RENAMED = {
    "in_ch": "in_channels",
    "out_ch": "out_channels",
    "n_cls": "classes",
    "image_size": "image_size",
    "nf": "width",
    "ch_mult": "multipliers",
    "num_res_blocks": "blocks",
    "attn_resolutions": "attention_resolutions",
    "dropout": "dropout",
    "embedding_type": "embedding",
    "fourier_scale": "fourier_scale",
    "skip_rescale": "skip_rescale",
    "fir_kernel": "fir_taps",
    "resblock_type": "block",
    "resamp_with_conv": "resample_with_conv",
    "progressive": "progressive_output",
    "progressive_input": "progressive_input",
    "progressive_combine": "combine",
}
REQUIRED = ("in_ch", "image_size", "nf", "ch_mult", "num_res_blocks", "attn_resolutions")
FIXED = {"nonlinearity": "swish", "noise_cond": True}
IGNORED = {"name", "init_scale", "fir"}  # the kind, the initial weights, and what becomes `resampling`


def network_from_official(config: Mapping[str, Any], classifier: bool) -> NCSNpp | NoiseClassifier:
    """The network that a `score_fn` (or `clf_fn`) section with `image_size` beside it describes.

    Args:
        config: official keys and values.
        classifier: build the noise-conditional classifier; `n_cls` is then required, else `out_ch`.

    Raises:
        ValueError: a key is missing or unknown, or has a value that this library has no network for.
    """
    missing = [key for key in (*REQUIRED, "n_cls" if classifier else "out_ch") if key not in config]
    unknown = sorted(set(config) - set(RENAMED) - set(FIXED) - IGNORED)
    if missing or unknown:
        problems = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has unknown {', '.join(unknown)}"] * bool(
            unknown
        )
        raise ValueError(
            f"the official configuration {' and '.join(problems)}. Known keys: {', '.join([*RENAMED, *FIXED])}, fir; "
            "image_size is in its data section."
        )
    for key, value in FIXED.items():
        if config.get(key, value) != value:
            raise ValueError(f"{key}={config[key]!r} is not supported: published networks have {value!r}.")
    arguments = {RENAMED[key]: _value(value) for key, value in config.items() if key in RENAMED}
    arguments["resampling"] = "fir" if config.get("fir", False) else "average"
    arguments["time_scale"] = 1.0
    levels = [arguments["image_size"] // 2**level for level in range(len(arguments["multipliers"]))]
    arguments["attention_resolutions"] = [size for size in arguments["attention_resolutions"] if size in levels]
    if classifier:
        return NoiseClassifier(**_without(arguments, "out_channels", "progressive_output"))
    return NCSNpp(**_without(arguments, "classes"))


def _value(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _without(arguments: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in arguments.items() if name not in names}
