"""Frozen CLIP towers: model, weights, tokenizers."""
