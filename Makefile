# From a fresh clone with git, make and a Python 3.11, 3.12 or 3.13: `make quickstart` or `make test`, nothing before it.
# `make` alone lists the targets.

PYTHON :=#              interpreter of the environment: a path, a name or a version; empty chooses
EXTRA :=#               an extra of pyproject.toml to install too, as in EXTRA=cuda; remembered
VENV := .venv#          folder of the environment
RUN := runs/quickstart# folder of the quickstart's run
PRETRAIN :=#            further settings of its pretraining, as in PRETRAIN="--train.steps 50"
TESTS :=#               tests to run, as in TESTS="tests/commands/test_cli.py -x"; empty runs all
PINS :=#                further options of uv's, as in PINS=--upgrade

BIN := $(VENV)/bin/python
STAMP := $(VENV)/installed
# An environment whose interpreter has left the machine, or that another Python or extra is asked of, is seen to.
STALE := $(shell [ -z "$(PYTHON)$(EXTRA)" ] && $(BIN) -c '' >/dev/null 2>&1 || echo stale)
JOURNEY := --config quickstart --run-dir $(RUN)
CHINCHILLA := $(BIN) -u -m chinchilla_jax

.PHONY: help env test quickstart lint format docs pins clean stale
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

env: $(STAMP) ## the environment; PYTHON=3.13 or a path chooses the interpreter, EXTRA=cuda adds an extra
	@echo "environment: $(VENV) is complete; \`. $(VENV)/bin/activate\` puts it first on the PATH"

$(STAMP): requirements.txt $(STALE)
	@VENV="$(VENV)" PYTHON="$(PYTHON)" EXTRA="$(EXTRA)" sh tools/env.sh

test: $(STAMP) ## the whole test suite; TESTS="tests/commands/test_cli.py" runs a part
	$(BIN) -m pytest -n logical --maxprocesses 8 --max-worker-restart 0 --dist loadfile --no-loadscope-reorder $(TESTS)

quickstart: $(STAMP) ## prepare, pretrain, evaluate, generate and report on Shakespeare; again continues
	$(CHINCHILLA) prepare $(JOURNEY)
	$(CHINCHILLA) pretrain $(JOURNEY) $(PRETRAIN)
	$(CHINCHILLA) evaluate --run-dir $(RUN)
	$(CHINCHILLA) generate --run-dir $(RUN)
	$(CHINCHILLA) report --run-dir $(RUN)

lint: $(STAMP) ## ruff: rules and format
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .

format: $(STAMP) ## let ruff correct and format the code
	$(BIN) -m ruff check --fix .
	$(BIN) -m ruff format .

docs: $(STAMP) ## the documentation as a site in build/site
	@grep -qx docs $(VENV)/extras || VENV="$(VENV)" EXTRA=docs sh tools/env.sh
	$(BIN) -m mkdocs build

pins: $(STAMP) ## requirements.txt after a change to pyproject.toml; PINS=--upgrade takes the newest versions
	$(VENV)/bin/uv pip compile --universal --generate-hashes --python-version 3.11 --extra train --extra serve --extra dev \
		--no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make pins" \
		-o requirements.txt pyproject.toml --quiet $(PINS)

clean: ## remove the environment and the caches; data and runs stay
	if [ -f $(STAMP) ]; then rm -rf $(VENV)/* $(VENV); fi
	rm -rf .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find chinchilla_jax tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
