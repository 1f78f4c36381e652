# make demo [SEED=0] [FLOPS=5M]   search, inherit, retrain on handwritten digits, and a report
# make test                       all tests
# make check                      ruff and mypy
# make clean                      remove .venv, caches and build files; runs/ stays
#
# PYTHON=python3.12 chooses the Python (3.11 or newer) that .venv is made with.

PYTHON ?= python3
SEED ?= 0
FLOPS ?= 5M
BIN := .venv/bin

.PHONY: help demo test check clean

help:
	@sed -n 's/^# \{0,1\}//p' Makefile

# One pip call for everything: torch and torchvision must be chosen together.
.venv/installed: pyproject.toml
	@echo "==> making .venv with $$($(PYTHON) --version) and installing (some gigabytes the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test,dev]'
	@touch $@

demo: .venv/installed
	@echo "==> psvit-search run: supernet, search, retraining and report (a few minutes on two CPU cores)"
	$(BIN)/psvit-search run --flops $(FLOPS) --name demo-$(FLOPS)-seed$(SEED) seed=$(SEED)
	@echo "==> results: runs/demo-$(FLOPS)-seed$(SEED)/report.md and the files that it names"

test: .venv/installed
	@echo "==> pytest, on all cores"
	$(BIN)/python -m pytest -n auto --maxprocesses 8

check: .venv/installed
	@echo "==> ruff: faults and format"
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "==> mypy --strict"
	$(BIN)/mypy

clean:
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
