"""Conditional generation: models that wrap a model, so that every sampler takes them."""
