# Two commands set everything up on a machine with Python 3.11, 3.12 or 3.13 and make:
#   make demo   the base install (no torch), then a study on bundled data: Greek letters taught to a network
#               that has never seen Greek, from 1, 2 and 5 drawings of each; says where its report is
#   make test   everything installed, every check and test run
# and one is for the time between two edits:
#   make quick  the tests that are not marked slow
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --constraint requirements.lock
# the real data sets, where they stand beside the checkout; tests that need them skip elsewhere
DATA := $(wildcard ../shared/data)
export HEADSTART_DATA ?= $(if $(DATA),$(abspath $(DATA)))
# tests run in one process more than there are cores, because some only wait, each on one thread; WORKERS=0 runs
# them in this process; they start hundreds of processes, which need not compile the package anew, as they would
# where the environment forbids bytecode
WORKERS ?= $(shell $(PYTHON) -c 'import os; print((os.cpu_count() or 1) + 1)')
PYTEST := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal

# pretrained weights and the scripts of the peers that benchmarks compare with
WEIGHTS := $(wildcard ../shared/weights)
export HEADSTART_WEIGHTS ?= $(if $(WEIGHTS),$(abspath $(WEIGHTS)))
PEERS := $(wildcard ../shared/bench)
export HEADSTART_PEERS ?= $(if $(PEERS),$(abspath $(PEERS)))

.PHONY: demo demo-photos install check quick test run-tests docs bench figures figures-slow images lock clean

demo: $(VENV)/base.stamp
	$(BIN)/headstart study drawings omniglot-greek --labels 1,2,all --draws 10 --output runs/demo

# the same job on a folder of your own photos, one folder for each class: make demo-photos FOLDER=insects
demo-photos: $(VENV)/photos.stamp
	@test -n "$(FOLDER)" || { echo "FOLDER is empty, expected a folder of photos, one folder for each class: make demo-photos FOLDER=insects"; exit 2; }
	$(BIN)/headstart transfer "$(FOLDER)" --output runs/demo-photos

install: $(VENV)/all.stamp

check: $(VENV)/all.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/python tools/docs.py --check
# names the results that are older than their code; fails where a document quotes one and does not say so
	$(BIN)/python tools/figures.py check

quick: $(VENV)/all.stamp
	$(PYTEST) -m 'not slow and not gpu and not network'

# beside one another: the checks use one core, tests that wait leave it
test: $(VENV)/all.stamp
	@$(MAKE) --no-print-directory --jobs 2 check run-tests

run-tests: $(VENV)/all.stamp
	MAKEFLAGS= $(PYTEST)

docs: $(VENV)/all.stamp
	$(BIN)/python tools/docs.py

bench: $(VENV)/all.stamp
	@echo "one at a time, alone on the machine:"; ls benchmarks/*.py | sed 's/^/  $(subst /,\/,$(BIN))\/python /'

# what README and docs quote: run again what gives it, and write it there; see benchmarks/figures.toml
figures: $(VENV)/all.stamp
	$(BIN)/python tools/figures.py run

figures-slow: $(VENV)/all.stamp
	$(BIN)/python tools/figures.py run --group slow

images: $(VENV)/all.stamp
	$(BIN)/python tools/screenshots.py

# exact pins from the ranges in pyproject.toml, for every Python and system at once; needs uv
lock:
	uv pip compile --quiet pyproject.toml --all-extras --universal --python-version 3.11 --no-annotate --no-header \
	  --no-emit-find-links --no-emit-index-url --output-file requirements.lock

clean:
	rm -rf $(VENV) runs .mypy_cache .ruff_cache .pytest_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/base.stamp: $(BIN)/python pyproject.toml requirements.lock
	$(PIP) --editable .
	@touch $@

$(VENV)/photos.stamp: $(BIN)/python pyproject.toml requirements.lock
	$(PIP) --editable '.[photos]'
	@touch $@ $(VENV)/base.stamp

$(VENV)/all.stamp: $(BIN)/python pyproject.toml requirements.lock
	$(PIP) --editable '.[all,dev]'
	@touch $@ $(VENV)/base.stamp
