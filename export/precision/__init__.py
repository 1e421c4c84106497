"""Another precision of a bundle: fp16, bf16, int8, fp8, and the gate that it must pass."""
