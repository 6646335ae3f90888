"""The little HTML that the report is made of. Every text that comes in is escaped here; markup is of type `Html`."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import NewType

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from psld.plots.pictures import to_bytes

__all__ = [
    "Html",
    "data_uri",
    "definitions",
    "details",
    "how_measured",
    "join",
    "json_block",
    "page",
    "paragraph",
    "picture",
    "pictures",
    "preformatted",
    "section",
    "table",
    "text",
]

Html = NewType("Html", str)
"""Markup, as against text that is still to be escaped."""


def text(value: object) -> Html:
    """Text as markup."""
    return Html(escape(str(value), quote=True))


def join(*parts: Html) -> Html:
    """Markup, one piece after another."""
    return Html("\n".join(parts))


def paragraph(content: str) -> Html:
    """Text as one paragraph."""
    return Html(f"<p>{text(content)}</p>")


def preformatted(content: str, label: str) -> Html:
    """Text in which line breaks and columns count; it scrolls by itself where it is too wide."""
    return Html(f'<pre tabindex="0" role="region" aria-label="{text(label)}">{text(content)}</pre>')


def definitions(values: Mapping[str, object]) -> Html:
    """Names and values."""
    return Html(f"<dl>{''.join(f'<div><dt>{text(k)}</dt><dd>{text(v)}</dd></div>' for k, v in values.items())}</dl>")


def table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> Html:
    """A table in a box that scrolls by itself."""
    titles = "".join(f'<th scope="col">{text(title)}</th>' for title in head)
    body = "".join(f"<tr>{''.join(f'<td>{text(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return Html(
        f'<div class="wide" tabindex="0" role="region" aria-label="{text(caption)}"><table><caption>{text(caption)}'
        f"</caption><thead><tr>{titles}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def details(summary: str, content: Html) -> Html:
    """Folded away until it is asked for."""
    return Html(f"<details><summary>{text(summary)}</summary>{content}</details>")


def how_measured(lines: Iterable[str]) -> Html:
    """Where the numbers of a section come from."""
    items = "".join(f"<li>{text(line)}</li>" for line in lines)
    return Html(f'<div class="how"><strong>How this was measured</strong><ul>{items}</ul></div>')


def section(name: str, title: str, *content: Html) -> Html:
    """A section with a heading; `name` is its id."""
    head = f'<section id="{text(name)}" aria-labelledby="{text(name)}-title"><h2 id="{text(name)}-title">{text(title)}'
    return join(Html(f"{head}</h2>"), *content, Html("</section>"))


def data_uri(image: Float[Tensor, "C H W"]) -> str:
    """A PNG of an image in [−1, 1], pixel for pixel."""
    pixels = to_bytes(image[None])[0]
    return png_uri(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def png_uri(pixels: np.ndarray) -> str:
    """A PNG of bytes (H, W), (H, W, 3) or (H, W, 4)."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def picture(image: Float[Tensor, "C H W"], alt: str, target: int = 40) -> Html:
    """An image about `target` wide, each pixel an integer number of the page's; alt="" where it decorates."""
    height, width = image.shape[-2:]
    scale = max(1, round(target / width))
    return Html(
        f'<img src="{data_uri(image)}" alt="{text(alt)}" width="{width * scale}" height="{height * scale}" '
        'class="pixels">'
    )


def pictures(images: Iterable[Float[Tensor, "C H W"]], label: str, target: int = 40) -> Html:
    """Many images that are one picture to a screen reader."""
    inner = "".join(picture(image, "", target) for image in images)
    return Html(f'<div class="grid" role="img" aria-label="{text(label)}">{inner}</div>')


def json_block(name: str, data: object) -> Html:
    """Data for the script of the page. `</` is escaped, so nothing in it can end the block; NaN is refused."""
    content = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return Html(f'<script type="application/json" id="{text(name)}">{content}</script>')


def page(title: str, lead: str, sections: Sequence[tuple[str, str, Html]], data: Mapping[str, object]) -> str:
    """The whole page.

    Args:
        title: of the page.
        lead: one line beneath it.
        sections: id, title and content of each.
        data: what the script draws, each value in a block named data-NAME.
    """
    here = files("psld.report")
    style, script, template = (
        here.joinpath(f"report.{ending}").read_text(encoding="utf-8") for ending in ("css", "js", "html")
    )
    links = "".join(f'<li><a href="#{text(name)}">{text(heading)}</a></li>' for name, heading, _ in sections)
    return Template(template).substitute(
        title=text(title),
        lead=text(lead),
        style=style,
        script=script,
        links=links,
        sections=join(*(section(*part) for part in sections)),
        data=join(*(json_block(f"data-{name}", value) for name, value in data.items())),
    )
