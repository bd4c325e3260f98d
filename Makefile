# Fresh machine: `make quickstart` trains everything, `make test` runs the tests.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
MINUTES ?=
WORLD ?= simple
OUT ?= runs/quickstart

PIP_INSTALL = $(BIN)/pip install --quiet --constraint constraints.txt --editable

.PHONY: install install-test quickstart test test-slow test-peers test-browser lint

install: $(BIN)/.installed
install-test: $(BIN)/.installed-test

$(BIN)/.installed: setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP_INSTALL) .
	@touch $@

$(BIN)/.installed-test: $(BIN)/.installed
	$(PIP_INSTALL) '.[test]'
	@touch $@

quickstart: install
	$(BIN)/dalle2 quickstart --world $(WORLD) --out $(OUT) $(if $(MINUTES),--minutes $(MINUTES))

test: install-test lint
	$(BIN)/python -m pytest -m 'not slow'

test-slow: install-test
	$(BIN)/python -m pytest -m slow

# Beside torch-fidelity and clean-fid; the figures are printed.
test-peers: install-test
	$(PIP_INSTALL) '.[test,peers]'
	$(BIN)/python -m pytest -m slow -s tests/evaluate/test_peers.py

# The page of `dalle2 demo`; the browser is this machine's (apt-get install chromium).
test-browser: install-test
	$(PIP_INSTALL) '.[test,demo,browser]'
	$(BIN)/python -m pytest -rs tests/demo

lint: install-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
