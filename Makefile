# Each target installs what it needs: `make demo` and `make test` work in a fresh clone. See `make help`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:
.DELETE_ON_ERROR:

BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
ARGS ?=
WORKERS ?= 4
UV ?= uv
UPGRADE ?= --upgrade
LOCK := $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --no-header --python-version 3.11

.PHONY: help demo browser test lint ci conformance dbt engines faults chaos audit dist image sbom soak bench lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile

demo: .venv/.runtime ## run everything with nothing to set up; ARGS="--port 8080 --once"
	@exec $(BIN)/flow-outcomes demo $(ARGS)

lint: .venv/.dev ## check style, types and import contracts
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## run lint and every test; ARGS="-k name" for some
	$(BIN)/python -m pytest -m "alone" $(ARGS) || [ $$? -eq 5 ]
	$(BIN)/python -m pytest -n $(WORKERS) -m "not (alone or chaos or engines or image or soak) and (short or not faults)" $(ARGS)

browser: .venv/.browser ## test the page in chromium, which must be installed
	@command -v chromium || command -v chromium-browser || command -v google-chrome || { \
	  echo "make browser needs chromium: on Debian, apt-get install chromium" >&2; exit 1; }
	$(BIN)/python -m pytest tests/browser $(ARGS)

ci: .venv/.browser test ## run what the build runs: make test, with the driver of the browser tests

conformance: .venv/.dev ## test the simulator with the official SDK, and our requests against its models
	$(PIP) install --no-build-isolation --editable ".[conformance]"
	$(BIN)/python -m pytest tests/conformance $(ARGS)

dbt: .venv/.dev .venv/.dbt ## build and test the dbt package against a stored history
	$(BIN)/python -m pytest tests/deployment/test_dbt.py $(ARGS)

engines: .venv/.dev .venv/.daft .venv/.spark ## read an export with distributed engines; FLOW_OUTCOMES_ENGINE_ROWS=20000000
	$(BIN)/python -m pytest -rs -s tests/engines $(ARGS)

faults: .venv/.dev ## inject every fault of the database and the processes
	$(BIN)/python -m pytest -n $(WORKERS) -m faults $(ARGS)

chaos: .venv/.dev ## kill processes at random moments and check the tables
	$(BIN)/python -m pytest -m chaos $(ARGS)

image: .venv/.dev ## build the image with buildah and run it, and its steps without; BASE=localhost/python for another base
	$(BIN)/python -m pytest -rs -m image $(ARGS)

audit: .venv/.runtime ## check the lock for known vulnerabilities; needs the network
	@test -x .venv/audit/bin/pip-audit || { $(BIN)/python -m venv .venv/audit && \
	  .venv/audit/bin/python -m pip --disable-pip-version-check --quiet install pip-audit; }
	@.venv/audit/bin/pip-audit --strict --require-hashes --disable-pip --requirement requirements.txt $(ARGS) || { \
	  echo "make audit: a package above has a known vulnerability, or could not be looked up, as behind a mirror" >&2; \
	  echo "without advisories. For the latter: make audit ARGS='--vulnerability-service osv', or where PyPI can" >&2; \
	  echo "be reached: pip-audit --strict --require-hashes --disable-pip --requirement requirements.txt" >&2; exit 1; }

dist: .venv/.runtime ## build the wheel and the source distribution into dist
	$(BIN)/python -m hatchling build --target sdist --target wheel --directory dist

sbom: .venv/.dev ## write the image's bill of materials (CycloneDX) from the lock
	@mkdir -p dist
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-format JSON \
	  --output-file dist/sbom.cdx.json requirements.txt

soak: .venv/.dev ## run for hours and watch the memory
	$(BIN)/python -m pytest -m soak $(ARGS)

bench: .venv/.dev .venv/.peers ## compare with the alternatives; ARGS="end_to_end --rounds 5" for one benchmark
	$(BIN)/python -m benchmarks $(ARGS)

lock: ## resolve the dependencies again, with hashes; UPGRADE= keeps the versions that still fit
	@command -v $(UV) > /dev/null || { echo "make lock needs uv: https://docs.astral.sh/uv" >&2; exit 1; }
	$(LOCK) $(UPGRADE) --extra build --extra dev pyproject.toml --output-file requirements-dev.txt
	$(LOCK) --constraints requirements-dev.txt --extra otel pyproject.toml --output-file requirements.txt
	$(LOCK) --constraints requirements-dev.txt --extra browser pyproject.toml --output-file requirements-browser.txt
	$(LOCK) --constraints requirements-dev.txt --extra export --extra otel pyproject.toml --output-file requirements-export.txt
	echo hatchling | $(LOCK) --constraints requirements-dev.txt - --output-file requirements-build.txt

clean: ## remove what make created, including the demo's data
	rm -rf .venv .demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -prune -exec rm -rf {} +

# Install only what the lock names, checked by hash, including the build backend.
.venv/.dev: .venv/.runtime requirements-dev.txt
	$(PIP) install --require-hashes --requirement requirements-dev.txt
	@touch $@

.venv/.browser: .venv/.dev requirements-browser.txt
	$(PIP) install --require-hashes --requirement requirements-browser.txt
	@touch $@

# The alternatives that `make bench` compares with get their own venv, to keep their dependencies out of ours.
.venv/.peers: .venv/.made pyproject.toml
	$(BIN)/python -m venv .venv/peers
	.venv/peers/bin/python -m pip --disable-pip-version-check --quiet install ".[peers]"
	@touch $@

# dbt gets its own venv too.
.venv/.dbt: .venv/.made pyproject.toml
	$(BIN)/python -m venv .venv/dbt
	.venv/dbt/bin/python -m pip --disable-pip-version-check --quiet install ".[dbt]"
	@touch $@

# Each engine gets its own venv too.
.venv/.daft .venv/.spark: .venv/.%: .venv/.made pyproject.toml
	$(BIN)/python -m venv .venv/$*
	.venv/$*/bin/python -m pip --disable-pip-version-check --quiet install ".[$*]"
	@touch $@

.venv/.runtime: .venv/.made requirements.txt requirements-build.txt pyproject.toml
	$(PIP) install --require-hashes --requirement requirements.txt --requirement requirements-build.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.made:
	@for python in $${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do \
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null; then break; fi; \
	  python=; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11 or newer is required: set PYTHON=/path/to/python3" >&2; exit 1; \
	fi; \
	if ! "$$python" -c 'import ensurepip' 2> /dev/null; then \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qqy python3-venv; } > /dev/null; \
	  fi; \
	  "$$python" -c 'import ensurepip' 2> /dev/null || { \
	    echo "$$python cannot create a venv without ensurepip: on Debian, apt-get install python3-venv" >&2; exit 1; }; \
	fi; \
	$(BIN)/python -m pip --version > /dev/null 2>&1 || "$$python" -m venv --clear .venv
	@touch $@
