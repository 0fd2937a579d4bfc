# Two commands do everything: `make demo` and `make test`. Both set up .venv first; set-up is a no-op when current.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.set-up
PYTEST := $(BIN)/python -m pytest --durations=10

# Most tests wait more than they compute: two at once even on one core, and no more than memory holds on many.
JOBS   ?= $(shell $(PYTHON) -c 'import os; print(max(2, min(4, os.cpu_count() or 2)))')

# Files that have tests of a mark. To collect from all of them takes every pytest half a minute.
marked = $$(grep -rlE 'mark\.$(1)\b' tests --include='test_*.py' | sort)

# Run the tests of a tier: all at once but those marked alone, and then those; 5 says that there was none.
# 1: which; 2: the files that have them, else all.
define tier
$(PYTEST) -n $(JOBS) -m "($(1)) and not alone and not long" $(2)
$(PYTEST) -m "($(1)) and alone and not long" $(call marked,alone) || test $$? -eq 5
endef

.PHONY: setup check test slow soak demo bench ui clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else f"Headway needs Python 3.11 or later; {sys.executable} is {v.major}.{v.minor}. Run: make PYTHON=python3.11 $(MAKECMDGOALS)")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# torch first and by its exact version: a range may take a build with gigabytes of CUDA packages
	$(BIN)/python -m pip install -qq --disable-pip-version-check "$$(grep '^torch==' constraints.txt)"
	$(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy platform/headway

test: check
	$(call tier,not slow)

slow: setup
	$(call tier,slow,$(call marked,slow))

# What is random, at length: hours. HEADWAY_DRILLS=100 for more drills.
soak: export HEADWAY_TIER = soak
soak: setup
	$(PYTEST) -n $(JOBS) --timeout=3600 -m "soak or long or hypothesis"

demo: setup
	$(BIN)/python trainers/demo.py

bench: setup
	$(BIN)/python benchmarks/run.py

ui: setup
	$(BIN)/headway ui

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
