# From a fresh clone with git, make and a Python 3.11, 3.12 or 3.13: `make quickstart` or `make test`, nothing before it.
# `make` alone lists the targets.

PYTHON :=#              interpreter of the environment: a path, a name or a version; empty chooses
RUN := runs/quickstart# folder of the quickstart's run
PRETRAIN :=#            further settings of its pretraining, as in PRETRAIN="--train.steps 50"
TESTS :=#               tests to run, as in TESTS="tests/test_cli.py -x"; empty runs all

BIN := .venv/bin/python
STAMP := .venv/installed$(if $(PYTHON),-$(subst /,_,$(PYTHON)))
# An environment whose interpreter has left the machine is built anew.
STALE := $(shell [ ! -d .venv ] || $(BIN) -c '' >/dev/null 2>&1 || echo stale)
JOURNEY := --config configs/quickstart.py --run-dir $(RUN)
CHINCHILLA := $(BIN) -u -m chinchilla_jax

.PHONY: help env test quickstart lint format pins clean stale
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' Makefile

env: $(STAMP) ## the environment in .venv; PYTHON=/path/to/python3.12 (or 3.13) chooses the interpreter
	@echo "environment: .venv is complete; \`. .venv/bin/activate\` puts it first on the PATH"

$(STAMP): requirements.txt $(STALE)
	@python=$$(sh tools/find_python.sh --use "$(PYTHON)") && "$$python" tools/env.py $(notdir $(STAMP))

test: $(STAMP) ## the whole test suite; TESTS="tests/test_cli.py" runs a part
	$(BIN) -m pytest -n logical --maxprocesses 8 --max-worker-restart 0 --dist loadfile $(TESTS)

quickstart: $(STAMP) ## prepare, pretrain, evaluate, generate and report on Shakespeare; again continues
	$(CHINCHILLA) prepare $(JOURNEY)
	$(CHINCHILLA) pretrain $(JOURNEY) $(PRETRAIN)
	$(CHINCHILLA) evaluate --run-dir $(RUN)
	$(CHINCHILLA) generate --run-dir $(RUN)
	$(CHINCHILLA) report --run-dir $(RUN)

lint: $(STAMP) ## ruff: rules and format
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .

format: $(STAMP) ## let ruff mend and format the code
	$(BIN) -m ruff check --fix .
	$(BIN) -m ruff format .

pins: ## write requirements.txt anew; needs a Python 3.11, 3.12 and 3.13
	@python=$$(sh tools/find_python.sh --use "$(PYTHON)") && "$$python" tools/pin.py

clean: ## remove the environment and the caches; data and runs stay
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build *.egg-info
	find chinchilla_jax tests tools configs -name __pycache__ -type d -prune -exec rm -rf {} +
