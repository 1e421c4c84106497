"""A frame of any size to the array that the graph takes."""
