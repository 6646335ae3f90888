"""Where and when a report was made."""

from __future__ import annotations

import os
import platform
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["environment"]

PACKAGES = ("torch", "numpy", "lightning", "scikit-learn", "pillow", "safetensors")


def environment(device: str = "cpu") -> dict[str, str]:
    """Versions, machine and date, as name and value."""
    import torch

    from psld import __version__

    found = {
        "date (UTC)": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M"),
        "psld": __version__,
        "Python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.release()}, {platform.machine()}",
        "processor": f"{processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used by torch",
    }
    if device.startswith("cuda") and torch.cuda.is_available():
        found["GPU"] = torch.cuda.get_device_name(device)
    return found | {"device of the samples": device}


def processor() -> str:
    """The model name of the processor, or what the system calls it."""
    known = Path("/proc/cpuinfo")
    if known.is_file():
        for line in known.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"
