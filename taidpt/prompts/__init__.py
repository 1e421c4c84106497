"""Tuned prompts: their file and their tokens."""
