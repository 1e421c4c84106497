"""From unlabelled scores to thresholds and probabilities: numpy and scipy alone."""
