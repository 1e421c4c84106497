"""The page of a site, its HTTP API, its metrics."""
