"""A residual multilayer perceptron for data that are vectors."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from psld.networks.embeddings import SinusoidalEmbedding
from psld.networks.initialisation import dense
from psld.specs import Specified
from psld.specs.arguments import MOST, WIDEST, whole

__all__ = ["MLP"]


class MLP(Specified, nn.Module):
    """Score network for vectors: residual blocks that each see the time; its output is zero until it is trained.

    Args:
        variables: k, the phase-space variables.
        dimension: d, numbers in a data vector.
        out_variables: r, the variables that are predicted; k by default.
        width: hidden width; even, at least 4.
        depth: residual blocks.
        time_scale: the time is embedded as sines and cosines of time_scale · t.

    Raises:
        ValueError: a count is below 1, or the width is odd or below 4.
    """

    def __init__(
        self,
        variables: int,
        dimension: int,
        out_variables: int | None = None,
        width: int = 128,
        depth: int = 3,
        time_scale: float = 1000.0,
    ):
        super().__init__()
        self.variables, self.dimension = variables, dimension
        self.out_variables = variables if out_variables is None else out_variables
        whole("variables", variables, most=WIDEST)
        whole("dimension", dimension, most=WIDEST**2)
        whole("out_variables", self.out_variables, most=WIDEST)
        whole("depth", depth, most=MOST)
        self.embedding = SinusoidalEmbedding(width, time_scale)
        self.time = dense(width, width)
        self.inputs = dense(variables * dimension, width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.outputs = dense(width, self.out_variables * dimension, zero=True)

    def forward(self, z: Float[Tensor, "B k d"], t: Float[Tensor, " B"]) -> Float[Tensor, "B r d"]:
        """Predicts from the state, with t on the device of z.

        Raises:
            ValueError: z or t does not have such a shape.
        """
        if z.ndim != 3 or tuple(z.shape[1:]) != (self.variables, self.dimension):
            raise ValueError(f"this MLP takes (B, {self.variables}, {self.dimension}): got {tuple(z.shape)}.")
        if t.shape != z.shape[:1]:
            raise ValueError(f"t must have one time a sample, shape ({z.shape[0]},): got {tuple(t.shape)}.")
        time = functional.silu(self.time(self.embedding(t)))
        x = self.inputs(z.flatten(1))
        for block in self.blocks:
            x = block(x, time)
        return self.outputs(functional.silu(self.norm(x))).unflatten(1, (self.out_variables, self.dimension))


class _Block(nn.Module):
    """norm – dense (+ time) – SiLU – dense, added to the input."""

    def __init__(self, width: int):
        super().__init__()
        self.norm, self.hidden, self.time = nn.LayerNorm(width), dense(width, width), dense(width, width)
        self.out = dense(width, width, zero=True)

    def forward(self, x: Float[Tensor, "B W"], time: Float[Tensor, "B W"]) -> Float[Tensor, "B W"]:
        hidden: torch.Tensor = self.hidden(self.norm(x)) + self.time(time)
        return x + self.out(functional.silu(hidden))
