# Everything a contributor types. `make help` lists it.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help venv demo kind-demo bench-diagnosis bench-tuning bench-placebo chaos test test-fast lint format generate verify cluster-up cluster-down images requirements clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CLUSTER ?= dev
LOCALCLUSTER := $(PYTHON) hack/localcluster
WORKERS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(WORKERS)

help: ## List what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  variables: CLUSTER=$(CLUSTER) (name for cluster-up/-down), KEEP=1 (demo keeps its cluster),'
	@echo '             TESTS=path and WORKERS=$(WORKERS) (for make test), BOTTLENECK_BINARIES=folder (ready Kubernetes binaries)'

demo: venv ## Show the main job on a real node of the built-in cluster (KEEP=1 keeps it)
	$(BIN)/python hack/demo $(if $(KEEP),--keep)

kind-demo: venv ## The same on kind, where Docker and kind exist
	$(BIN)/python hack/demo --provider kind $(if $(KEEP),--keep)

bench-diagnosis: venv ## Run the fault suite, real processes with a fault each (FAULTS=folder ONLY=cause SEEDS=1)
	$(BIN)/python -m hack.bench.diagnosis $(if $(FAULTS),--faults $(FAULTS)) $(if $(ONLY),--only $(ONLY)) $(if $(SEEDS),--seeds $(SEEDS))

bench-tuning: venv ## Compare what the operator makes of real workloads with their best configuration (ONLY=name SECONDS_EACH=4)
	$(BIN)/python -m hack.bench.tuning $(if $(ONLY),--only $(ONLY)) $(if $(SECONDS_EACH),--seconds $(SECONDS_EACH))

bench-placebo: venv ## Count wrong verdicts where nothing was done, on real and made series (EPISODES=40)
	$(BIN)/python -m hack.bench.placebo $(if $(EPISODES),--episodes $(EPISODES))

chaos: venv ## Do the operator harm, and check what it does then (SEED=1 ROUNDS=50, or ROUND=132 again)
	$(BIN)/python -m hack.chaos $(if $(SEED),--seed $(SEED)) $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(ROUND),--round $(ROUND))

# What the clusters are made of takes a new machine minutes; the tests that need none run meanwhile.
test: ## Lint, verify and run every test, those on the built-in cluster included
	@mkdir -p build
	@$(LOCALCLUSTER) binaries >build/binaries.log 2>&1 & binaries=$$!; \
	$(LOCALCLUSTER) images >build/images.log 2>&1 & images=$$!; \
	trap 'kill $$binaries $$images 2>/dev/null; wait' EXIT; \
	$(MAKE) --no-print-directory verify && $(PYTEST) $(or $(TESTS),tests)

test-fast: venv ## Only the tests that need no cluster
	$(PYTEST) -m "not cluster" $(or $(TESTS),tests)

lint: venv ## ruff, mypy (strict) and the import linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv ## Lay the code out
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

generate: venv ## Write what is generated from the code: CRDs, the pages of causes and of metrics
	$(BIN)/python -m bottleneck_operator.api.crd crds/
	$(BIN)/python -m bottleneck_operator.diagnose.docs docs/causes.md
	$(BIN)/python -m bottleneck_operator.observe.prometheus_docs docs/prometheus.md

verify: venv lint ## Lint, and fail where something generated differs from the code
	$(BIN)/python -m bottleneck_operator.api.crd crds/ --check
	$(BIN)/python -m bottleneck_operator.diagnose.docs docs/causes.md --check
	$(BIN)/python -m bottleneck_operator.observe.prometheus_docs docs/prometheus.md --check

cluster-up: ## Start the built-in cluster and print the KUBECONFIG to use
	@$(LOCALCLUSTER) up --name $(CLUSTER)

cluster-down: ## Stop the built-in cluster; nothing is left behind
	@$(LOCALCLUSTER) down --name $(CLUSTER)

images: ## Build the images (cached by content)
	@$(LOCALCLUSTER) images

requirements: venv ## Pin the requirements anew, with hashes and without addresses
	hack/pin-requirements.sh

venv: $(VENV)/.ready

# The folder is ready when it holds what the pinned files say; an interrupted install starts over.
$(VENV)/.ready: requirements/bootstrap.txt requirements/dev.txt pyproject.toml sidecar/pyproject.toml
	@echo "Installing the development environment into $(VENV) (PyTorch alone is 5 GB; about a minute)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/bootstrap.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip sync --quiet --require-hashes requirements/dev.txt requirements/bootstrap.txt
	@VIRTUAL_ENV=$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation -e sidecar -e .
	@touch $@

clean: ## Remove what was built here (not the caches outside the tree)
	rm -rf build $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
