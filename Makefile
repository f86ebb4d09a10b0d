# Two commands matter: `make serve` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Without a GPU Triton's kernels run through its interpreter, which it must know before it is imported.
ifeq ($(wildcard /dev/nvidiactl),)
export TRITON_INTERPRET := 1
endif

.DEFAULT_GOAL := help
UI := admin-ui/dist/index.html
UI_SOURCES := $(shell find admin-ui \( -name node_modules -o -name dist \) -prune -o -type f -print)

.PHONY: help setup serve test lint ui ui-test screenshots bench bench-peers gpu soak simulate chaos demo-model clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*##/\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	@echo "tenantry: making the environment in $(VENV) (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --progress-bar on --disable-pip-version-check torch==2.13.0
	@$(BIN)/pip install --progress-bar on --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

setup: $(STAMP) ## make the environment from pinned versions

# Without Node and without a way to it the server still serves, and /admin says what is missing.
$(UI): $(UI_SOURCES) | $(STAMP)
	@echo "tenantry: building the console"
	@admin-ui/build.sh "$(CURDIR)/$(BIN)" || echo "tenantry: the console could not be built; everything else works"

ui: $(UI) ## build the console into admin-ui/dist, which the gateway serves at /admin

serve: $(STAMP) $(UI) ## serve the demo: two tenants, their adapters, keys and curl lines
	@exec $(BIN)/tenantry serve --demo

lint: $(STAMP) ## ruff, strict types, import contracts
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@PYTHONPATH=.src $(BIN)/lint-imports

test: lint ## the whole suite
	@$(BIN)/python -m pytest -m "not soak and not chaos and not gpu and not ui"

ui-test: $(UI) ## the console: types, lint, logic, and a real browser against a real server (needs chromium)
	@cd admin-ui && PATH="$$PATH:$(CURDIR)/$(BIN)" npm run --silent lint && PATH="$$PATH:$(CURDIR)/$(BIN)" npm run --silent test
	@$(BIN)/python -c "import playwright" 2>/dev/null || $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[ui]'
	@$(BIN)/python -m pytest -m ui tests/ui

screenshots: $(UI) ## the console's pages into docs/screenshots, from the demo after real traffic
	@$(BIN)/python -c "import playwright" 2>/dev/null || $(BIN)/pip install -q --disable-pip-version-check -c constraints.txt -e '.[ui]'
	@PYTHONPATH=.src $(BIN)/python -m tests.ui.screenshots

bench: $(STAMP) ## every benchmark, each beside its floor and its peers (BENCH="--quick", ...)
	@$(BIN)/python -m benchmarks.run $(BENCH)

bench-peers: $(STAMP) ## duels with vLLM and llama.cpp, installed into PEERS, a folder outside of here
	@test -n "$(PEERS)" || { echo "make bench-peers PEERS=/a/folder"; exit 2; }
	@$(BIN)/python -m benchmarks.peers_install $(PEERS) || echo "tenantry: going on without those that failed"
	@$(BIN)/python -m benchmarks.run --only base --duels --no-peers --peers-dir $(PEERS) $(BENCH)

# On an image that has torch and Triton already: make -o .venv/.installed gpu BIN=/the/folder/of/its/python
gpu: $(STAMP) ## compile all of Triton, then kernel tests and benchmarks on a CUDA device (interpreted without one)
	@env -u TRITON_INTERPRET PYTHONPATH=.src $(BIN)/python -m benchmarks.gpu.compile
	@$(BIN)/python -m pytest --confcutdir=tests/kernels tests/kernels
	@PYTHONPATH=.src $(BIN)/python -m benchmarks.gpu $(GPU)

soak: $(STAMP) ## long simulations
	@$(BIN)/python -m pytest -m soak

simulate: $(STAMP) ## a million simulated steps of the scheduler on all cores (SEED=0 begins)
	@PYTHONPATH=.src $(BIN)/python -m tests.scheduling.swarm $(or $(SEED),0) 1000 --seeds 1000 --processes $$(nproc)

chaos: $(STAMP) ## long kill -9 campaigns
	@$(BIN)/python -m pytest -m chaos

demo-model: $(STAMP) ## retrain the demo's base, draft model and adapters
	@$(BIN)/python examples/demo/make_demo.py

clean: ## remove the environment and local data
	rm -rf $(VENV) .data
