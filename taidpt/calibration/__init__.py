"""Thresholds and probabilities without labels: numpy and scipy, never torch."""
