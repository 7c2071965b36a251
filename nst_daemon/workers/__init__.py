"""Where jobs run: a seam (`base`), the local processes behind it (`local`) and the child itself (`process`)."""
