# Everything a developer runs. `make` alone lists it. The work is done by the scripts in .ci/.

.DEFAULT_GOAL := help
.PHONY: help demo test lint fmt bench deps clean

help: ## list these targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 8

demo: ## build, start everything, stream an answer, keep serving (ONCE=1 ends by itself)
	@bash .ci/demo

test: ## everything that must hold: format, lints, docs, unit, integration, end to end
	@bash .ci/test

lint: ## format, clippy and docs, with warnings as errors
	@bash .ci/test lint

fmt: ## format the code
	@bash .ci/with cargo fmt

bench: ## the criterion benches
	@bash .ci/deps build
	@bash .ci/with cargo bench --locked --benches

deps: ## install what builds and tests need and is missing
	@bash .ci/deps

clean: ## remove what was built and installed; workspaces stay
	@bash .ci/with cargo clean
