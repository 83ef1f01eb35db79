# `make train` and `make test` do all the set-up themselves; a second call installs nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ALGORITHM ?=
EXPERIMENT ?= one_liners
WARMED := runs/warmed-$(EXPERIMENT)
ARGS ?=

# Interpreters leave compiled modules behind: a run starts some, the tests hundreds.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: train test test-all unit gym screenshots lint format setup lock clean

# The default model learns to use hindsight first, once; whatever ALGORITHM is (the experiment's own, if nothing is said), it begins
# from there.
train: setup
	@test -e $(WARMED) || $(BIN)/sdpo warmup experiment=warmup_$(EXPERIMENT) to=$(WARMED)
	$(BIN)/sdpo train experiment=$(EXPERIMENT) $(ALGORITHM:%=algorithm=%) model.path=$(WARMED) $(ARGS)

# What a change has to pass: docs/testing.md says what is in it. Two files of tests at a time: the processes that a test starts
# spend half of their time waiting for each other. pytest fails where it finds no test, and its closing line comes last.
PYTEST := $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
test: setup lint
	$(PYTEST) --durations=60 --durations-min=0

# All there is: every combination, every fault, and a short form of benchmarks/soak.py.
test-all: setup lint
	$(PYTEST) --durations=60 --durations-min=0 -m ""

unit: setup
	$(BIN)/python -m pytest -m "not integration and not full"

# SDPO against GRPO, and SDPO's parts, on a model of a million parameters; goes on where it was interrupted.
gym: setup
	$(BIN)/python -m tests.learning.gym $(ARGS)

# The pictures of docs/seeing.md, with a real Chromium; of a made-up run, or of RUN="runs/NAME [runs/OTHER]".
screenshots: setup
	$(BIN)/python -m tests.report.pictures $(RUN)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@# sdpo.envs and sdpo.conf live in folders of the top level; mypy gets to see the package as it is installed.
	@rm -rf build/package && mkdir -p build/package/sdpo
	@for item in sdpo/* envs conf; do ln -s ../../../$$item build/package/sdpo/; done
	cd build/package && ../../$(BIN)/mypy -n 2 --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p sdpo

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.complete

$(VENV)/.complete: requirements/cpu.lock requirements/install.sh pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))" || \
	  { echo "error: Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version). Name another: make PYTHON=python3.11" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@requirements/install.sh "$(abspath $(BIN))/python"
	@touch $@

lock: setup
	$(BIN)/python -m pip install --quiet uv
	PATH="$(CURDIR)/$(BIN):$$PATH" requirements/lock.sh

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
