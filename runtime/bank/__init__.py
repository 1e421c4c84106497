"""The class bank: tags as rows, thresholds and probability maps as tables, one safetensors file."""
