"""How good thresholds are when the truth is known."""
