"""Networks whose features and class probabilities samples are judged by."""

from psld.evaluation.features.extractors import (
    BundledClassifier,
    EfficientNetFeatures,
    ExternalFeatures,
    FeatureExtractor,
    InceptionFeatures,
    UntrustedNetworkError,
    feature_extractor,
)

__all__ = [
    "BundledClassifier",
    "EfficientNetFeatures",
    "ExternalFeatures",
    "FeatureExtractor",
    "InceptionFeatures",
    "UntrustedNetworkError",
    "feature_extractor",
]
