# make setup   a virtual environment in .venv with everything (the first time: minutes, 5 GB of torch)
# make demo    the whole chain on synthetic patients, ending in runs/demo/report.html
# make test    all tests; more of them where real data lies in ../shared/data
# make check   format, lint, types, and who may import whom
# make bench   ratios against the bare network, into benchmarks/results.md

VENV ?= .venv
PYTHON ?= python3
export PATH := $(abspath $(VENV))/bin:$(PATH)
DEMO = runs/demo

.PHONY: setup demo test check bench clean-demo

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[dev]"
	touch $@

test: setup
	OMP_NUM_THREADS=1 python -m pytest -n 2

check: setup
	ruff check .
	ruff format --check .
	mypy
	lint-imports
