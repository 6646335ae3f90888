"""Distances between two sets of images or features, and what else is said of samples against data."""
