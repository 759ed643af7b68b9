# The recipes of the project; CI calls the same ones. `make` alone lists them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON := .venv/bin/python

.PHONY: help setup demo test check format generate cluster cluster-down faults

help: ## list the recipes
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## both Python environments and the Debian packages they need
	@bash scripts/setup.sh

demo: setup ## the main job end to end on a Kubernetes of its own: install, apply, ask, load, scale up and down
	@$(PYTHON) -m tests.e2e.demo

test: setup ## all tests, real Kubernetes, Ray and SGLang among them
	@bash scripts/test.sh

check: setup ## format, lint, strict types, import contracts, generated files, chart
	@bash scripts/check.sh

format: setup ## let ruff format and fix what it can
	@.venv/bin/ruff format . && .venv/bin/ruff check --fix .

generate: setup ## write the generated files anew (CRD, tables of the docs)
	@bash scripts/generate.sh

faults: setup ## every kind of fault under users who never pause; about an hour, and docs/faults.md anew (FAULTS_ARGS)
	@$(PYTHON) -m tests.campaigns.faults --write $(FAULTS_ARGS)

cluster: setup ## leave a local Kubernetes running in the background and print how to use it
	@bash scripts/cluster.sh $(CLUSTER_ARGS)

cluster-down: ## end the cluster of `make cluster`
	@$(PYTHON) -m tests.cluster down
