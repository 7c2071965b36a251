"""Image files: read into arrays in sRGB and written, without torch."""
