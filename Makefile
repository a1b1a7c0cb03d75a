# Each target does all of its own set-up, in .venv. Needed: python3 (3.11 or newer) with venv, make,
# and, where there is one, a C compiler with Python.h: without it shmconf works in pure Python.
#
#   make test PYTHON=python3.13 ARGS="tests/unit -k merge"      CC=/bin/false make test (no native module)

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.SUFFIXES:
.DELETE_ON_ERROR:

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

.PHONY: demo
demo: $(VENV)/.agent ## the main job on a sample: edit a file, see it arrive in running workers
	@$(BIN)/shmconf demo $(ARGS)

.PHONY: test
test: $(VENV)/.dev ## all tests (ARGS="..." goes to pytest)
	@$(BIN)/python -m pytest $(ARGS)

STRESS_SECONDS ?= 600

.PHONY: stress
stress: $(VENV)/.dev ## readers and writers under stress, for STRESS_SECONDS (600)
	@STRESS_SECONDS=$(STRESS_SECONDS) $(BIN)/python -m pytest -o faulthandler_timeout=0 tests/system/test_stress.py $(ARGS)

SOAK_SECONDS ?= 600

.PHONY: soak
soak: $(VENV)/.dev ## a hundred files under random edits and faults, for SOAK_SECONDS (600)
	@SOAK_SECONDS=$(SOAK_SECONDS) $(BIN)/python -m pytest -o faulthandler_timeout=0 tests/soak $(ARGS)

FUZZ_SECONDS ?= 600

.PHONY: fuzz
fuzz: $(VENV)/.python ## hostile segments for the C reader, for FUZZ_SECONDS (600); needs clang
	@$(BIN)/python tests/fuzz/run.py $(FUZZ_SECONDS)

.PHONY: fuzz-text
fuzz-text: $(VENV)/.dev ## hostile texts for the formats, for FUZZ_SECONDS (600) in all
	@FUZZ_SECONDS=$$(( $(FUZZ_SECONDS) / 4 )) \
	  $(BIN)/python -m pytest -o faulthandler_timeout=0 tests/fuzz/test_fuzz_text.py $(ARGS)

.PHONY: bench-read
bench-read: $(VENV)/.bench ## how fast reading is, as ratios (ARGS="--row NAME --json")
	@$(BIN)/python -m benchmarks.read $(ARGS)

.PHONY: bench-reload
bench-reload: $(VENV)/.bench ## how fast an edit arrives, as ratios (ARGS="--row NAME --json")
	@$(BIN)/python -m benchmarks.reload $(ARGS)

.PHONY: model
model: ## searches the models of the segment's protocol (needs spin and gcc; about a minute)
	@$(PYTHON) shm/model/check.py

.PHONY: lint
lint: $(VENV)/.dev ## ruff
	@$(BIN)/ruff check .

.PHONY: types
types: $(VENV)/.dev ## mypy, strict
	@$(BIN)/mypy

.PHONY: check
check: lint types ## lint and types

.PHONY: clean
clean: ## removes everything that these targets made
	rm -rf $(VENV) build dist agent/*.egg-info shm/*.egg-info *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	rm -f shm/shmconf/_native*.so agent/shmconf_agent/_native*.so
	find agent shm tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# --- set-up ---------------------------------------------------------------------------------------------------------

# The environment is made anew for another interpreter, and the package installed anew for another compiler or when
# what decides its installation has changed. A recipe that leaves its file alone leaves what depends on it alone.
# Version and path of the interpreter below any environment: PYTHON may be that of .venv itself, if it is activated.
INTERPRETER := $(shell $(PYTHON) -c 'import os, sys; base = getattr(sys, "_base_executable", sys.executable); \
  sys.stdout.write(sys.version.split()[0] + " " + os.path.realpath(base))' 2>/dev/null)
COMPILER := $(if $(filter default undefined,$(origin CC)),as found,$(CC))

.PHONY: FORCE
FORCE:

$(VENV)/.python: FORCE
	@test "$$(cat $@ 2>/dev/null)" != "$(INTERPRETER)" || test -z "$(INTERPRETER)" || exit 0; \
	fail() { echo "shmconf: $$1" >&2; exit 1; }; \
	test -n "$(INTERPRETER)" || fail "no $(PYTHON) here: install python3, 3.11 or newer (or: make PYTHON=...)"; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || fail "Python 3.11 or newer is needed, and $(PYTHON) is $(firstword $(INTERPRETER)) (or: make PYTHON=...)"; \
	$(PYTHON) -c 'import venv, ensurepip; ensurepip.version()' 2>/dev/null || fail "$(PYTHON) has no venv: install python3-venv"; \
	"$(wordlist 2,99,$(INTERPRETER))" -m venv --clear $(VENV) && echo "$(INTERPRETER)" > $@

$(VENV)/.compiler: $(VENV)/.python FORCE
	@test "$$(cat $@ 2>/dev/null)" = "$(COMPILER)" || echo "$(COMPILER)" > $@

INSTALLED_FROM := pyproject.toml setup.py $(wildcard shm/include/*.h shm/shmconf/_*.[ch] agent/native/*.[ch]) \
  $(VENV)/.python $(VENV)/.compiler

# $(call install,EXTRAS)
define install
	@echo "installing shmconf[$(1)] into $(VENV) ..."
	@rm -f shm/shmconf/_native*.so agent/shmconf_agent/_native*.so
	@SHMCONF_BUILD_NOTE=$(VENV)/.note \
	  $(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[$(1)]'
	@cat $(VENV)/.note >&2
endef

comma := ,

$(VENV)/.agent: $(INSTALLED_FROM)
	$(call install,agent)
	@touch $@

$(VENV)/.dev: $(INSTALLED_FROM)
	$(call install,agent$(comma)dev)
	@touch $(VENV)/.agent $@

# The rivals that benchmarks/ compares with. One that does not install here stops nothing: the table names it.
$(VENV)/.bench: $(INSTALLED_FROM) benchmarks/install_rivals.py
	$(call install,agent)
	@$(BIN)/python -m benchmarks.install_rivals pyproject.toml
	@touch $(VENV)/.agent $@
