"""A folder of image files, or a zip archive of them, read with Pillow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from psld.data.decoding import MODES, FileImages, Framing, Resample, require_background
from psld.data.folders import find_images, require_classes
from psld.specs.arguments import one_of

__all__ = ["ImageFolder"]


class ImageFolder(FileImages):
    """All images below a folder, in sorted order of their paths, scaled from 0 … 255 to [−1, 1].

    The header of every file is read at construction: a wrong one stops a run before it starts, not days into it.
    Pictures are turned as their EXIF orientation says; of several frames the first is taken; 16 bits of grey are
    divided by 257 and rounded; palettes, CMYK and other colours become RGB. Each of these is said once.

    If every image lies in a sub-folder, the first-level sub-folders are classes, in natural order (9 before 10), and
    there are labels. Where the root has a dataset.json, as StyleGAN and EDM write it, labels are those in it. Hidden
    folders and files, `.ipynb_checkpoints`, `__MACOSX` and `._…` are passed over; symbolic links to folders are
    followed once.

    Args:
        root: the folder; searched recursively for the suffixes png, apng, jpg, jpeg, jpe, jfif, bmp, gif, tif, tiff,
            webp, ppm, pgm, pbm, pnm. Or a .zip archive of such files, which is read where it lies.
        image_size: height and width that every image must have; one number for a square, or two.
        channels: 1 (grey), 3 (RGB) or 4 (RGBA); colour and grey files are converted.
        flip: the mirror images are items too: item i + n mirrors item i, and the set has 2n items. Being items and not
            coin tosses, they leave training a function of its seed.
        resize: take the largest centred box of each image that has the proportions of image_size, and make it smaller;
            nothing is enlarged. By default an image of another size is refused.
        resample: the filter of `resize`.
        background: the colour that transparent pixels are flattened onto, unless channels is 4, which keeps them.
        classes: names of the sub-folders that are classes, in the order of their labels; a folder that is not among
            them is refused. None: all there are. A run's config.yaml has them, so labels stay what they were.

    Raises:
        FileNotFoundError: the folder is missing or has no images.
        NotADirectoryError: it is a file, and no .zip.
        ValueError: an image of another size, an unreadable one, one with too many pixels, more than 8 bits of colour or
            floating-point pixels; unknown channels or background; folders that are not among the classes.

    Warns:
        ImageWarning: what is done to files so that they fit, and what is passed over.
    """

    def __init__(
        self,
        root: str | Path,
        image_size: int | tuple[int, int],
        channels: int = 3,
        flip: bool = False,
        resize: bool = False,
        resample: Resample = "bilinear",
        background: str = "white",
        classes: Sequence[str] | None = None,
    ):
        one_of("channels", channels, tuple(MODES))
        require_classes(classes)
        require_background(background)
        self.root = Path(root)
        framing = Framing(image_size, "center" if resize else "none", resample)
        found = find_images(self.root)
        labels, names = found.classes_of_folders(classes, self.root)
        super().__init__(found.files, channels, framing, flip, labels, names, background)
        if "classes" in self._recorded:  # not of a subclass with arguments of its own
            self._recorded["classes"] = list(names) or None  # the map that was found goes into config.yaml
