# `make` alone lists the targets. Every target sets up .venv by itself.
PYTHON ?= python3
UV ?= uv
VENV := .venv
BIN := $(VENV)/bin

# no hints about pip itself in the output
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore
# what pytest makes of the tests is kept, whatever the environment says: each of its workers would make it anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test simulate recover mutate docs lint format lock bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed ## tell the whole story on a bundled sample and an embedded PostgreSQL
	@$(BIN)/reconciler demo

test: $(VENV)/.installed ## run all tests that need no cluster; ARGS go to pytest
	@$(BIN)/pytest $(ARGS)

simulate: $(VENV)/.installed ## play SEEDS=N worlds in which everything goes wrong, from FIRST on
	@SIMULATION_SEEDS=$(or $(SEEDS),100) SIMULATION_FIRST=$(or $(FIRST),0) SIMULATION_LOG=$(LOG) \
	  $(BIN)/pytest -q tests/simulation $(ARGS)

recover: $(VENV)/.installed ## measure in SEEDS=N worlds what a change log recovers of the days that the portal lost
	@RECOVERY_SEEDS=$(or $(SEEDS),100) SIMULATION_FIRST=$(or $(FIRST),0) \
	  $(BIN)/pytest -q tests/simulation/test_recovery.py $(ARGS)

mutate: $(VENV)/.installed ## take each guard away in turn: a test must fail for it
	@$(BIN)/python tests/mutation/mutate.py $(ARGS)

docs: $(VENV)/.installed ## write the parts of docs/ that repeat the code
	@$(BIN)/python -m docs.generate

lint: $(VENV)/.installed ## check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.installed ## rewrite to the style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.installed ## measure runs over large ledgers; ARGS go to the benchmark
	@$(BIN)/python tests/bench/bench.py $(ARGS)

# Keeps the locked versions as long as pyproject.toml allows them; ARGS=--upgrade takes the newest.
# The widest lock comes first and constrains the others: what is shipped is what the tests ran on.
lock: ## pin pyproject.toml's dependencies again (needs uv)
	@command -v $(UV) >/dev/null || { echo 'make lock needs uv: pip install uv, or give its path with UV=…' >&2; exit 1; }
	$(COMPILE) pyproject.toml --extra embedded --extra notify --extra dev --group build --output-file requirements-dev.lock
	$(COMPILE) pyproject.toml --extra notify --constraint requirements-dev.lock --output-file requirements.lock
	$(COMPILE) --group build --constraint requirements-dev.lock --output-file requirements-build.lock

COMPILE = $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --annotation-style line \
  --no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(ARGS)

clean: ## remove .venv, built files and caches
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Recreated whenever the lock changes, so that no package outlives its line there.
$(VENV)/.installed: pyproject.toml requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'reconciler needs Python 3.11 or newer, and $(PYTHON) is older. Name a newer one, for example' >&2; \
	  echo '  make PYTHON=python3.12 $(or $(MAKECMDGOALS),demo)' >&2; exit 1; }
	@echo 'setting up $(VENV) (once, about a minute)…'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install -qq --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install -qq --no-deps --no-build-isolation --editable .
	@touch $@
