"""The bundle on disk: its manifest, loading with checks, and writing in one step."""
