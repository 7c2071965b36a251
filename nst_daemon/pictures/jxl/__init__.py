"""Parts of JPEG XL files that are read without decoding: boxes, headers, frames and colour profiles."""
