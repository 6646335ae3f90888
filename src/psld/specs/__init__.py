"""What objects are made of: recorded, compared, written to configurations, and read back."""

from psld.specs.bounds import OutsizedError, bounded
from psld.specs.building import UntrustedClassError, build, listed_names, resolve
from psld.specs.spec import Spec, SpecError, Specified, SpecifiedValue, attach_spec, describe, spec_of

__all__ = [
    "OutsizedError",
    "Spec",
    "SpecError",
    "Specified",
    "SpecifiedValue",
    "UntrustedClassError",
    "attach_spec",
    "bounded",
    "build",
    "describe",
    "listed_names",
    "resolve",
    "spec_of",
]
