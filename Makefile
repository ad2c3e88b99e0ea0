# `make demo` and `make test` need only this repository and python3 >= 3.11; see README.md.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := libs/contracts libs/messaging libs/database libs/stripe-emulator \
	services/usage-ingest services/stripe-reporter services/customer-provisioner deploy/local deploy/demo
UNIT_TESTS := $(addsuffix /tests,$(PACKAGES))
LOCK := $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links \
	--universal --python-version 3.11 --custom-compile-command "make lock"

export UV_PYTHON_DOWNLOADS := never

.PHONY: help
help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.venv/.ready: requirements/uv.txt requirements/dev.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	@echo "setup: installing pinned dependencies into .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --require-hashes -r requirements/uv.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip sync -q --require-hashes requirements/uv.txt requirements/dev.txt
	@VIRTUAL_ENV=.venv $(BIN)/uv pip install -q --no-deps --no-build-isolation $(addprefix -e ,$(PACKAGES))
	@touch $@

.PHONY: setup
setup: .venv/.ready ## Install everything this repository needs, under .venv

.PHONY: check
check: setup ## Lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy libs services deploy tests
	$(BIN)/lint-imports

.PHONY: format
format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: lock
lock: setup ## Pin the dependencies anew, with hashes
	$(LOCK) requirements/uv.in -o requirements/uv.txt
	$(LOCK) requirements/dev.in -o requirements/dev.txt
