# `make demo` and `make test` set everything up; each creates .venv if needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# One test file per core at a time; more than four would need too much memory.
PARALLEL := -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# The tests start hundreds of processes; with this variable set, each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help docs demo check test test-all test-oldest mutants proof bench format clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

# The stamp files record what is installed; a change to pyproject.toml or constraints.txt outdates them.
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

$(VENV)/docs: $(VENV)/run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(VENV)/docs  ## build the documentation as a site, into site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet
	@echo "open site/index.html"

demo: $(VENV)/run  ## train on the built-in digits into runs/demo, evaluate, write a report, classify new images
	@examples/demo.sh $(BIN)

check: $(VENV)/dev  ## check format, lint, types, import order
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: $(VENV)/dev  ## run the tests, under five minutes on two cores
	$(BIN)/python -m pytest $(PARALLEL) -m "not slow and not proof and not browser and not peers and not gpu"

test-all: $(VENV)/browser $(VENV)/bench $(VENV)/docs  ## run all tests: also slow, browser (needs chromium, chromium-driver) and peer tests
	HYPOTHESIS_PROFILE=new $(BIN)/python -m pytest -m "not proof and not gpu"

mutants: $(VENV)/dev  ## break the source in about seventy places, one at a time: do the tests catch it?
	$(BIN)/python tests/mutants/run.py

proof: $(VENV)/dev  ## run long trainings, and kills at random moments
	$(BIN)/python -m pytest -m proof --timeout 3600

bench: $(VENV)/bench  ## run the benchmarks against other libraries, into benchmarks/results
	BIN=$(BIN) benchmarks/all.sh

test-oldest:  ## run the tests with the oldest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/python tests/oldest.py > .venv-oldest/constraints.txt
	.venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check -c .venv-oldest/constraints.txt -e '.[dev]'
	.venv-oldest/bin/python -m pytest $(PARALLEL) -m "not slow and not proof and not browser and not peers and not gpu"

format: $(VENV)/dev  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove everything that make created, except runs
	rm -rf $(VENV) .venv-oldest build site *.egg-info src/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
