"""Objectives, losses, the training loop, and jobs from files to a prompts file."""
