"""Cameras that run for months: read, tagged together, their events kept."""
