"""Heights and widths that a network can take: which of them it divides, and the nearest ones where it does not."""

from __future__ import annotations

__all__ = ["nearest_sizes", "require_division"]


def nearest_sizes(side: int, factor: int) -> list[int]:
    """The multiples of a factor next to a side, below and above; itself where it is one."""
    if side % factor == 0 and side > 0:
        return [side]
    below = side // factor * factor
    return [size for size in (below, below + factor) if size > 0]


def require_division(height: int, width: int, factor: int, refusal: str, advice: str) -> None:
    """That a factor divides both sides.

    Args:
        height: of images, in pixels.
        width: of images, in pixels.
        factor: that must divide them.
        refusal: how the message begins, without a full stop.
        advice: how it ends, as a sentence.

    Raises:
        ValueError: it does not; the message has the nearest sizes that fit.
    """
    if height % factor == 0 and width % factor == 0:
        return
    if height == width:
        fitting = " or ".join(map(str, nearest_sizes(height, factor)))
    else:
        tall, wide = (" or ".join(map(str, nearest_sizes(side, factor))) for side in (height, width))
        fitting = f"height {tall}, width {wide}"
    raise ValueError(f"{refusal}; the nearest sizes that fit are {fitting}. {advice}")
