"""One function a section: from what was drawn or measured to what the page says, and what its script draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from psld.evaluation.metrics.nearest import MemorisedShare, Nearest
from psld.plots.pictures import to_bytes
from psld.processes import LinearProcess
from psld.report.drawing import Film, Paths
from psld.report.html import (
    Html,
    definitions,
    details,
    how_measured,
    join,
    paragraph,
    picture,
    pictures,
    png_uri,
    preformatted,
    table,
    text,
)
from psld.report.speed_quality import SpeedQuality
from psld.report.training_log import LossCurve

__all__ = [
    "Section",
    "configuration",
    "film_strip",
    "loss_curve",
    "missing",
    "nearest_images",
    "phase_space",
    "recipe",
    "samples_beside_data",
    "speed_quality",
    "values",
]

THUMBNAIL = 64  # the largest picture that runs beside the paths, in pixels


class Section(NamedTuple):
    """An id, a title, what it says, and what the script of the page draws for it, by name."""

    name: str
    title: str
    content: Html
    data: Mapping[str, Any] = {}


def missing(name: str, title: str, reason: str) -> Section:
    """A section that says why it has nothing to show."""
    return Section(name, title, Html(f'<p class="notice">{text(reason)}</p>'))


def values(name: str, title: str, known: Mapping[str, object]) -> Section:
    """Names and values."""
    return Section(name, title, definitions(known))


def loss_curve(curve: LossCurve) -> Section:
    """The loss against steps, each point and smoothed."""
    each = "each logged row" if curve.rows_a_point == 1 else f"mean of {curve.rows_a_point} logged rows"

    def series(name: str, losses: Sequence[float], **style: Any) -> dict[str, Any]:
        points = [
            [step, short(loss), f"step {step}\nloss {loss:.4g}"] for step, loss in zip(curve.steps, losses, strict=True)
        ]
        return {"name": name, "points": points, **style}

    positive = min(curve.loss) > 0
    data = {
        "x": {"label": "training step", "log": False},
        "y": {"label": "loss, log scale" if positive else "loss", "log": positive},
        "series": [series(each, curve.loss, pale=True), series("running mean", curve.smooth)],
    }
    rows = [
        (step, f"{loss:.4g}", f"{mean:.4g}")
        for step, loss, mean in zip(curve.steps, curve.loss, curve.smooth, strict=True)
    ]
    how = [
        f"Read from metrics.csv of the run: {curve.rows} rows, each the mean training loss since the row before.",
        "The running mean gives weight 0.9 to the past at every point. The loss is that of the weights being trained, "
        "on batches with fresh times and noise.",
    ]
    if curve.left_out:
        how.append(f"{curve.left_out} rows are left out: their loss is not a finite number.")
    summary = (
        f"Step {curve.steps[-1]}, {curve.images} images seen, {curve.seconds:.0f} s of training. "
        f"Last running mean of the loss: {curve.smooth[-1]:.4g}."
    )
    every = max(1, len(rows) // 20)
    thinned = rows[:-1:every] + rows[-1:]
    content = join(
        paragraph(summary),
        chart("loss", "Training loss against steps"),
        details("Numbers of this plot", table(("step", "loss", "running mean"), thinned, f"Every {every}th point")),
        how_measured(how),
    )
    return Section("loss", "Training loss", content, {"loss": data})


def samples_beside_data(
    samples: Float[Tensor, "n C H W"], data: Float[Tensor, "m C H W"] | None, how: Sequence[str]
) -> Section:
    """Two grids."""
    grids = [Html(f"<div><h3>Samples</h3>{pictures(samples, f'{len(samples)} samples of the model')}</div>")]
    if data is not None:
        grids.append(Html(f"<div><h3>Data</h3>{pictures(data, f'{len(data)} training images')}</div>"))
    content = join(Html(f'<div class="beside">{"".join(grids)}</div>'), how_measured(how))
    return Section("samples", "Samples beside data", content)


def nearest_images(
    samples: Float[Tensor, "n C H W"],
    data: Float[Tensor, "m C H W"],
    found: Nearest,
    memory: MemorisedShare | None,
    seed: int,
    how: Sequence[str],
    shown: int = 12,
) -> Section:
    """The samples that come closest to a training image, each beside it."""
    figures = []
    for i in found.distance.argsort()[:shown].tolist():
        index, distance = int(found.index[i]), float(found.distance[i])
        pair = picture(samples[i], f"Sample of seed {seed + i}", 56) + picture(
            data[index], f"Training image {index}", 56
        )
        caption = text(f"sample {seed + i}, training image {index}: distance {distance:.3g}")
        figures.append(f'<figure><div class="two">{pair}</div><figcaption>{caption}</figcaption></figure>')
    known = {"smallest distance": f"{float(found.distance.min()):.3g}"}
    known["median distance"] = f"{float(found.distance.quantile(0.5)):.3g}"
    if memory is not None:
        known["held-out images: median distance"] = f"{memory.typical:.3g}"
        known["samples nearer than that"] = f"{memory.samples:.1%} (fresh data: about 50 %; copies: near 100 %)"
    content = join(
        paragraph(
            f"The {len(figures)} samples closest to a training image: the sample on the left, the image on the right."
        ),
        Html(f'<div class="pairs">{"".join(figures)}</div>'),
        definitions(known),
        how_measured(how),
    )
    return Section("nearest", "Nearest training images", content)


def film_strip(film: Film, how: Sequence[str]) -> Section:
    """Each sample in two rows, the noisy position and the prediction, from noise on the left to the last step."""
    columns = f'style="grid-template-columns: repeat({len(film.times)}, minmax(0, 1fr))"'
    strips = []
    for i in range(film.x.shape[1]):
        cells = [f'<span class="time">t {float(t):.3g}</span>' for t in film.times]
        for rows, name in ((film.x, "position"), (film.x0, "predicted image")):
            for t, image in zip(film.times, rows[:, i], strict=True):
                cells.append(picture(image, f"{name} of sample {i} at t = {float(t):.3g}", 96))
        label = text(f"Sample {i}: above x_t, below x̂₀")
        strips.append(f'<p class="film-label">{label}</p><div class="film" {columns}>{"".join(cells)}</div>')
    content = join(
        paragraph(
            "From noise to an image: the position x_t, and what the network expects the image to be, x̂₀ = E[x₀ | z_t]."
        ),
        Html("".join(strips)),
        how_measured(how),
    )
    return Section("film", "Denoising, step by step", content)


def phase_space(paths: Paths, process: LinearProcess, how: Sequence[str]) -> Section:
    """Paths forward and back, as an animation. Without a momentum the position is drawn against time."""
    has_momentum = paths.forward.shape[-1] == 2

    def points(states: Tensor, times: Tensor) -> Float[Tensor, "n steps 2"]:
        if not has_momentum:
            states = torch.cat([times[:, None, None].expand_as(states), states], dim=-1)
        return states.transpose(0, 1)

    runs = {
        "forward": (points(paths.forward, paths.times), paths.times, paths.image),
        "reverse": (points(paths.reverse, paths.reverse_times), paths.reverse_times, paths.sample),
    }
    ellipses = [_ellipse(process.prior_covariance[:2, :2], k) for k in (1, 2)] if has_momentum else []
    everything = torch.cat([run[0].flatten(0, 1) for run in runs.values()] + ellipses)
    low, high = everything.amin(0), everything.amax(0)
    spare = 0.05 * (high - low).clamp(min=1e-6)
    films = {name: _film(run[2]) for name, run in runs.items()}
    steps = max(len(run[1]) for run in runs.values()) - 1
    data: dict[str, Any] = {
        "labels": ["position x", "momentum m"] if has_momentum else ["diffusion time t", "position x"],
        "ranges": [rounded(low - spare), rounded(high + spare)],
        "ellipses": [rounded(curve) for curve in ellipses],
        "size": list(films["forward"].shape[2:0:-1]),
    }
    for name, (states, times, _) in runs.items():
        film = films[name]
        data[name] = {"times": rounded(times), "paths": rounded(states), "film": png_uri(_column(film))}
    titles = {"forward": "Forward: from data to noise", "reverse": "Reverse: from noise to data"}
    figures = "".join(_panel(name, title, data["labels"]) for name, title in titles.items())
    controls = (
        '<div class="controls"><button type="button">Play</button>'
        f'<input type="range" min="0" max="{steps}" value="{steps}" step="1" aria-label="Frame of the animation">'
        "<output></output></div>"
    )
    legend = "A ring marks where a path starts, a dot where it stands; a colour is one pixel of one image."
    if has_momentum:
        legend += " Dashed: the stationary law at 1 and 2 standard deviations."
    content = join(
        paragraph(legend),
        Html(f'<div data-phase="phase">{controls}<div class="phase">{figures}</div></div>'),
        how_measured(how),
    )
    title = "Phase space: position against momentum" if has_momentum else "Position against time"
    return Section("phase-space", title, content, {"phase": data})


def speed_quality(measured: SpeedQuality) -> Section:
    """Fréchet distance against network evaluations, a curve a sampler."""
    series = []
    for label in dict.fromkeys(point.sampler for point in measured.points):
        own = sorted((p for p in measured.points if p.sampler == label), key=lambda p: p.nfe)
        points = [
            [short(p.nfe), short(p.frechet), f"NFE {p.nfe:.4g}\nFréchet distance {p.frechet:.4g}{_count(p.samples)}"]
            for p in own
        ]
        series.append({"name": label, "points": points, "dots": True})
    data: dict[str, Any] = {
        "x": {
            "label": "network evaluations a sample (NFE)",
            "log": True,
            "ticks": sorted({short(point.nfe) for point in measured.points}),
        },
        "y": {"label": "Fréchet distance", "log": True},
        "series": series,
    }
    if measured.floor is not None and measured.floor > 0:
        data["floor"] = {"value": short(measured.floor), "label": f"floor {measured.floor:.3g}"}
    rows = [(p.sampler, f"{p.nfe:.4g}", f"{p.frechet:.4g}", p.samples or "not said") for p in measured.points]
    content = join(
        chart("quality", "Fréchet distance against network evaluations"),
        details(
            "Numbers of this plot", table(("sampler", "NFE", "Fréchet distance", "samples"), rows, "Smaller is better")
        ),
        how_measured(measured.how),
    )
    return Section("speed-quality", "Speed against quality", content, {"quality": data})


def recipe(process: LinearProcess, how: Sequence[str]) -> Section:
    """What `psld recipe` says of the process."""
    content = join(
        paragraph(f"Process: {process!r}"), preformatted(str(process.check()), "Recipe report"), how_measured(how)
    )
    return Section("recipe", "Recipe", content)


def configuration(config_text: str, where: str) -> Section:
    """The YAML of the run."""
    content = join(
        preformatted(config_text, "Configuration of the run"),
        how_measured([f"config.yaml of {where}, as training wrote it."]),
    )
    return Section("configuration", "Configuration", content)


def chart(name: str, label: str) -> Html:
    """Where the script draws a chart: it can be pointed at, touched, and walked through with the arrow keys."""
    spoken = text(f"{label}. Arrow keys left and right move along a curve, up and down between curves.")
    return Html(
        f'<div class="chart" data-chart="{text(name)}" tabindex="0" role="application" aria-label="{spoken}">'
        '<div class="tooltip" role="status" hidden></div></div>'
        '<p class="hint">Point at or touch the plot for numbers, or focus it and use the arrow keys.</p>'
    )


def short(value: float) -> float:
    """Five significant digits."""
    return float(f"{value:.5g}")


def rounded(values: Tensor) -> list:
    """Nested lists of numbers with four digits after the point: less than a pixel."""
    return values.double().mul(1e4).round().div(1e4).tolist()


def _count(samples: int | None) -> str:
    return "" if samples is None else f"\n{samples} samples"


def _ellipse(covariance: Float[Tensor, "2 2"], deviations: int) -> Float[Tensor, "points 2"]:
    """A closed curve of that many standard deviations around the origin."""
    root = torch.linalg.cholesky(covariance.cpu().double())
    angle = torch.linspace(0, 2 * torch.pi, 73, dtype=torch.float64)
    return deviations * torch.stack([angle.cos(), angle.sin()], dim=1) @ root.mT


def _film(images: Float[Tensor, "steps C H W"]) -> np.ndarray:
    """Bytes (steps, h, w, C) with sides of at most THUMBNAIL."""
    factor = -(-max(images.shape[-2:]) // THUMBNAIL)
    return to_bytes(F.avg_pool2d(images, factor) if factor > 1 else images)


def _column(film: np.ndarray) -> np.ndarray:
    """All pictures below each other, grey without a channel axis."""
    steps, height, width, channels = film.shape
    column = film.reshape(steps * height, width, channels)
    return column[..., 0] if channels == 1 else column


def _panel(name: str, title: str, labels: Sequence[str]) -> str:
    spoken = text(f"{title}: paths of single pixels, {labels[0]} across and {labels[1]} up")
    shown = text(f"The image of the {name} paths at this frame")
    thumb = f'<canvas class="thumb" role="img" aria-label="{shown}"></canvas>'
    return (
        f'<figure data-panel="{name}"><figcaption>{thumb}{text(title)}</figcaption>'
        f'<canvas class="plot" role="img" aria-label="{spoken}"></canvas></figure>'
    )
