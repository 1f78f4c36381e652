# make demo [SEED=0] [FLOPS=5M]   search, inherit, retrain on handwritten digits, and a report
# make test                       the tests that a change is tried with; a few minutes on two cores
# make test-all                   all tests
# make test-slow                  those that `make test` leaves out
# make test-oldest                `make test` on Python 3.11 and the oldest releases that pyproject.toml allows
# make test-newest                `make test` on the newest releases that pip finds today
# make campaign [MINUTES=60]      damaged files for every reader, power cuts, and tables of what became of them
# make check                      ruff and mypy
# make lock                       renew requirements.lock, by which all but the oldest and newest are installed
# make clean                      remove environments, caches and build files; runs/ stays
#
# PYTHON=python3.13 chooses the Python (3.11 or newer), VENV=.venv-3.13 the environment that is made with it,
# PYTEST="-x -k budget" adds to pytest's arguments.

PYTHON ?= python3
OLDEST_PYTHON ?= python3.11
VENV ?= .venv
SEED ?= 0
FLOPS ?= 5M
PYTEST ?=
MINUTES ?= 60

PIP := bin/python -m pip --disable-pip-version-check
RUN_TESTS := bin/python -m pytest -n auto --maxprocesses 8
FAST := -m "not slow"

.PHONY: help demo test test-all test-slow test-oldest test-newest campaign check lock clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

# Everything in one pip call, since torch and torchvision must fit each other; then this package alone.
$(VENV)/installed: pyproject.toml requirements.lock
	@echo "==> making $(VENV) with $$($(PYTHON) --version) and installing (some gigabytes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/$(PIP) install --quiet --require-hashes -r requirements.lock
	$(VENV)/$(PIP) install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# "torch>=2.6" becomes "torch==2.6". What these need in turn is as new as they allow.
.venv-oldest/installed: pyproject.toml
	@echo "==> making .venv-oldest with $$($(OLDEST_PYTHON) --version) and the oldest releases that pyproject.toml allows"
	rm -rf .venv-oldest
	$(OLDEST_PYTHON) -m venv .venv-oldest
	sed -nE 's/.*"([A-Za-z0-9-]+)>=([0-9.]+)[^"]*".*/\1==\2/p' pyproject.toml >.venv-oldest/constraints.txt
	.venv-oldest/$(PIP) install --quiet -c .venv-oldest/constraints.txt -e '.[test]'
	@touch $@

demo: $(VENV)/installed
	@echo "==> psvit-search run: supernet, search, retraining and report (a few minutes on two CPU cores)"
	$(VENV)/bin/psvit-search run --flops $(FLOPS) --name demo-$(FLOPS)-seed$(SEED) seed=$(SEED)
	@echo "==> results: runs/demo-$(FLOPS)-seed$(SEED)/report.md and the files that it names"

test: $(VENV)/installed
	@echo "==> pytest on all cores, without the slow tests"
	$(VENV)/$(RUN_TESTS) $(FAST) $(PYTEST)

test-all: $(VENV)/installed
	@echo "==> pytest on all cores"
	$(VENV)/$(RUN_TESTS) $(PYTEST)

test-slow: $(VENV)/installed
	@echo "==> pytest on all cores, the slow tests"
	$(VENV)/$(RUN_TESTS) -m slow $(PYTEST)

# Old releases warn of each other, and nothing can be done about it: their warnings are shown and fail no test.
test-oldest: .venv-oldest/installed
	.venv-oldest/$(RUN_TESTS) $(FAST) -W default $(PYTEST)

test-newest:
	@echo "==> making .venv-newest with $$($(PYTHON) --version) and the newest releases"
	$(PYTHON) -m venv --clear .venv-newest
	.venv-newest/$(PIP) install --quiet -e '.[test]'
	.venv-newest/bin/python -m pip freeze
	.venv-newest/$(RUN_TESTS) $(FAST) $(PYTEST)

campaign: $(VENV)/installed
	$(VENV)/bin/python -m tests.faults.campaign --minutes $(MINUTES)

check: $(VENV)/installed
	@echo "==> ruff: faults and format"
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	@echo "==> mypy --strict"
	$(VENV)/bin/mypy

# Hashes for every platform and Python, read by pip and by uv alike. uv does not read pip's configuration: a constraint
# there would make the lock impossible to install.
lock:
	@test -x .venv-lock/bin/uv || { $(PYTHON) -m venv .venv-lock && .venv-lock/$(PIP) install --quiet uv; }
	UV_CONSTRAINT="$$(.venv-lock/$(PIP) config list | sed -n "s/.*\.constraint='\(.*\)'/\1/p")" \
	    .venv-lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-annotate \
	    --custom-compile-command "make lock" --extra test --extra dev --output-file requirements.lock pyproject.toml

clean:
	rm -rf .venv .venv-* build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
