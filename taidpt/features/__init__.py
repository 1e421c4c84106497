"""Features of frozen towers, computed once: of prompts, captions and pictures."""
