# SynthDose: two commands on a fresh machine, "make demo" and "make test"; each makes .venv and installs pinned versions once.
PYTHON ?= python3
VENV := .venv
ifeq ($(OS),Windows_NT)
BIN := $(VENV)/Scripts
else
BIN := $(VENV)/bin
endif
RUN := $(BIN)/python
SYSTEM := $(RUN) .ci/check_system.py

.PHONY: demo test lint bench validate clean

demo: $(VENV)/installed
	-@$(SYSTEM)
	$(RUN) -m SynthDoseLib demo --out runs/demo --overwrite

test: $(VENV)/tested
	@$(SYSTEM)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(RUN) -m pytest -n 2 --dist loadfile

bench: $(VENV)/benched
	$(RUN) -m Testing.Benchmarks.bench_penred

validate: $(VENV)/tested
	$(RUN) -m Testing.Benchmarks.validate

$(VENV)/python:
	$(PYTHON) -c "import sys; sys.exit(0 if sys.version_info >= (3, 11) else 'SynthDose needs Python 3.11 or newer, found ' + sys.version.split()[0] + '. Install it and run: make PYTHON=python3.11')"
	$(PYTHON) -c "import ensurepip, venv" || { echo "Python's venv is missing. On Debian or Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check "pip>=25"
	touch $@

$(VENV)/installed: $(VENV)/python constraints.txt pyproject.toml
	$(RUN) -m pip install --quiet --constraint constraints.txt torch==2.13.0
	$(RUN) -m pip install --quiet --constraint constraints.txt --editable ".[segmentation,scene]"
	-$(RUN) -m SynthDoseLib.radiomics.install --quiet --constraint constraints.txt
	touch $@

$(VENV)/tested: $(VENV)/installed Testing/requirements.txt
	$(RUN) -m pip install --quiet --constraint constraints.txt --requirement Testing/requirements.txt
	$(RUN) -m pip install --quiet --constraint constraints.txt --no-deps dicompyler-core  # which asks for pydicom 2, and reads doses with 3 as well
	touch $@

$(VENV)/benched: $(VENV)/tested
	$(RUN) -m pip install --quiet --constraint constraints.txt pyPenred || echo "pyPenred could not be installed: the comparison is left out."
	touch $@

clean:
	rm -rf $(VENV) runs
