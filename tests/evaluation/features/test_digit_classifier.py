"""The digit classifier on a split of its own of scikit-learn's digits."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from psld.evaluation.features.digit_classifier import DigitClassifier, classifier_accuracy, train_digit_classifier

HELDOUT = 360


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """1797 images (n, 1, 8, 8) in [−1, 1] and their labels, shuffled."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(7).permutation(len(labels))
    images = torch.as_tensor(pixels[order], dtype=torch.float32).reshape(-1, 1, 8, 8) / 8 - 1
    return images, torch.as_tensor(labels[order], dtype=torch.int64)


def test_accuracy_on_heldout_digits(digits: tuple[torch.Tensor, torch.Tensor]) -> None:
    images, labels = digits
    classifier = train_digit_classifier(images[HELDOUT:], labels[HELDOUT:], seed=0)
    assert not classifier.training
    assert classifier_accuracy(classifier, images[:HELDOUT], labels[:HELDOUT]) >= 0.97


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone(
    digits: tuple[torch.Tensor, torch.Tensor],
) -> None:
    images, labels = digits
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train_digit_classifier(images, labels, seed=3, steps=5)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = (train_digit_classifier(images, labels, seed=seed, steps=5) for seed in (3, 4))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), again.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)


def test_features_are_what_the_logits_are_linear_in() -> None:
    classifier, x = DigitClassifier(), torch.zeros(5, 1, 8, 8)
    assert classifier.features(x).shape == (5, 64)
    assert torch.equal(classifier(x), classifier.head(classifier.features(x)))
