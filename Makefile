# `make demo` and `make test` need only this repository and python3 >= 3.11; see README.md.
SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
PACKAGES := libs/contracts libs/messaging libs/database libs/service libs/broker-admin libs/outbox \
	libs/plans libs/publisher libs/stripe-answers libs/stripe-emulator \
	services/usage-ingest services/stripe-reporter services/customer-provisioner deploy/local deploy/demo deploy/chaos \
	deploy/grafana
TYPESCRIPT := libs/publisher-typescript libs/usage-component
TESTS := $(addsuffix /tests,$(filter-out deploy/demo,$(PACKAGES)) $(TYPESCRIPT)) tests
# The local stack's, the emulator's and the TypeScript packages' own tests run servers.
UNIT_TESTS := $(filter-out libs/stripe-emulator/% deploy/% $(addsuffix /%,$(TYPESCRIPT)) tests,$(TESTS))
# Node of .venv, also for the programs that npm starts. A package's folder follows.
NPM := PATH="$(CURDIR)/$(BIN):$$PATH" npm --silent --prefix
LOCK := $(BIN)/uv pip compile -q --generate-hashes --no-emit-index-url --no-emit-find-links \
	--universal --python-version 3.11 --custom-compile-command "make lock"

# Test processes at once, each with servers of its own; most of their time is spent waiting.
JOBS ?= 4

export UV_PYTHON_DOWNLOADS := never

.PHONY: help
help: ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

# Bytecode is compiled here, since a machine may be set up to write none (PYTHONDONTWRITEBYTECODE):
# each of the many processes that tests start would then compile a thousand modules.
.venv/.ready: requirements/uv.txt requirements/dev.txt $(addsuffix /pyproject.toml,$(PACKAGES))
	@echo "setup: installing pinned dependencies into .venv"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install -q --require-hashes -r requirements/uv.txt
	@export VIRTUAL_ENV=.venv cache="$$($(BIN)/uv cache dir)"; \
	{ mkdir -p "$$cache" && test -w "$$cache"; } 2>/dev/null || export UV_NO_CACHE=1; \
	$(BIN)/uv pip sync -q --require-hashes --compile-bytecode requirements/uv.txt requirements/dev.txt && \
	$(BIN)/uv pip install -q --no-deps --no-build-isolation $(addprefix -e ,$(PACKAGES))
	@$(BIN)/python -m compileall -q $(addsuffix /src,$(PACKAGES))
	@touch $@

.PHONY: setup
setup: .venv/.ready ## Install everything this repository needs, under .venv

# npm writes this file last.
NODE_MODULES := $(addsuffix /node_modules/.package-lock.json,$(TYPESCRIPT))
$(NODE_MODULES): %/node_modules/.package-lock.json: %/package-lock.json .venv/.ready
	@echo "setup: installing what $* is built with"
	@$(NPM) $* ci --ignore-scripts --prefer-offline
	@touch $@

.PHONY: setup-node
setup-node: $(NODE_MODULES) ## Install what the TypeScript packages need

.PHONY: component
component: setup-node ## Build <nexus-usage> and its demo page into libs/usage-component/dist
	@$(NPM) libs/usage-component run build

.PHONY: check
check: setup setup-node ## Lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(addsuffix /src,$(PACKAGES)) benchmarks docs/generate.py docs/examples \
		requirements/audit.py
	@set -e; for tests in $(TESTS); do echo "$(BIN)/mypy $$tests"; $(BIN)/mypy $$tests; done
	$(BIN)/lint-imports
	PYTHONPATH=tests $(BIN)/python docs/generate.py --check
	$(BIN)/python -m nexus_contracts.schemas --check libs/contracts/schemas
	$(BIN)/python -m nexus_plans --check
	$(BIN)/python -m nexus_contracts.releases check
	$(NPM) libs/publisher-typescript run types -- --check
	set -e; for package in $(TYPESCRIPT); do $(NPM) $$package run check; done
	$(BIN)/hadolint --failure-threshold warning deploy/docker/*.Dockerfile \
		deploy/docker/stand-ins/*.Dockerfile
	$(BIN)/yamllint --strict docker-compose.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	if docker compose version >/dev/null 2>&1; then docker compose config -q; fi
	$(BIN)/shellcheck --severity warning deploy/bare/*.sh deploy/docker/*.sh deploy/docker/*/*.sh
	@$(BIN)/python requirements/audit.py --if-answered

.PHONY: audit
audit: setup ## Ask an advisory database about every dependency of the images
	@$(BIN)/python requirements/audit.py

