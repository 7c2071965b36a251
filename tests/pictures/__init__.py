"""Image files of many kinds are read and written."""
