"""One module for each way to read image files. Each has a function `open_picture`."""
