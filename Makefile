# Everything runs from .venv, which the targets make themselves; Python 3.11 or later is all that has to be there.
#
#   make demo     a tour of the product, about a minute     make check    linters, types, layers: under a minute
#   make dev      run it on embedded stores                 make test     all tests, on real stores
#   make bench    measure it                                make crash    kill it 1000 times and count
#   make mutants  break it in each known way; a test must notice

SHELL := /bin/sh
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
BIN := .venv/bin
DATA ?= .tallybook
PORT ?= 8080
WORKERS ?= 1
TEST_PROCESSES ?= 3
# Bytecode is kept, whatever the caller's environment says: the tests start hundreds of processes that would each compile all they import.
unexport PYTHONDONTWRITEBYTECODE
CHECKS := check-lint check-format check-types check-layers check-dependencies check-unused
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test check bench crash properties contract mutants schema format clean $(CHECKS)

help:
	@sed -n '3,6s/^# *//p' Makefile

setup: .venv/for-development

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit("Tallybook needs Python 3.11 or later, not " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

# The stamps are older than pyproject.toml when its dependencies may have changed.
.venv/for-use: pyproject.toml | .venv/bin/python
	$(INSTALL) --editable '.[server,embedded]'
	@touch $@

.venv/for-development: pyproject.toml | .venv/bin/python
	$(INSTALL) --editable '.[server,embedded,dev]'
	@touch $@ .venv/for-use

demo: .venv/for-use
	$(BIN)/tallybook demo

dev: .venv/for-use
	$(BIN)/tallybook dev --data $(DATA) --port $(PORT) --workers $(WORKERS)

# Files are shared out over processes, each with its own Postgres and Redis: one more than two cores, because tests also wait.
test: .venv/for-development
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile $(ARGS)

bench: .venv/for-development
	$(BIN)/python -m benchmarks $(ARGS)

crash: .venv/for-development
	$(BIN)/python -m tests.crash --kills 1000 --seed 1 $(ARGS)

# The till beside its model, and the described API under schemathesis: the long forms of what every test run does in short.
properties: .venv/for-development
	$(BIN)/python -m tests.properties --steps 100000 --seed 1 $(ARGS)

contract: .venv/for-development
	$(BIN)/python -m tests.api --cases 20000 --seed 1 $(ARGS)

mutants: .venv/for-development
	$(BIN)/python -m tests.mutants $(ARGS)

# All checks run side by side and all of them report, whichever fails first.
check: .venv/for-development
	@$(MAKE) --no-print-directory --keep-going --jobs 3 --output-sync=target $(CHECKS)

check-lint:
	$(BIN)/ruff check --quiet --output-format concise

check-format:
	$(BIN)/ruff format --quiet --check

check-types:
	$(BIN)/pyright --warnings

check-layers:
	@$(BIN)/lint-imports --no-logo

check-dependencies:
	$(BIN)/deptry --no-ansi src

# Fields and attributes are read by msgspec, by name, and by the users of the client; unused variables are ruff's business.
check-unused:
	@found=$$($(BIN)/vulture | grep -v 'unused variable\|unused attribute'); if [ -n "$$found" ]; then echo "$$found"; exit 1; fi

# Writes tests/migration/schema.sql anew from the migrations.
schema: .venv/for-development
	$(BIN)/python -m tests.migration.write_schema

format: .venv/for-development
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
