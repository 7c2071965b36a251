# Developers and CI run the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# RUNTIME: the packages that painting needs. STAMP: the packages for the checks too; `make demo` does not install these.
RUNTIME := $(VENV)/.runtime
STAMP := $(VENV)/.installed
# CPU=1, for machines without an NVIDIA GPU: torch without CUDA, and onnxruntime in the place of onnxruntime-gpu.
CPU ?=
CPU_INDEX ?= https://download.pytorch.org/whl/cpu
LEAN := $(if $(CPU),--extra-index-url $(CPU_INDEX) ./onnxruntime-cpu)

.PHONY: demo test check lint types bench bench-full gpu torture live year config docs docs-images graphs install install-files uninstall \
	deb clean

demo: $(RUNTIME)  ## paint a sample pair with the real daemon and print the path of the picture
	$(BIN)/nst-daemon demo

test: $(STAMP)  ## all tests, up to four files in parallel
	$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

check: lint types test  ## what CI runs

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# LIVE: options of tests/live, such as `make live LIVE='--only paint reboot'`.
LIVE ?=
live:  ## as root: the service in a Debian with systemd, through kills, reboots, users, an upgrade (about 10 minutes)
	$(PYTHON) -m tests.live $(LIVE)

# `make torture TORTURE=--quick` takes three minutes.
TORTURE ?=
torture: $(STAMP)  ## kills, strange drops, failing disks, power cuts: count what is lost (about 20 minutes)
	$(BIN)/python -m tests.torture $(TORTURE)

# `make year YEAR='--jobs 1000 --keep 60'` takes a few minutes.
YEAR ?=
year: $(STAMP)  ## 50,000 jobs through restarts and retention: what is lost, grows or slows down (hours)
	$(BIN)/python -m benchmarks.year $(YEAR)

bench: $(STAMP)  ## time to equal quality against other methods at a small size; convolutions; precompute
	$(BIN)/python -m benchmarks.peers --sizes 160 --evaluations 150
	$(BIN)/python -m benchmarks.convolutions --size 256
	$(BIN)/python -m benchmarks.precompute --sizes 256 512

bench-full: $(STAMP)  ## the same at 256 and 384 px with 500 evaluations (hours), and the curves of the optimisers
	$(BIN)/python -m benchmarks.peers --sizes 256 384 --evaluations 500
	$(BIN)/python -m benchmarks.optimizers --size 256 --evaluations 300
	$(BIN)/python -m benchmarks.precision --size 256 --evaluations 300

