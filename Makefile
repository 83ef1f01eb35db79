# `make train` and `make test` do all the set-up themselves; a second call installs nothing.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ALGORITHM ?= sdpo
EXPERIMENT ?= chemistry_counts
WARMED := runs/warmed-$(EXPERIMENT)
ARGS ?=

.PHONY: train test unit faults gym screenshots lint format setup lock clean

# The default model learns to use hindsight first, once; whatever ALGORITHM is, it begins from there.
train: setup
	@test -e $(WARMED) || $(BIN)/sdpo warmup experiment=warmup_$(EXPERIMENT) to=$(WARMED)
	$(BIN)/sdpo train experiment=$(EXPERIMENT) algorithm=$(ALGORITHM) model.path=$(WARMED) $(ARGS)

# What stands for several machines first, by itself; then two files of tests at a time: the processes that a test starts
# spend half of their time waiting for each other.
test: setup lint
	$(BIN)/python -m pytest -m "alone and not faults"
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile -m "not alone and not faults"

unit: setup
	$(BIN)/python -m pytest -m "not integration"

# More ways for a run's processes to die than `make test` has time for; benchmarks/soak.py has them all in one run.
faults: setup
	$(BIN)/python -m pytest -s -m faults

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
	cd build/package && ../../$(BIN)/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache -p sdpo

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup: $(VENV)/.complete

# torch first and alone, then the locked set without a resolve: vLLM's wheel asks for packages that break it on the CPU.
$(VENV)/.complete: requirements/cpu.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))" || \
	  { echo "error: Python 3.11, 3.12 or 3.13 is needed; $(PYTHON) is $$($(PYTHON) --version). Name another: make PYTHON=python3.11" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "installing torch" && $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check "torch==2.13.0"
	@echo "installing the locked CPU set (about two minutes)" && \
	  $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --requirement requirements/cpu.lock
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lock: setup
	$(BIN)/python -m pip install --quiet uv
	PATH="$(CURDIR)/$(BIN):$$PATH" requirements/lock.sh

clean:
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
