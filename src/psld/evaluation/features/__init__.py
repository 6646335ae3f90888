"""Networks whose features and class probabilities samples are judged by."""

from psld.evaluation.features.extractors import (
    BundledClassifier,
    DivergedError,
    ExternalFeatures,
    FeatureExtractor,
    InceptionFeatures,
    UntrustedNetworkError,
    feature_extractor,
)

__all__ = [
    "BundledClassifier",
    "DivergedError",
    "ExternalFeatures",
    "FeatureExtractor",
    "InceptionFeatures",
    "UntrustedNetworkError",
    "feature_extractor",
]
