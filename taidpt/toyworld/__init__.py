"""The toy world: a small CLIP of sixty emoji that ships in the package, and its pictures.

`scripts/toyworld/` in a checkout draws the pictures, trains the model and builds the shipped files.
"""
