"""Tags that the model mixes up."""