# WHEELS: a folder of wheels; they, and the program, are installed into $(PYTHON), which has torch, without a network.
# If $(PYTHON) does not have setuptools (77 or newer), setuptools-scm and vcs-versioning, WHEELS must have them.
WHEELS ?=
OFFLINE := -m pip install --quiet --no-index --no-deps
gpu: $(if $(WHEELS),,$(STAMP))  ## on a GPU: tests, pictures, speed against the hardware's limit, memory, a profile
	$(if $(WHEELS),$(PYTHON) $(OFFLINE) $(WHEELS)/*.whl)
	$(if $(WHEELS),$(PYTHON) $(OFFLINE) --no-build-isolation --check-build-dependencies --editable .)
	$(if $(WHEELS),$(PYTHON),$(BIN)/python) -m benchmarks.gpu

config: $(STAMP)  ## write config.yaml from the settings in the code
	$(BIN)/python docs/make_config.py

docs: $(STAMP)  ## build the documentation site in build/docs/, and write the generated parts of design.md and http-api.md
	$(BIN)/python -m docs.make_design
	$(BIN)/python -m docs.make_api
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "open build/docs/index.html; search needs a server: $(BIN)/python -m http.server -d build/docs"

graphs: $(STAMP)  ## export the network for the presets' layers, for the package
	$(BIN)/python -m docs.make_graphs

docs-images: $(STAMP)  ## paint the pictures of the documentation from the sample pictures
	$(BIN)/python -m docs.make_images
	$(BIN)/python -m docs.make_pages
	$(BIN)/python -m benchmarks.experiments all --out docs/images/objective

# With CPU=1 it is checked without the packages for GPUs.
VERSION ?=
.PHONY: release
release: $(STAMP)  ## build VERSION from the last commit into dist/, install and paint with it; see CONTRIBUTING.md
	$(BIN)/python -m release '$(VERSION)' --pip-options='$(LEAN) $(PIP_OPTIONS)'

# The folders of `make install`. DESTDIR is put before each path, for packages.
DESTDIR ?=
PREFIX ?= /usr/local
SYSCONFDIR ?= /etc
PIP_OPTIONS ?=
# `make install EXTRAS=web` for the page and its API; CPU=1 as above.
EXTRAS ?=
LIB := $(DESTDIR)$(PREFIX)/lib
UNITS := nst-daemon.service nst-batch.service nst-batch.timer nst-nvidia.service

install:  ## install the program, units, user, folders and configuration; see docs/operations.md
	@umask 022 && $(MAKE) --no-print-directory install-files  # root's umask may be 077, and nst must be able to read the program

# What pip leaves in the checkout. After `sudo make install` it would be root's, and stop the user's own `make test`.
BUILT := build *.egg-info onnxruntime-cpu/build onnxruntime-cpu/*.egg-info
install-files:
	rm -rf $(BUILT)
	trap 'rm -rf $(BUILT)' EXIT; \
	DESTDIR="$(DESTDIR)" systemd/program.sh install $(PYTHON) $(LIB)/nst-daemon --quiet $(PIP_OPTIONS) $(LEAN) ".$(EXTRAS:%=[%])"
	install -D -m 755 systemd/nst-daemon.sh $(DESTDIR)$(PREFIX)/bin/nst-daemon
	install -d $(LIB)/systemd/system $(DESTDIR)$(SYSCONFDIR)/nst-daemon
	for unit in $(UNITS); do \
		sed -e 's|/usr/local|$(PREFIX)|g' -e 's|/etc/nst-daemon|$(SYSCONFDIR)/nst-daemon|g' \
			systemd/$$unit > $(LIB)/systemd/system/$$unit || exit 1; \
	done
	install -D -m 644 systemd/nst-daemon.sysusers $(LIB)/sysusers.d/nst-daemon.conf
	install -D -m 644 systemd/nst-daemon.tmpfiles $(LIB)/tmpfiles.d/nst-daemon.conf
	for drop_in in cpu-only.conf notify.conf public-results.conf status-page.conf; do \
		install -D -m 644 systemd/$$drop_in $(DESTDIR)$(PREFIX)/share/nst-daemon/$$drop_in || exit 1; \
	done
	install -m 644 monitoring/alerts.yaml monitoring/grafana.json $(DESTDIR)$(PREFIX)/share/nst-daemon
	cd $(DESTDIR)$(SYSCONFDIR)/nst-daemon && test -e environment || install -m 640 $(CURDIR)/systemd/environment .
	cd $(DESTDIR)$(SYSCONFDIR)/nst-daemon && test -e config.yaml || \
		sed 's|^  #root: nst$$|  root: /var/lib/nst-daemon|' $(CURDIR)/config.yaml > config.yaml

uninstall:  ## remove what `install` installed, except the configuration and the pictures
	systemd/program.sh remove $(LIB)/nst-daemon
	rm -rf $(DESTDIR)$(PREFIX)/share/nst-daemon
	rm -f $(DESTDIR)$(PREFIX)/bin/nst-daemon $(UNITS:%=$(LIB)/systemd/system/%)
	rm -f $(LIB)/sysusers.d/nst-daemon.conf $(LIB)/tmpfiles.d/nst-daemon.conf
	@echo "kept: the configuration, the pictures and the user; docs/maintenance.md says how to remove them"

# FLAVOUR=cuda: with the libraries for NVIDIA GPUs. EXTRAS and PIP_OPTIONS as above. It must be built on the release of
# Debian or Ubuntu on which it is installed, because it uses that release's Python.
FLAVOUR ?= cpu
DEB_EXTRAS := web,notify,client
DEBIAN_PYTHON := /usr/bin/python3
deb:  ## build a Debian package in dist/
	dpkg-checkbuilddeps
	rm -rf build
	$(DEBIAN_PYTHON) -m pip wheel --quiet --no-deps --wheel-dir build $(PIP_OPTIONS) .
	$(DEBIAN_PYTHON) debian/make_changelog.py build/nst_daemon-*.whl $(FLAVOUR)
	umask 022 && DEB_RULES_REQUIRES_ROOT=no FLAVOUR=$(FLAVOUR) EXTRAS=$(or $(EXTRAS),$(DEB_EXTRAS)) debian/rules clean binary

clean:  ## remove everything that the targets above created
	rm -rf $(VENV) $(BUILT) dist demo .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(RUNTIME): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; try: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(LEAN) --editable .
	touch $@

$(STAMP): $(RUNTIME)
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@