.PHONY: docs
docs: setup setup-node ## Write the pages that are made from the code
	PYTHONPATH=tests $(BIN)/python docs/generate.py
	$(BIN)/python -m nexus_contracts.schemas --write libs/contracts/schemas
	$(BIN)/python -m nexus_plans --write
	$(NPM) libs/publisher-typescript run types

.PHONY: format
format: setup ## Format the code and mend what ruff can mend
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

.PHONY: lock
lock: setup ## Pin the dependencies anew, with hashes
	$(LOCK) requirements/uv.in -o requirements/uv.txt
	$(LOCK) requirements/dev.in -o requirements/dev.txt
	$(LOCK) requirements/runtime.in -o requirements/runtime.txt
	$(LOCK) requirements/build.in -o requirements/build.txt
	$(LOCK) benchmarks/requirements.in -o benchmarks/requirements.txt

# The stack runs without the usage page where it can't be built, as without a registry.
.PHONY: up
up: setup ## Start the whole stack in the background and say what is where; PLANS=plans.yaml: by your plans
	@mkdir -p .local
	@$(MAKE) -s component >.local/component.log 2>&1 || echo "up: can't build the usage page, see .local/component.log"
	@$(BIN)/local-stack up --component libs/usage-component/dist $(if $(PLANS),--plans $(PLANS))

.PHONY: down
down: setup ## Stop what `make up` started
	@$(BIN)/local-stack down

.PHONY: demo
demo: setup ## Run the main job on the real parts, with trouble, and count every tool run
	@$(BIN)/metering-demo --stack $(or $(STACK),local)

.PHONY: chaos
chaos: setup ## Random faults under load, counted to the money; CHAOS="--events 500 --faults 8" for less
	@$(BIN)/metering-chaos $(CHAOS)

# Celery, Dramatiq and what they need, apart from the project's own environment.
benchmarks/.venv/.ready: benchmarks/requirements.txt .venv/.ready
	@echo "setup: installing the benchmark's peers into benchmarks/.venv"
	@$(PYTHON) -m venv --without-pip benchmarks/.venv
	@export VIRTUAL_ENV=benchmarks/.venv cache="$$($(BIN)/uv cache dir)"; \
	{ mkdir -p "$$cache" && test -w "$$cache"; } 2>/dev/null || export UV_NO_CACHE=1; \
	$(BIN)/uv pip sync -q --require-hashes --compile-bytecode benchmarks/requirements.txt
	@touch $@

.PHONY: setup-peers
setup-peers: benchmarks/.venv/.ready ## Install what the benchmark compares usage-ingest with

.PHONY: bench
bench: setup setup-peers ## Recording compared with Celery and others, in 15 minutes; BENCH="--rounds 1 --share 0.1" for less
	@PYTHONPATH=tests $(BIN)/python benchmarks/recording.py $(BENCH)

.PHONY: test-unit
test-unit: setup ## Tests without broker and database (seconds)
	$(BIN)/pytest -q --disable-socket --allow-unix-socket $(wildcard $(UNIT_TESTS))

.PHONY: test
test: setup setup-node ## All tests but the long ones, on a real broker and a real database (minutes)
	env -u STRIPE_SECRET_KEY $(BIN)/pytest -q -m "not long" -n $(JOBS) --dist loadfile $(TESTS)

.PHONY: test-long
test-long: setup setup-node ## The long tests, and what crosses a service once more on RabbitMQ 4
	@$(MAKE) -s setup-peers || echo "test-long: recording is compared without Celery and Dramatiq"
	env -u STRIPE_SECRET_KEY $(BIN)/pytest -q -m long --timeout 600 -n 2 --dist loadfile $(TESTS)
	env -u STRIPE_SECRET_KEY NEXUS_TEST_RABBITMQ=4 $(BIN)/pytest -q -m "not long" \
		-n $(JOBS) --dist loadfile tests/integration tests/e2e
	NEXUS_TEST_RABBITMQ=4 $(BIN)/pytest -q -m long --timeout 600 tests/browser

.PHONY: test-private
test-private: ## A part of the tests and the demo in a clone that only its owner may enter
	deploy/bare/private.sh

.PHONY: test-bare
test-bare: ## The README's commands on a bare Debian 12 (as root, with mmdebstrap): BARE="demo test"
	deploy/bare/run.sh $(BARE)

.PHONY: test-stripe
test-stripe: setup ## The emulator's contract suite against Stripe's sandbox: STRIPE_SECRET_KEY=sk_test_...
	@test -n "$$STRIPE_SECRET_KEY" || { echo "test-stripe: set STRIPE_SECRET_KEY=sk_test_..."; exit 2; }
	$(BIN)/pytest -q libs/stripe-emulator/tests/contract
