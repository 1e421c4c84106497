"""What turns prompts into what a device runs: graphs, precisions, engines, and their checks."""
