"""Trajectories in phase space, position against momentum: from data to noise, and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor

from psld.files import atomic_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.collections import LineCollection
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

__all__ = ["save_phase_space"]

COLOURS, PALEST = "plasma", 0.88  # its last tenth is yellow, too pale for lines on white
INK = "#333333"
ELLIPSE: dict[str, Any] = {"color": "#777777", "linewidth": 1.0, "linestyle": (0, (4, 3))}


def save_phase_space(
    forward: Float[Tensor, "steps n 2"] | Sequence[Float[Tensor, "n 2"]],
    reverse: Float[Tensor, "back n 2"] | Sequence[Float[Tensor, "n 2"]],
    times: Float[Tensor, " steps"],
    path: str | Path,
    reverse_times: Float[Tensor, " back"] | None = None,
    stationary: Float[Tensor, "2 2"] | None = None,
) -> None:
    """A PNG of two panels, lines coloured by diffusion time, a ring where each starts and a dot where it ends.

    Args:
        forward: the states of n scalar pixels, (position, momentum), from data to noise. Some 4 to 16 pixels read best.
        reverse: the same from noise to data, in the order they were visited.
        times: diffusion time of each forward state.
        path: the file to write.
        reverse_times: diffusion time of each reverse state; None is `times` backwards.
        stationary: covariance of position and momentum under the stationary law, drawn as ellipses at 1 and 2 standard
            deviations; None draws none.

    Raises:
        ValueError: where states are not (steps, n, 2), or states and times differ in number.
    """
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    reverse_times = times.flip(0) if reverse_times is None else reverse_times
    runs = [_checked("forward", forward, times), _checked("reverse", reverse, reverse_times)]
    clocks = [times.cpu().double(), reverse_times.cpu().double()]
    colours = Normalize(min(float(c.min()) for c in clocks), max(float(c.max()) for c in clocks))
    figure = Figure(figsize=(11, 5), dpi=150, facecolor="white", layout="constrained")
    panels = list(figure.subplots(1, 2, sharex=True, sharey=True))
    titles = ("forward: data to noise", "reverse: noise to data")
    lines = [_draw(*panel, colours) for panel in zip(panels, runs, clocks, strict=True)]
    for axes, title in zip(panels, titles, strict=True):
        _dress(axes, title, stationary)
    panels[0].set_ylabel("momentum m")
    shown = [run.flatten(0, 1) for run in runs]
    if stationary is not None:
        shown.append(_ellipse(stationary, 2))
    panels[0].set_xlim(_limits([points[:, 0] for points in shown]))
    panels[0].set_ylim(_limits([points[:, 1] for points in shown]))
    _explain(figure, panels, lines[0], stationary is not None)
    with atomic_file(path) as file:
        figure.savefig(file, format="png")


def _checked(name: str, states: Tensor | Sequence[Tensor], times: Tensor) -> Float[Tensor, "steps n 2"]:
    """The states as one float64 tensor on the CPU."""
    stacked = (states if isinstance(states, Tensor) else torch.stack(list(states))).detach().cpu().double()
    if stacked.ndim != 3 or stacked.shape[-1] != 2 or len(stacked) < 2:
        raise ValueError(f"{name} must be (steps ≥ 2, n, 2), position and momentum; got {tuple(stacked.shape)}.")
    if times.shape != stacked.shape[:1]:
        raise ValueError(f"{name} has {len(stacked)} states but its times are of shape {tuple(times.shape)}.")
    return stacked


def _draw(
    axes: Axes, states: Float[Tensor, "steps n 2"], times: Float[Tensor, " steps"], colours: Normalize
) -> LineCollection:
    """Every step is a segment with the colour of its middle time."""
    from matplotlib import colormaps
    from matplotlib.collections import LineCollection
    from matplotlib.colors import ListedColormap

    cmap = ListedColormap(colormaps[COLOURS](torch.linspace(0, PALEST, 256).numpy()))
    steps = torch.stack([states[:-1], states[1:]], dim=2).flatten(0, 1)  # (steps − 1)·n segments, each (2, 2)
    middle = ((times[:-1] + times[1:]) / 2).repeat_interleave(states.shape[1])
    lines = LineCollection(
        list(steps.numpy()), array=middle.numpy(), cmap=cmap, norm=colours, linewidths=1.0, alpha=0.8
    )
    lines.set_capstyle("round")
    axes.add_collection(lines)
    axes.scatter(*states[0].T.numpy(), s=46, facecolors="white", edgecolors=INK, linewidths=1.3, zorder=3)
    axes.scatter(*states[-1].T.numpy(), s=40, color=INK, edgecolors="white", linewidths=0.8, zorder=4)
    return lines


def _dress(axes: Axes, title: str, stationary: Tensor | None) -> None:
    """Title, label, quiet axes, and the ellipses of the stationary law."""
    axes.set_title(title, fontsize=12)
    axes.set_xlabel("position x")
    axes.grid(color="#e6e6e6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(color="#bbbbbb")
    if stationary is not None:
        for deviations in (1, 2):
            axes.plot(*_ellipse(stationary, deviations).T.numpy(), **ELLIPSE, zorder=1)


def _ellipse(covariance: Float[Tensor, "2 2"], deviations: int) -> Float[Tensor, "points 2"]:
    """A closed curve of that many standard deviations around the origin."""
    root = torch.linalg.cholesky(covariance.detach().cpu().double())
    angle = torch.linspace(0, 2 * torch.pi, 181, dtype=torch.float64)
    return deviations * torch.stack([angle.cos(), angle.sin()], dim=1) @ root.mT


def _explain(figure: Figure, panels: list[Axes], lines: LineCollection, ellipse: bool) -> None:
    """One colour bar and one legend for both panels."""
    from matplotlib.lines import Line2D

    bar = figure.colorbar(lines, ax=panels, pad=0.015, aspect=30)
    bar.set_label("diffusion time t", labelpad=8)
    bar.outline.set_visible(False)
    if bar.solids is not None:
        bar.solids.set_alpha(1)  # the lines are translucent, their key is not
    keys = [
        Line2D([], [], linestyle="", marker="o", markersize=7, color="white", markeredgecolor=INK, label="start"),
        Line2D([], [], linestyle="", marker="o", markersize=6, color=INK, label="end"),
    ]
    if ellipse:
        keys.append(Line2D([], [], **ELLIPSE, label="stationary law, 1σ and 2σ"))
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)


def _limits(values: list[Tensor]) -> tuple[float, float]:
    """An interval that holds all of them with 6 % to spare."""
    low, high = min(float(v.min()) for v in values), max(float(v.max()) for v in values)
    spare = 0.06 * (high - low) or 1.0
    return low - spare, high + spare
