"""Probability-flow ODE by adaptive Dormand–Prince 5(4), each sample with its own step size, or all with one.

    dz/dt = f(z, t) − βD ∇log p_t(z),      from T down to the end of the grid

With error control a sample, a sample does not depend on its neighbours, to the last bit if its score does not; with
control a batch, as the paper's solver has it, one step size fits the root-mean-square error of all. A network in
float32 rounds otherwise in batches of another size. With a tolerance near that rounding a step that is just accepted
in one is just refused in another, and images differ by some grey levels: by 2 for psld-digits with the default rtol =
atol = 1e-5, by none with 1e-3 and 1e-4. The solver itself is `psld.samplers.dormand_prince`.
"""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float, Int64
from torch import Tensor

from psld.kernels import mix
from psld.model import Model
from psld.processes import LinearProcess
from psld.samplers.dormand_prince import DormandPrince
from psld.samplers.grids import Grid
from psld.samplers.sampler import Noise, Plan, Sampler, States, Watcher

__all__ = ["RK45"]


class RK45(Sampler):
    """Adaptive Runge–Kutta on the probability flow; of the grid it uses the first and the last time.

    Args:
        rtol, atol: tolerances on the root-mean-square error of a step, a sample; the paper uses 1e-5 and 1e-4.
        max_steps: attempted steps a sample before giving up.
        control: over which the error of a step is measured, each "sample" or the whole "batch".

    Raises:
        ValueError: a tolerance that is not positive, or another control.
        RuntimeError: a sample needs more than `max_steps`, or its state is no longer finite.
    """

    shown = ("rtol", "atol")
    order = 5
    stochastic = False
    nfe_per_step = 6

    def __init__(
        self,
        rtol: float = 1e-5,
        atol: float = 1e-5,
        max_steps: int = 10_000,
        control: Literal["sample", "batch"] = "sample",
    ):
        self.solver = DormandPrince(rtol, atol, max_steps, control)

    def prepare(self, process: LinearProcess, grid: Grid) -> Plan[tuple[()]]:
        """The grid alone: there is nothing to tabulate."""
        return Plan(grid, ())

    def integrate(
        self, model: Model, z: States, plan: Plan[tuple[()]], noise: Noise, watch: Watcher | None = None
    ) -> tuple[States, Int64[Tensor, " B"]]:
        start, end = float(plan.grid.times[0]), float(plan.grid.times[-1])
        z, nfe = self.solver.solve(lambda z, t, rows: flow(model, z, t), z, start, end)
        return z, nfe


def flow(model: Model, z: Float[Tensor, "B k *data"], t: Float[Tensor, " B"]) -> Float[Tensor, "B k *data"]:
    """dz/dt of the probability flow, in forward time."""
    process = model.process
    return mix(process.drift_rate(t), z) - mix(process.diffusion_rate(t), model(z, t).score)
