# make demo and make test make what they need, from an empty folder on.
VENV ?= .venv
PYTHON ?= python3 python3.11 python3.12 python3.13
BIN = $(VENV)/bin
APART = tests/test_devices.py tests/browser
INSTALL = $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt -e

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench lint types law schema clean

help:
	@echo "make demo   judge a photograph and a forged copy of it; train and test a detector on drawn faces"
	@echo "make test   run the tests"
	@echo "make check  lint, types and tests"
	@echo "make setup  everything for development, in $(VENV)"
	@echo "make bench  measure speed and memory on this machine"
	@echo "make schema write docs/verdict.schema.json and docs/follow.schema.json anew"
	@echo "make clean  remove what the other targets made, but not $(VENV)"

# The first of PYTHON that runs and is new enough.
$(BIN)/python:
	@for python in $(PYTHON); do \
	  if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    exec $$python -m venv $(VENV); fi; done; \
	echo "expected Python 3.11 or newer, found none ($(PYTHON)); name one: make PYTHON=/path/to/python" >&2; \
	exit 2

# One stamp for each set of extras: installing again is only due when the requirements changed.
$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[demo,train]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) '.[dev]'
	@touch $@ $(VENV)/.train

setup: $(VENV)/.dev

demo: $(VENV)/.train
	$(BIN)/bonaface demo

# A worker that dies ends the run and is named: pytest-xdist would wait for ever for the rest of its file.
# Apart: training by several processes, which has taken a worker with it and has work for all cores, and
# the page, for Playwright's loop stays open in its process to the end.
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --max-worker-restart 0 --dist loadfile $(APART:%=--ignore %)
	$(BIN)/python -m pytest $(APART)

check: lint types test

lint: $(VENV)/.dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.dev
	$(BIN)/mypy

law: $(VENV)/.dev
	$(BIN)/python -m pytest -q tests/test_import_law.py

bench: $(VENV)/.dev
	$(BIN)/python benchmarks/run.py

schema: $(VENV)/.dev
	$(BIN)/python -c 'import json; from bonaface.verdict import verdict_schema; \
	  print(json.dumps(verdict_schema(), indent=2))' > docs/verdict.schema.json
	$(BIN)/python -c 'import json; from bonaface.following import follow_schema; \
	  print(json.dumps(follow_schema(), indent=2))' > docs/follow.schema.json

clean:
	rm -rf demo-run build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
