# Every target does its own set-up: a virtual environment in .venv with the versions pinned in constraints.txt.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test lint train clean

demo: .venv/core.stamp  ## segment a photograph that matplotlib ships and show where the mask may be wrong
	$(BIN)/ruac demo

# of one thread each: where there are more threads than cores, those of OpenMP wait for each other for minutes
test: .venv/dev.stamp  ## the whole test suite, a process a core; tests on real data need RUAC_DATA or ../shared/data
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile

lint: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

train: .venv/dev.stamp  ## train the embedded model again (four hours on two cores)
	$(BIN)/ruac train --config configs/nano.yaml
	$(BIN)/ruac train --config configs/nano-plain.yaml
	$(BIN)/ruac train --method ensemble --config configs/nano-ruac.yaml

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/core.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e .
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) -e ".[dev]"
	touch $@ .venv/core.stamp

clean:
	rm -rf .venv out
