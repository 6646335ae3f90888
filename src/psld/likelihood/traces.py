"""The trace of a Jacobian, which the change of variables needs: exact, or estimated with probes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from psld.noise import Generators, standard_normal
from psld.specs import SpecifiedValue
from psld.specs.arguments import whole

__all__ = ["ExactTrace", "Hutchinson", "Trace", "TraceOfPath", "quadratic_forms"]

ROWS_AT_ONCE = 64

TraceOfPath = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
"""trace(output, input, G, rows) -> (b,): of Gᵀ (∂output/∂input) G of each sample, G (b, k, r) acting on the variables
of output and input (b, k, *data); rows (b,) are which of the batch they are."""


@runtime_checkable
class Trace(Protocol):
    """How the trace of a Jacobian is found."""

    def begin(self, shape: tuple[int, ...], generators: Generators, device: torch.device | str = "cpu") -> TraceOfPath:
        """Ready for one path of a batch.

        Args:
            shape: (B, r, *data).
            generators: one a sample.
            device: of the field.
        """
        ...


class ExactTrace(SpecifiedValue):
    """Every diagonal entry: one backward pass a dimension, many at once (`vmap` over the rows of the Jacobian)."""

    def begin(
        self, shape: tuple[int, ...], generators: Generators = None, device: torch.device | str = "cpu"
    ) -> TraceOfPath:
        basis = torch.eye(math.prod(shape[1:]), dtype=torch.float64, device=device).unflatten(1, (1, *shape[1:]))

        def trace(output: Tensor, input: Tensor, directions: Tensor, rows: Tensor) -> Tensor:
            parts = [
                quadratic_forms(
                    output, input, _along(directions, part.expand(-1, len(rows), *shape[1:])), more=True
                ).sum(0)
                for part in basis.split(ROWS_AT_ONCE)
            ]
            return torch.stack(parts).sum(0)

        return trace


MOST_PROBES = 10**4


class Hutchinson(SpecifiedValue):
    """E[vᵀJv] over probes v of mean zero and covariance I, the same probes along the whole path (Hutchinson, 1989).

    Unbiased. With the symmetric part S of J, the variance of one probe is 2(‖S‖² − Σ Sᵢᵢ²) for Rademacher probes and
    2‖S‖² for Gaussian ones.

    Args:
        probes: how many are averaged, each one backward pass.
        law: "rademacher", ±1, or "gaussian".

    Raises:
        ValueError: no probe, or another law.
    """

    shown = ("probes", "law")

    def __init__(self, probes: int = 1, law: Literal["rademacher", "gaussian"] = "rademacher"):
        self.probes, self.law = whole("probes", probes, most=MOST_PROBES), law

    def begin(
        self, shape: tuple[int, ...], generators: Generators = None, device: torch.device | str = "cpu"
    ) -> TraceOfPath:
        draws = standard_normal((shape[0], self.probes, *shape[1:]), generators, torch.float64)
        if self.law == "rademacher":
            draws = torch.where(draws < 0, -1.0, 1.0).to(draws)
        probes = draws.transpose(0, 1).to(device)

        def trace(output: Tensor, input: Tensor, directions: Tensor, rows: Tensor) -> Tensor:
            return quadratic_forms(output, input, _along(directions, probes[:, rows.to(device)])).mean(0)

        return trace


def _along(directions: Float[Tensor, "*#B k r"], probes: Float[Tensor, "p B r *data"]) -> Float[Tensor, "p B k *data"]:
    """Probes of r variables as directions in all k."""
    g = directions.to(probes).reshape(-1, *directions.shape[-2:], *[1] * (probes.ndim - 3))
    return (g * probes.unsqueeze(2)).sum(3)


def quadratic_forms(
    output: Float[Tensor, "B *d"], input: Float[Tensor, "B *d"], probes: Float[Tensor, "p B *d"], more: bool = False
) -> Float[Tensor, "p B"]:
    """vᵀ (∂output/∂input) v of each sample, for each of p probes; `more` keeps the graph for other probes."""
    probes = probes.to(output)
    if len(probes) == 1:  # without vmap, which is one demand less on the network
        (pulled,) = torch.autograd.grad(output, input, probes[0], retain_graph=more)
        return (pulled * probes[0]).flatten(1).sum(1)[None]
    (pulled,) = torch.autograd.grad(output, input, probes, retain_graph=more, is_grads_batched=True)
    return (pulled * probes).flatten(2).sum(2)
