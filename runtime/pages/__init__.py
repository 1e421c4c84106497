"""HTML pages that need no network: one style, one frame, and the charts that they share."""
