"""TensorRT and TensorRT-RTX engines: build, name, store, run once."""
