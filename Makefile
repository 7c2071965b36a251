# The same targets serve a person, the hooks and CI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test check lint types bench config docs-images clean

demo: $(STAMP)  ## paint a sample pair with the real daemon and say where the picture is
	$(BIN)/nst-daemon demo

test: $(STAMP)  ## all tests
	$(BIN)/python -m pytest

check: lint types test  ## what CI runs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

bench: $(STAMP)  ## measure: the precompute, and the optimisers against torch's own
	$(BIN)/python -m benchmarks.precompute --sizes 256 512
	$(BIN)/python -m benchmarks.optimizers --size 128 --evaluations 150 --out optimizers

config: $(STAMP)  ## config.yaml, from the settings in the code
	$(BIN)/python docs/make_config.py

docs-images: $(STAMP)  ## the pictures of the documentation, painted from the sample pictures
	$(BIN)/python docs/make_images.py

clean:  ## remove everything that the targets above have made
	rm -rf $(VENV) build dist demo *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
