SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
PACKAGES := proto libs/wire libs/runtime libs/store_client services/balancer services/worker services/store cluster
INSTALLED := $(VENV)/installed

CONTROLLER ?= examples/hello/controller.py
PORT ?= 8000
CORES := $(shell nproc)

# It uses every core, and has cases that give a server a second.
ALONE := tests/conformance/test_autobahn.py

# An option of `make run` that is not given is left to the launcher's default.
RUN_OPTIONS = --port $(PORT) $(if $(WORKERS),--workers $(WORKERS)) $(if $(STORES),--stores $(STORES)) \
	$(if $(BALANCERS),--balancers $(BALANCERS)) $(OPTIONS)

.PHONY: help install run up down test coverage test-networks lint types format options proto proto-check hooks dist clean fuzz history conformance bench bench-smoke bench-store bench-attack bench-balancer

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## Install everything into .venv, pinned (PYTHON=python3.12 chooses one)

$(INSTALLED): $(wildcard requirements/*.txt) $(PACKAGES:%=%/pyproject.toml)
	@PYTHON="$(PYTHON)" scripts/install $(VENV) $(PACKAGES)
	@touch $@

run: install ## Run the cluster as local processes (PORT= WORKERS= STORES= BALANCERS= CONTROLLER= OPTIONS="--host 0.0.0.0")
	@exec $(BIN)/socketcluster run "$(CONTROLLER)" $(RUN_OPTIONS)

up: ## Run the cluster in containers, a worker a core (PORT= WORKERS=)
	@SOCKETCLUSTER_PORT=$(PORT) exec docker compose up --build --scale worker=$(or $(WORKERS),$(CORES))

down: ## Remove the containers; the data stays in its volume
	docker compose down

# CI measures what the tests of units and of clusters cover, and so does `make coverage`.
COVERAGE ?= $(CI)
MEASURED := build/coverage
MEASURE := $(if $(COVERAGE),$(BIN)/coverage run -m pytest,$(BIN)/pytest)

test: install ## Lint, types, and every test that this machine allows; CI=true: a test that it does not allow is a failure
	@scripts/test-requirements & $(MAKE) lint types; wait $$!
	@scripts/test-node
	@rm -rf $(MEASURED); mkdir -p $(MEASURED); failed=0; $(BIN)/pytest $(ALONE) || failed=1; \
	  $(BIN)/pytest tests --ignore=tests/unit --ignore=tests/cluster --ignore=$(ALONE) -n 2 --dist loadfile || failed=1; \
	  $(MEASURE) tests/cluster -n 2 --dist loadfile || failed=1; \
	  $(MEASURE) tests/unit -n $(CORES) --dist worksteal || failed=1; \
	  $(if $(COVERAGE),scripts/coverage-report $(BIN)/coverage $(MEASURED) || failed=1;) exit $$failed

coverage: ## The same; too few branches covered by the tests of units and clusters is a failure, as in CI
	@$(MAKE) test COVERAGE=true

test-networks: install ## The browser client in bad networks at length, in Chromium and in Node (45 minutes; SEED= SEEDS= SITUATIONS="'half-open' cuts")
	@PYTHONPATH=tests $(BIN)/python -m networks $(or $(SEED),$$RANDOM) $(or $(SEEDS),10) $(SITUATIONS)

conformance: install ## The conformance tests with all cases of the Autobahn suite, twice those with compression (25 minutes)
	@AUTOBAHN_ALL=1 $(BIN)/pytest tests/conformance

history: install ## Look for what the store loses or doubles under faults (SEED= SEEDS= SECONDS= ENGINE=)
	@GRPC_VERBOSITY=NONE GRPC_ENABLE_FORK_SUPPORT=0 PYTHONPATH=tests $(BIN)/python -m history \
	  $(or $(SEED),$$RANDOM) $(or $(SECONDS),60) $(or $(ENGINE),lmdb) $(or $(SEEDS),1)

lint: install proto-check ## Check style, and that the committed gRPC stubs are fresh
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check . || { $(BIN)/ruff format --check .; exit 1; }

hooks: install ## Have git run lint before each commit, and look at its subject
	@$(BIN)/pre-commit install

types: install ## Check types
	@$(BIN)/mypy $(PACKAGES) tests bench scripts/write_options.py

format: install ## Format the code and mend what the linter can
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .

options: install ## Write the types of SocketCluster's options again, from the settings classes
	@$(BIN)/python scripts/write_options.py cluster/socketcluster/options.py

proto: install ## Make the gRPC stubs again from proto/
	@scripts/proto $(BIN)/python proto

proto-check: install ## Check that the committed gRPC stubs are fresh
	@scripts/proto-check $(BIN)/python

bench: ## This server beside its peers, to bench/report.md (75 minutes; OPTIONS="--works acknowledge,connect --rounds 3")
	@scripts/bench $(OPTIONS)

bench-smoke: install ## Every work of `make bench` with tiny numbers, to see that all of it works
	@GRPC_VERBOSITY=NONE GRPC_ENABLE_FORK_SUPPORT=0 PYTHONPATH=tests $(BIN)/python -m bench --smoke --report build/bench/report.md $(OPTIONS)

bench-store: install ## What the store costs, beside redis-server (5 minutes; OPTIONS="--seconds 2 --sessions 100000")
	@GRPC_VERBOSITY=NONE GRPC_ENABLE_FORK_SUPPORT=0 $(BIN)/python -m bench.store $(OPTIONS)

bench-attack: install ## What attacks and floods cost other clients (5 minutes; OPTIONS="--rounds 5")
	@GRPC_VERBOSITY=NONE $(BIN)/python -m bench.attack $(OPTIONS)

bench-balancer: install ## What a client costs the balancer, beside HAProxy if it is installed (6 minutes; OPTIONS="--clients 1000")
	@GRPC_VERBOSITY=NONE GRPC_ENABLE_FORK_SUPPORT=0 PYTHONPATH=tests $(BIN)/python -m bench.balancer $(OPTIONS)

dist: install ## Build a wheel of each distribution into dist/
	@scripts/dist $(BIN)/python dist $(PACKAGES)
	@ls dist

clean: ## Remove what was installed and cached; data and secrets stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist clients/js/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

fuzz: install ## Fuzz every decoder for long (FUZZ_SECONDS= each, 300)
	@export PYTHONPATH=tests; for target in $$($(BIN)/python -c "from fuzz.targets import TARGETS; print(*TARGETS)"); do \
	  mkdir -p build/fuzz/$$target; echo "== $$target"; \
	  $(BIN)/python tests/fuzz/run_atheris.py $$target -max_total_time=$(or $(FUZZ_SECONDS),300) -max_len=4096 -timeout=10 \
	    -artifact_prefix=build/fuzz/ build/fuzz/$$target 2>&1 | grep -E "^(Done|ERROR|==|SUMMARY)|Error|artifact" ; done
