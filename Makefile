# The manual of everything a developer does: `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
POETRY := .poetry/bin/poetry
RUN := .venv/bin

# Poetry asks its index for JSON, which a plain package mirror does not speak; the plugin lets it use
# whatever index pip itself is set up with. The address is computed on each run and written nowhere.
export POETRY_VIRTUALENVS_IN_PROJECT := true
export POETRY_NO_INTERACTION := 1
export POETRY_PYPI_MIRROR_URL ?= $(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null || \
  $(PYTHON) -c "from pip._internal.models.index import PyPI as p; print(p.simple_url)")

.poetry/ok:
	$(PYTHON) -m venv .poetry
	.poetry/bin/pip install -q --disable-pip-version-check poetry==2.5.1 poetry-plugin-pypi-mirror==0.6.5
	touch $@

poetry.lock: | .poetry/ok
	test -f $@ || $(POETRY) lock

.venv/ok: .poetry/ok pyproject.toml poetry.lock
	$(POETRY) install -q
	touch $@

.PHONY: help install demo demo-fleet test test-unit lint fmt bench clean
help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/ok  ## everything, into .venv (Poetry itself into .poetry)

demo: install  ## a dozen tasks through local mode: no AWS account, no GPU
	$(RUN)/sd-scheduler local --demo

demo-fleet: install  ## a fleet of worker processes that grows with a burst and goes when idle (two minutes)
	$(RUN)/sd-scheduler local --demo-fleet

test: lint  ## everything that CI runs
	$(RUN)/pytest -n 4 --dist worksteal

test-unit: install  ## the tests without I/O (about two minutes)
	$(RUN)/pytest tests/unit

lint: install  ## ruff, mypy, import-linter, and whether the lock file is current
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy
	$(RUN)/lint-imports
	$(POETRY) check --lock

fmt: install  ## format, and fix what can be fixed
	$(RUN)/ruff format .
	$(RUN)/ruff check --fix .

bench: install  ## the benchmark: GPU duty, throughput, calls, CPU, crashes (about six minutes)
	$(RUN)/python -m benchmarks.run

clean:  ## remove what the other targets made
	rm -rf .venv .poetry .local .mypy_cache .ruff_cache .pytest_cache .hypothesis
