"""Networks whose features and class probabilities samples are judged by."""

from psld.evaluation.features.extractors import (
    BundledClassifier,
    ExternalFeatures,
    FeatureExtractor,
    InceptionFeatures,
    UntrustedNetworkError,
    feature_extractor,
)

__all__ = [
    "BundledClassifier",
    "ExternalFeatures",
    "FeatureExtractor",
    "InceptionFeatures",
    "UntrustedNetworkError",
    "feature_extractor",
]
