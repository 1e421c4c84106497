"""Tags of an archive as XMP sidecars, for photo libraries."""

__all__ = ["NAMINGS"]

# full: IMG.jpg.xmp. It names one file; a camera's IMG.jpg, IMG.cr3 and IMG.mp4 share an IMG.xmp.
NAMINGS = ("full", "stem")
