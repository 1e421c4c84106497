"""Tags of an archive as XMP sidecars, for photo libraries."""
