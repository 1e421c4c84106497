"""A bundle as a model of DeepStream's nvinfer, and the parser that attaches its tags."""
