# One virtual environment, three stamps: torch alone, then the package to run, then the tools to develop.
# A stamp is older than what it depends on only when that changed, so repeated calls install nothing.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

TORCH   := $(VENV)/.installed-torch
RUNTIME := $(VENV)/.installed-runtime
DEV     := $(VENV)/.installed-dev

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo reproduce test check format clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## Train a small model on 8x8 digits, sample from it and judge the samples
	$(BIN)/psld demo

reproduce: $(DEV) ## Train, measure and write the published checkpoints of the digits, and MNIST=FOLDER (hours on two cores)
	$(BIN)/python benchmarks/reproduce.py --seeds 3 --out runs/reproduce --publish
	$(BIN)/psld train --config configs/digits-conditional.yaml --training.steps 2500 --training.max_seconds null \
		--run runs/reproduce/conditional $(if $(wildcard runs/reproduce/conditional/checkpoints/*),--resume)
	$(BIN)/python benchmarks/guidance.py runs/reproduce/guidance --part digits --run runs/reproduce/conditional --publish
	$(if $(MNIST),$(BIN)/python benchmarks/reproduce_mnist.py --root $(MNIST) --publish,@echo 'MNIST: make reproduce MNIST=FOLDER')

test: $(DEV) ## Run the tests, all but the slow ones
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" -n 2

check: $(DEV) ## Lint, formatting, types, documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
	$(BIN)/mkdocs build --strict

format: $(DEV) ## Format the code and apply the safe lint fixes
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean: ## Remove the virtual environment, caches and the built documentation; runs/ stays
	rm -rf $(VENV) site build dist .pytest_cache .ruff_cache .hypothesis .benchmarks
	find src tests -type d -name __pycache__ -prune -exec rm -rf {} +

# torch goes first and alone: its pin then holds, and no later step chooses another build of it.
# pip is the last file that venv writes, so an interrupted creation is repeated.
$(TORCH): constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'constraints.txt needs Python 3.11 or newer: make PYTHON=python3.11 ...' >&2; exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0
	touch $@

$(RUNTIME): $(TORCH) pyproject.toml
	$(PIP) --editable .
	touch $@

$(DEV): $(TORCH) pyproject.toml
	$(PIP) --editable '.[dev]'
	touch $@
