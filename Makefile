# `make demo` and `make test` do all their own set-up in .venv. PIP_FLAGS goes to every pip install.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
COMPILING := tests/test_triton_aot.py tests/test_triton_grid.py
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS)

.DEFAULT_GOAL := help
.PHONY: help setup demo studio test test-all fuzz lint format bench clean

help:           ## show this
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

setup: $(STAMP) ## make .venv with the command `inr` and all that developing needs

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or later is needed: make PYTHON=python3.12 ..."; exit 1; }
	@echo "setting up $(VENV) (once; torch is large)"
	@$(PYTHON) -m venv $(VENV)
	@# torch first, at the pinned version, before anything that depends on it
	@$(PIP) $$(grep '^torch==' constraints.txt)
	@$(PIP) --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: $(STAMP)  ## fit, store and enlarge a photograph; pictures and a page in demo/
	$(BIN)/inr demo --out-dir demo

studio: $(STAMP) ## fit, explore, compare and compress in a browser, at http://127.0.0.1:7860
	$(BIN)/inr studio

test: $(STAMP)  ## the test suite (under 8 minutes on 2 cores)
	@# a file's tests stay together: they share what they fitted
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --no-loadscope-reorder

test-all: $(STAMP) ## the slow tier: fuzz, crash, long fits
	$(BIN)/python -m pytest -m slow $(addprefix --ignore ,$(COMPILING))
	@# these do nothing but compile kernels for GPUs: on both cores
	$(BIN)/python -m pytest -m slow -n 2 $(COMPILING)

fuzz: $(STAMP)  ## 10 million damaged files and a million that lie, on both cores (about an hour)
	$(BIN)/python tests/fuzz.py --count 10000000 --deep 1000000 --jobs 2

lint: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP) ## time to quality and time per step against named baselines
	$(BIN)/python benchmarks/fit_image.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/kernels.py

clean:          ## remove what the other targets made
	rm -rf $(VENV) demo
