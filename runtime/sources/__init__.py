"""Where frames come from: pictures, videos, cameras, pipelines, arrays."""
