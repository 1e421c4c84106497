# make demo   the main job with the embedded model, start to end
# make test   the tests, in two processes where there are two cores
# make lint   ruff and mypy
# make bench  the benchmarks that need no GPU
# make docs   the documents as a site in build/site
# make dist   wheel, sdist and a CycloneDX list of dependencies in dist/, checked
# All of them make .venv first; PYTHON=python3.12 chooses another interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO := build/demo
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
# Two processes of one thread each take about half the time of one process of two threads. Files stay
# whole, so that what a file builds once is built once.
ifneq ($(CORES),1)
WORKERS := -n 2 --dist loadfile --no-loadscope-reorder
test: export OMP_NUM_THREADS ?= 1
endif

.PHONY: demo test lint format bench docs dist clean

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 10) <= v < (3, 14) else "taidpt needs Python 3.10 to 3.13, this is %d.%d: make PYTHON=python3.12 …" % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python3 -m venv failed: on Debian and Ubuntu, apt install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV): PyTorch is large, the first time takes some minutes."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/taidpt demo --output $(DEMO)

test: $(STAMP)
	@$(BIN)/python -m pytest -q $(WORKERS) $(PYTEST_ARGS)

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy -p taidpt

format: $(STAMP)
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(STAMP)
	@$(BIN)/python benchmarks/tuning_step.py
	@$(BIN)/python benchmarks/tagger_overhead.py
	@$(BIN)/python benchmarks/install_size.py

docs: $(STAMP)
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

dist: $(STAMP)
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist . >/dev/null
	@$(BIN)/python -m twine check --strict dist/*
	@$(PYTHON) -m venv --clear build/dist-env
	@build/dist-env/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	@$(BIN)/python -m cyclonedx_py environment build/dist-env/bin/python --pyproject pyproject.toml \
	  --mc-type library --output-reproducible -o dist/taidpt.cdx.json
	@ls -l dist

clean:
	rm -rf build dist $(VENV) *.egg-info
