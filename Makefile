# Everything one types here; `make` alone lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

TARGET := $(or $(CARGO_TARGET_DIR),target)

.PHONY: help demo demo-check up down test lint bench chaos clean-run

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: ## a phone's message all the way to a webhook; stays up, Ctrl-C stops all it started
	@started=$$(date +%s%3N) && deploy/local/build dev && \
	  RECADO_DEMO_STARTED=$$started exec $(TARGET)/debug/recado-demo

demo-check: ## the same, asserts each step, and exits
	@started=$$(date +%s%3N) && deploy/local/build dev && \
	  RECADO_DEMO_STARTED=$$started exec $(TARGET)/debug/recado-demo --check

up: ## the whole system in the background, addresses in .run/env (GATEWAYS=1 DISPATCHERS=1)
	@deploy/local/up

down: ## stop what `up` started; data, ports and token stay
	@deploy/local/down

test: ## all tests, against real servers and real processes
	@deploy/local/test

lint: ## format, clippy, licences and the other static checks
	@.ci/lint

bench: ## the figures, into target/bench/report.json
	@deploy/local/build release recado-bench
	@exec $(TARGET)/release/recado-bench

chaos: ## the fault cases on the release programs, all or CASE=name
	@deploy/local/build release recado-chaos
	@exec $(TARGET)/release/recado-chaos $(CASE)

clean-run: ## stop everything and delete .run: data, keys, logs
	@RECADO_RUN_DIR=.run deploy/local/down
	@for servers in .run/servers .run/*/servers; do \
		[[ ! -e $$servers ]] || RECADO_RUN_DIR=$${servers%/servers} deploy/local/servers reset; \
	done
	@rm -rf "$$(realpath -m .run/wheels)" .run
