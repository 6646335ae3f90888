"""How good samples are: distances, precision and recall, classifiers for features and labels, memorisation.

`psld.evaluation.features` and `.statistics` turn images into what `psld.evaluation.metrics` compares.
"""

from psld.evaluation.features.digit_classifier import DigitClassifier, classifier_accuracy, train_digit_classifier
from psld.evaluation.metrics.energy import energy_distance
from psld.evaluation.metrics.frechet import frechet_distance, frechet_from_moments
from psld.evaluation.metrics.nearest import MemorisedShare, memorised_share, nearest_distance

__all__ = [
    "DigitClassifier",
    "MemorisedShare",
    "classifier_accuracy",
    "energy_distance",
    "frechet_distance",
    "frechet_from_moments",
    "memorised_share",
    "nearest_distance",
    "train_digit_classifier",
]
