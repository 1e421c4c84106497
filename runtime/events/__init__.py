"""Scores to on/off events: smoothing and hysteresis, without a clock or a file."""
