# `make demo` and `make test` are all the set-up there is; each makes .venv when it must.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Files of tests run side by side, one a core; more than four would ask for much memory.
SIDE_BY_SIDE := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Hundreds of processes are started; where this is set each would compile the package anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo check test test-all test-oldest mutants proof bench format clean

help:  ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

# The stamps say what is installed; a changed pyproject or constraints file makes them old.
$(VENV)/made:
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/run: $(VENV)/made pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/dev: $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/bench: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	@touch $@

$(VENV)/browser: $(VENV)/dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[browser]'
	@touch $@

demo: $(VENV)/run  ## train on the built-in digits into runs/demo, evaluate, report, name new images
	@examples/demo.sh $(BIN)

check: $(VENV)/dev  ## format, lint, types, order of imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/dev  ## the tests, under five minutes on two cores
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not proof and not browser and not peers and not gpu"

test-all: $(VENV)/browser $(VENV)/bench  ## also the slow ones, those in a browser (needs chromium, chromium-driver), those with the peers
	HYPOTHESIS_PROFILE=new $(BIN)/python -m pytest -m "not proof and not gpu"

mutants: $(VENV)/dev  ## break the source in some seventy places, one at a time: do the tests see it?
	$(BIN)/python tests/mutants/run.py

proof: $(VENV)/dev  ## long trainings and kills
	$(BIN)/python -m pytest -m proof --timeout 3600

bench: $(VENV)/bench  ## every benchmark against the peers, into benchmarks/results
	BIN=$(BIN) benchmarks/all.sh

test-oldest:  ## the tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python tests/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt -e '.[dev]'
	.venv-oldest/bin/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not proof and not browser and not peers and not gpu"

format: $(VENV)/dev  ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove what was made, runs excepted
	rm -rf $(VENV) .venv-oldest build *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
