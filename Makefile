# Each target does all its own set-up: a bare machine needs Python 3.11, make, git and gcc.
PYTHON ?= python3.11
export PATH := $(CURDIR)/.venv/bin:$(PATH)
# nothing here may phone home
export DO_NOT_TRACK := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: help repro flow up down test test-slow install lock wheel

help:
	@echo "make repro    install, then rebuild whatever is out of date: data, runs, statistics, report"
	@echo "make test     install, then check style, types and tests"
	@echo "make test-slow  install, then the long tests: faults, schedules, the pages in a browser"
	@echo "make flow     install, then the same as repro, as a Prefect flow run"
	@echo "make up       install, then serve the study: pages, and runs at a click; ARGS='--every 1h' on a schedule"
	@echo "make down     stop serving"
	@echo "make install  create .venv from requirements.lock"
	@echo "make wheel    dist/infinito-VERSION-py3-none-any.whl, to be installed by pip elsewhere"
	@echo "make lock     take newer versions into requirements.lock"

repro: install
	dvc repro
	@python -m infinito verdict

flow: install
	python -m infinito.flows.pipeline

up: install
	python -m infinito.flows.serve up $(ARGS)

down:
	python -m infinito.flows.serve down

test: install
	ruff check .
	ruff format --check .
	mypy
	python -m pytest -q -m "not slow"

test-slow: install
	python -m pytest -q -m slow

install: .venv/installed

.venv/installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

wheel: install
	rm -rf build  # what was there once would be in the wheel again
	python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .
	rm -rf build

lock:
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet --upgrade torch==2.13.0 setuptools wheel
	.venv-lock/bin/python -m pip install --quiet --upgrade '.[lm,arrays,readers,report,orchestrate,cluster,dev]'
	.venv-lock/bin/python -m pip freeze --all --exclude pip --exclude infinito | sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock
