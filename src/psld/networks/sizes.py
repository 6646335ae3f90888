"""Heights and widths that a network can take: which of them it divides, and the nearest ones where it does not."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["height_and_width", "nearest_sizes", "require_division"]


def height_and_width(image_size: int | Sequence[int]) -> tuple[int, int]:
    """From one number, of a square, or two.

    Raises:
        ValueError: more or fewer of them, or one below 1.
    """
    sides = [image_size, image_size] if isinstance(image_size, int) else list(image_size)
    if len(sides) != 2 or min(sides) < 1:
        raise ValueError(f"image_size must be one number ≥ 1 or two, height and width: got {image_size}.")
    return sides[0], sides[1]


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
