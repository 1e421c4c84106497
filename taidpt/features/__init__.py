"""What frozen towers give, computed once: prompts, captions, pictures."""
