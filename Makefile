# make demo and make test need Python 3.11 or newer and make, nothing else.
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
LONG ?= not long

# One thread each for the arithmetic: the tests already run side by side, and timings count CPU seconds.
export OMP_WAIT_POLICY := PASSIVE
export OPENBLAS_NUM_THREADS := 1
export OMP_NUM_THREADS := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-long lint bench clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# An environment holds what its stamps say; a newer pyproject.toml or constraints.txt installs again.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("landscape needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/stamp-%: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing landscape with its extra '$*' into $(VENV) ..."
	@$(PIP) -e '.[$*]'
	@touch $@

demo: $(VENV)/stamp-examples ## Top eigenvalues of the digits example, as figures and as a picture.
	@mkdir -p demo
	$(BIN)/landscape eigen examples/digits/mlp-sgd.pt --config examples/digits/landscape.toml --seed 0 -o demo/mlp-sgd.h5
	$(BIN)/landscape plot demo/mlp-sgd.h5 -o demo/spectrum.png
	@echo
	@echo "Done. Open the picture: demo/spectrum.png"

lint: $(VENV)/stamp-dev ## Style, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## All checks and the whole suite, with samples of the long tests.
	$(BIN)/python -m pytest -n 2 -m '$(LONG)'

test-long: LONG := long or not long
test-long: test ## The same with the full counts of the random, fuzz and kill tests.

bench: $(VENV)/stamp-bench ## Everything measured, against other libraries and dense matrices (an hour).
	@mkdir -p build/bench
	$(BIN)/python -m tests.benchmarks.product --json build/bench/product.json
	$(BIN)/python -m tests.benchmarks.certified --memory --json build/bench/certified.json
	$(BIN)/python -m tests.benchmarks.exact --keep build/bench/digits.npy --json build/bench/exact.json
	$(BIN)/python -m tests.benchmarks.estimators --json build/bench/estimators.json
	$(BIN)/python -m tests.benchmarks.ratios --json build/bench/ratios.json
	$(BIN)/python -m tests.benchmarks.per_example --json build/bench/per_example.json
	$(PIP) --no-deps landscaper  # its dependency topopy, which is not needed here, wants NumPy below 2
	$(BIN)/python -m tests.benchmarks.slices --json build/bench/slices.json
	$(BIN)/python -m tests.benchmarks.warm --missed --json build/bench/warm.json
	$(BIN)/python -m tests.benchmarks.batch --json build/bench/batch.json
	$(BIN)/python -m tests.benchmarks.monitor --json build/bench/monitor.json
	$(BIN)/python -m tests.benchmarks.report --json build/bench/report.json
	$(BIN)/python -m tests.benchmarks.coverage --digits build/bench/digits.npy > build/bench/coverage.txt

clean: ## Remove the environment, caches and what demo and bench wrote.
	rm -rf $(VENV) demo build dist *.egg-info
	rm -rf .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
