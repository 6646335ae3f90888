"""The configuration of a run that trains in a second: CLD on digits, four steps."""

from typing import Any

SMALL: dict[str, Any] = {
    "seed": 3,
    "process": {"class_path": "psld.CLD"},
    "network": {
        "class_path": "psld.networks.UNet",
        "init_args": {
            "in_channels": 2,
            "out_channels": 1,
            "image_size": 8,
            "width": 8,
            "multipliers": [1],
            "blocks": 1,
            "attention_resolutions": [],
        },
    },
    "data": {"class_path": "psld.data.Digits", "init_args": {"split": "heldout"}},
    "loss": {"class_path": "psld.losses.HSM"},
    "training": {"steps": 4, "batch_size": 8, "log_every": 2, "warmup_steps": 0, "tensorboard": False},
}
