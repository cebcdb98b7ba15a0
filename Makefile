# make demo: install and run the main job on the embedded sandbox.  make test: install and run the tests.
# make test-slow: the long matrices, fuzzers and kill loops that make test leaves out.
# make test-matrix: every loss under every wrapper, controller and aggregation.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS := $(shell nproc 2>/dev/null || echo 2)

.PHONY: demo test test-slow test-matrix install docs site clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet -e '.[dev]' -c constraints.txt
	touch $@

demo: install
	rm -rf runs/demo
	$(BIN)/alignzoo run --loss dpo --geometry shapo-token --robust drdpo --out runs/demo

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/python -m compileall -q alignzoo plugins  # for the processes that tests start
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not slow and not matrix"

test-slow: install
	$(BIN)/pytest -n $(WORKERS) -m slow

docs: install
	$(BIN)/python docs/generate_methods.py

site: install
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

test-matrix: install
	$(BIN)/pytest -n $(WORKERS) -m matrix tests/matrix

clean:
	rm -rf $(VENV) dist build runs site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
