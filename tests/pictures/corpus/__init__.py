"""Image files of every format and variant, made by code, each with the pixels that it must become.

`python -m tests.pictures.corpus` decodes all of them and prints a table; `--second` compares with a second decoder.
Each module named after a format has a function `cases`.
"""
