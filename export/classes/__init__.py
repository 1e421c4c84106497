"""What is exported: prompts baked to rows, ready banks, banks of names."""
