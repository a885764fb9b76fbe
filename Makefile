# Two commands set everything up on a machine with Python 3.11 and make:
#   make demo   the base install (no torch), then a study on bundled data: Greek letters taught to a network
#               that has never seen Greek, from 1, 2 and 5 drawings of each; says where its report is
#   make test   everything installed, every check and test run
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --constraint requirements.lock
# the real data sets, where they stand beside the checkout; tests that need them skip elsewhere
DATA := $(wildcard ../shared/data)
export HEADSTART_DATA ?= $(if $(DATA),$(abspath $(DATA)))

.PHONY: demo install check test docs bench lock clean

demo: $(VENV)/base.stamp
	$(BIN)/headstart study drawings omniglot-greek --labels 1,2,all --draws 10 --output runs/demo

install: $(VENV)/all.stamp

check: $(VENV)/all.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python tools/docs.py --check

test: check
	$(BIN)/pytest

docs: $(VENV)/all.stamp
	$(BIN)/python tools/docs.py

bench: $(VENV)/all.stamp
	@echo "one at a time, alone on the machine:"; ls benchmarks/*.py | sed 's/^/  $(subst /,\/,$(BIN))\/python /'

# exact pins from the ranges in pyproject.toml; needs uv
lock:
	uv pip compile --quiet pyproject.toml --all-extras --python-version 3.11 --no-annotate --no-header \
	  --no-emit-find-links --no-emit-index-url --output-file requirements.lock

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/base.stamp: $(BIN)/python pyproject.toml requirements.lock
	$(PIP) --editable .
	@touch $@

$(VENV)/all.stamp: $(BIN)/python pyproject.toml requirements.lock
	$(PIP) --editable '.[all,dev]'
	@touch $@ $(VENV)/base.stamp
