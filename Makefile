# The two commands of a newcomer: `make demo` and `make test`. Everything is installed into .venv.

PYTHON ?= python3
SOUNDS ?=
# The shell reads it from its environment: spaces and quotes in it do no harm.
export SOUNDS
BIN := .venv/bin
UV := $(BIN)/uv pip install --quiet --python $(BIN)/python

.PHONY: demo test test-lowest reference check docs clean

demo: .venv/ready
	$(BIN)/python -m recipes.demo $${SOUNDS:+--sounds "$$SOUNDS"}

test: .venv/ready check
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# With the oldest torch that is supported, or another: make test-lowest TORCH=2.13.*
TORCH ?= 2.6.*
LOWEST ?= .venv-lowest

test-lowest: .venv/ready
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST)/bin/python "torch==$(TORCH)" -e ".[recipes,metrics,dev]"
	$(LOWEST)/bin/python -m pytest icsim compensation evaluation tests/models tests/test_*.py

check: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

# Programs that tests compare with, where they are there. pyclarity declares a hundred packages
# that HASPI, HASQI and NAL-R do not need; the last torchaudio goes with torch 2.11.
reference: .venv/ready
	$(UV) --no-deps "pyclarity==0.9.0"
	$(UV) -e ".[torchaudio]"

docs: .venv/ready
	$(UV) -e ".[docs]"
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv $(LOWEST) runs site

# PESQ is compiled on installation: without a C compiler its scores are reported as missing.
.venv/ready: pyproject.toml Makefile
	@echo "Installing into .venv (a few gigabytes with PyTorch, once)"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv
	$(UV) -e ".[recipes,metrics,dev]"
	-$(UV) -e ".[pesq]" || echo "PESQ could not be compiled here: its scores will be missing"
	touch $@
