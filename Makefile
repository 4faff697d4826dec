# make demo      the main job on this machine, in half a minute
# make quick     unit tests, in a minute: while working
# make test      what everybody should see pass, in four: also real processes and programs, and the laboratory's short list
# make test-all  `make test`, and then `make test-exhaustive`: what it left out, all data paths and long waits
# make check     format, lint, types, `make test`
# make docs      the man page and fish's completions; make pictures: the pictures, from real runs
# make lab       the network laboratory: every router behaviour, as a table
# make bench     the tool beside its peers, in half an hour: docs/bench.*; PYTHONS='PATH ...' are other interpreters
# make counts    what a MiB, a connection and a message cost: calls and wake-ups, in two minutes
# make dist      wheel, sdist and punchtunnel.pyz in dist/, the same bytes each time: docs/PACKAGES.md
# make lock      requirements-dev.txt anew: versions and hashes of what development and CI install
# make fuzz      ten minutes of garbage for every decoder

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := punchtunnel tests bench docs release
# Tests wait for sockets more than they compute, so both cores get work.
PYTEST := $(BIN)/pytest -n 2 --dist worksteal

.PHONY: demo dist lock quick test test-exhaustive test-all check format lint types docs pictures man completions lab bench counts fuzz clean

# Exactly the files that requirements-dev.txt names by their hashes, also for the build of this package.
$(VENV)/ready: pyproject.toml requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

# The newest versions that pyproject.toml allows; needs uv.
lock:
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --upgrade --generate-hashes \
	  --no-emit-index-url --no-annotate --custom-compile-command 'make lock' --output-file requirements-dev.txt

demo: $(VENV)/ready
	$(BIN)/python bench/demo.py

# The tiers and their marks: tests/conftest.py.
quick: $(VENV)/ready
	$(PYTEST) -m "not played and not exhaustive"

test: $(VENV)/ready
	$(PYTEST) -m "not exhaustive"

test-exhaustive: $(VENV)/ready
	$(PYTEST) -m exhaustive

test-all: test
	$(MAKE) test-exhaustive

check: $(VENV)/ready lint types test

lint: $(VENV)/ready
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)

types: $(VENV)/ready
	$(BIN)/mypy
	$(BIN)/mypy docs/*.py docs/examples/*.py
	$(BIN)/mypy -p punchtunnel --platform darwin --no-warn-unreachable --cache-dir .mypy_cache/darwin

format: $(VENV)/ready
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

# What is printed by the tool or made from it; tests compare.
docs: completions man

# Real runs in the laboratory, so root is needed and each picture is a new one.
pictures: $(VENV)/ready
	$(BIN)/python -m tests.natlab.pictures --punch docs/punch.svg --session docs/session.svg

man: $(VENV)/ready
	$(BIN)/python docs/man.py > docs/punchtunnel.1

completions: $(VENV)/ready
	_PUNCHTUNNEL_COMPLETE=source_fish $(BIN)/punchtunnel | sed '/./,$$!d' > punchtunnel/cli/completions/punchtunnel.fish

# The published algorithm first: its failures are the point of the comparison.
lab: $(VENV)/ready
	mkdir -p build
	-$(BIN)/python -m tests.natlab --baseline --runs 3 --cells '^(?!.*minutes)' --json build/natlab-baseline.json
	$(BIN)/python -m tests.natlab --json build/natlab.json --beside build/natlab-baseline.json \
	  --svg docs/natlab.svg --text docs/natlab.txt

bench: $(VENV)/ready
	$(BIN)/python -m bench $(PYTHONS:%=--python %) \
	  --text docs/bench.txt --json docs/bench.json --svg docs/bench.svg --document docs/PERFORMANCE.md

counts: $(VENV)/ready
	$(BIN)/python -m bench.syscalls --document docs/PERFORMANCE.md

dist: $(VENV)/ready
	$(BIN)/python -m release

fuzz: $(VENV)/ready
	$(BIN)/python -m tests.fuzz --seconds 600

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
