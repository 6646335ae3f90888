"""How good samples are, and what they look like.

Fréchet, kernel and energy distances, precision and recall, classifiers for features and labels, a measure of
memorisation, pictures. `psld.evaluation.features` and `.statistics` turn images into what is compared.
matplotlib is imported only by the functions that draw with it.
"""

from psld.evaluation.classifier import DigitClassifier, classifier_accuracy, train_digit_classifier
from psld.evaluation.energy import energy_distance
from psld.evaluation.frechet import frechet_distance, frechet_from_moments
from psld.evaluation.nearest import MemorisedShare, memorised_share, nearest_distance
from psld.evaluation.phase_space import save_phase_space
from psld.evaluation.pictures import save_beside, save_grid, save_images

__all__ = [
    "DigitClassifier",
    "MemorisedShare",
    "classifier_accuracy",
    "energy_distance",
    "frechet_distance",
    "frechet_from_moments",
    "memorised_share",
    "nearest_distance",
    "save_beside",
    "save_grid",
    "save_images",
    "save_phase_space",
    "train_digit_classifier",
]
