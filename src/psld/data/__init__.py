"""Data sets that the library reads itself, and the order in which training sees them."""

from psld.data.base import ImageData, Images
from psld.data.digits import Digits
from psld.data.folder import ImageFolder
from psld.data.order import ShuffledBatches, derived_seed

__all__ = ["Digits", "ImageData", "ImageFolder", "Images", "ShuffledBatches", "derived_seed"]
