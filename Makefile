# `make demo` and `make test` each work as the first command on a machine with nothing but Python 3.11 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-all lint science clean

demo: $(VENV)/installed
	$(BIN)/unified-irl demo

test: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4

test-all: $(VENV)/installed
	$(BIN)/python -m pytest -n auto --maxprocesses 4 -m "not gpu"

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

science: $(VENV)/installed
	$(BIN)/unified-irl science all

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf $(VENV) runs
