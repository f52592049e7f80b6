# Sonoloop from a clone: `make demo` shows it, `make test` tests it, `make help` lists the rest.
# POSIX make and sh. On Windows, see "From a clone" in CONTRIBUTING.md.

.POSIX:
.SUFFIXES:

PYTHON = python3
VENV = .venv
BIN = $(VENV)/bin
IMAGES =
OUT = demo-out
# two processes; each takes one thread, all windows are in one of them
PYTEST_ARGS = -n 2 --dist loadscope

help:
	@echo 'make demo                 open napari with the sample study, predicted; without a display'
	@echo '                          (or with HEADLESS=1) write masks and overlays to $(OUT)/'
	@echo 'make demo IMAGES=folder   the same on your own images'
	@echo 'make test                 the tests, about ten minutes; `make test-all` adds the long ones'
	@echo 'make check                lint, types, the manifest'
	@echo 'make benchmark            images per second'
	@echo 'make screenshots          the pictures of the README'
	@echo 'make clean                remove $(VENV) and all that was made'

demo: $(VENV)/.demo
	@sh tools/demo.sh $(BIN) "$(OUT)" "$(IMAGES)"

test: $(VENV)/.dev
	@sh tools/system_packages.sh
	@sh tools/with_display.sh $(BIN)/python -m pytest $(PYTEST_ARGS)

test-all: $(VENV)/.dev
	@sh tools/system_packages.sh
	@sh tools/with_display.sh $(BIN)/python -m pytest -m "" $(PYTEST_ARGS)

check: $(VENV)/.dev
	@sh tools/system_packages.sh
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python docs/accuracy.py --check
	$(BIN)/python docs/results.py --check
	@sh tools/with_display.sh $(BIN)/npe2 validate napari-sonoloop --imports

benchmark: $(VENV)/.dev
	$(BIN)/python benchmarks/predict.py

screenshots: $(VENV)/.dev
	@sh tools/system_packages.sh
	@sh tools/with_display.sh $(BIN)/python docs/screenshots.py

clean:
	rm -rf $(VENV) $(OUT) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis

# The files below are stamps: nothing is installed again until pyproject.toml changes.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'Sonoloop needs Python 3.11 or newer; $(PYTHON) is older or missing.' >&2; \
		echo 'Name another one: make demo PYTHON=python3.12' >&2; exit 1; }
	@echo 'Making $(VENV)'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo: $(VENV)/.made pyproject.toml
	@echo 'Installing Sonoloop and napari into $(VENV); the first time takes a minute or two'
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[annotate]'
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@echo 'Installing Sonoloop and what its tests need into $(VENV); the first time takes some minutes'
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $(VENV)/.demo $@
