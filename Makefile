# make demo   makes .venv if there is none, installs, shows the demo
# make test   the same for the tests; make test-all adds the big matrix and writes its table; make lint checks the code
# Another Python: make demo PYTHON=python3.12

PYTHON ?= python3
WORKERS ?= 2
# One thread a worker: two workers with two threads each would wait for one another.
TEST := OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n $(WORKERS)
BIN := .venv/bin

.PHONY: demo test test-all lint venv clean

demo: .venv/.installed
	$(BIN)/probe demo

test: venv
	$(TEST)

test-all: venv
	$(TEST) -m "full or not full" --table=figures/families.md

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

venv: .venv/.installed-dev

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is missing or older than 3.11; try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed: pyproject.toml | .venv/bin/pip
	@echo "installing into .venv; the first time takes some minutes"
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

.venv/.installed-dev: pyproject.toml | .venv/bin/pip
	@echo "installing into .venv with all extras; the first time takes some minutes"
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch .venv/.installed $@

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache
