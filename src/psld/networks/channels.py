"""How many channels a network has follows from the process, the data and what is predicted.

    predicts    variables in    variables out
    eps         k               those that noise enters (one for CLD)
    score       k               k
    x0, v       k               1
    denoiser    1               1

A network around a network passes this on, changed as it changes what the inner one sees: `Wrapping.inner_interface`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from torch import nn

from psld.model import Predicts
from psld.processes import LinearProcess
from psld.specs import resolve

__all__ = ["Interface", "Output", "argument", "filled_channels", "interface_of"]

Output = Predicts | Literal["v"]


class Interface(NamedTuple):
    """What a network is called with, (B, variables, *shape), and returns, (B, outputs, *shape).

    Attributes:
        variables: that go in.
        outputs: that come out; None for a classifier, which returns logits.
        shape: of one variable: (C, H, W), or (d,) for vectors.
    """

    variables: int
    outputs: int | None
    shape: tuple[int, ...]


def interface_of(process: LinearProcess, image_shape: Sequence[int], predicts: Output | None) -> Interface:
    """What a network must take and return.

    Args:
        process: the forward process.
        image_shape: (C, H, W) of one image, or (d,) of one vector.
        predicts: what the output means; None for a classifier.

    Raises:
        ValueError: an unknown `predicts`.
    """
    rows = {None: None, "eps": process.noisy_rows, "score": process.k, "x0": 1, "v": 1, "denoiser": 1}
    if predicts not in rows:
        raise ValueError(f"predicts must be 'eps', 'score', 'x0', 'v' or 'denoiser': got {predicts!r}.")
    return Interface(1 if predicts == "denoiser" else process.k, rows[predicts], tuple(image_shape))


def filled_channels(
    network_class: type[nn.Module],
    arguments: Mapping[str, Any],
    process: LinearProcess,
    image_shape: Sequence[int],
    predicts: Output | None,
    trust: bool = False,
) -> dict[str, Any]:
    """The arguments of a network, with those that follow from process and data filled in where they are absent or None.

    They are in_channels, out_channels and image_size of networks for images; variables, dimension and out_variables of
    those for vectors; whichever of them the class has. What is given stays as it is. Of a network around a network the
    inner one's arguments are filled, where it is described by class_path and init_args; one that is built already is
    left alone.

    Args:
        network_class: the class that the arguments are for.
        arguments: name → value.
        process: the forward process.
        image_shape: (C, H, W) of one image, or (d,) of one vector.
        predicts: what the network's output means; None for a classifier.
        trust: of an inner network's class path: import it even if it is not one of psld's classes.

    Raises:
        UntrustedClassError: an inner network that psld does not list, without `trust`.
        ValueError: an unknown `predicts`, a shape that is not the class's kind, or a wrapper that predicts something
            else.
    """
    return _filled(network_class, arguments, interface_of(process, image_shape, predicts), trust)


def argument(kind: type, arguments: Mapping[str, Any], name: str) -> Any:
    """The value of an argument of a class: the one given, or the default of its signature."""
    return arguments[name] if name in arguments else inspect.signature(kind).parameters[name].default


def _filled(
    kind: Callable[..., Any], arguments: Mapping[str, Any], interface: Interface, trust: bool
) -> dict[str, Any]:
    from psld.networks.wrapping import Wrapping

    if isinstance(kind, type) and issubclass(kind, Wrapping):
        inner = kind.inner_interface(arguments, interface)
        return {**arguments, "network": _filled_description(arguments.get("network"), inner, trust)}
    accepted = inspect.signature(kind).parameters
    wanted = [name for name in NAMES if name in accepted and arguments.get(name) is None]
    return {**arguments, **{name: _value(kind.__name__, name, interface) for name in wanted}}


def _filled_description(network: Any, interface: Interface, trust: bool) -> Any:
    """A description {class_path, init_args} with its arguments filled in; anything else is returned as it is."""
    if not isinstance(network, Mapping) or "class_path" not in network:
        return network
    kind = resolve(network["class_path"], trust)
    return {**network, "init_args": _filled(kind, network.get("init_args") or {}, interface, trust)}


NAMES = ("in_channels", "out_channels", "image_size", "variables", "dimension", "out_variables")


def _value(kind: str, name: str, interface: Interface) -> int | list[int]:
    variables, outputs, shape = interface
    dimensions = 1 if name in ("variables", "dimension", "out_variables") else 3
    if len(shape) != dimensions:
        form = "vectors, (d,)" if dimensions == 1 else "images, (C, H, W)"
        raise ValueError(f"{kind} is for {form}: the data have shape {shape}, so {name} must be given.")
    if name in ("out_channels", "out_variables") and outputs is None:
        raise ValueError(f"{kind} returns variables, not logits: give what it predicts, or {name}.")
    return {
        "in_channels": variables * shape[0],
        "out_channels": (outputs or 0) * shape[0],
        "image_size": shape[-1] if len(set(shape[1:])) == 1 else list(shape[1:]),
        "variables": variables,
        "dimension": shape[0],
        "out_variables": outputs or 0,
    }[name]
