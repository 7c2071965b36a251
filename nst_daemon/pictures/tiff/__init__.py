"""Parts of TIFF files: directories, layouts, compressions and colours."""
