"""Thresholds from captions, which need a text tower."""
