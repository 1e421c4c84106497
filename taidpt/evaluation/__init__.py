"""Score files, methods side by side, recipes of published results, plots."""
