# Two commands on a fresh machine with Python >= 3.11: `make demo` and `make test`. Each sets up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MINUTES ?= 2

.PHONY: demo test soak fuzz mutants check-engines check docs pictures clean

$(VENV)/.ready: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "gptplan needs Python 3.11 or newer: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[all]'
	touch $@

# the 125M estimate, then a small run sized to this machine, predicted beside measured
demo: $(VENV)/.ready
	$(BIN)/gptplan estimate --params 125M --tokens 10B
	$(BIN)/gptplan demo --minutes $(MINUTES)

# long repeats: random kills and harm, and every option of the model against PyTorch, the last results are committed;
# then the cases that `make test` leaves out
soak: $(VENV)/.ready
	$(BIN)/python -m benchmarks.soak --json benchmarks/results/soak.json
	$(BIN)/python -m benchmarks.drift
	$(BIN)/python -m pytest -m soak

# 100,000 random command lines, files and run directories, then every property with 20 times the examples of `make test`;
# the last results are committed, and what fails becomes a file of tests/corpus
fuzz: $(VENV)/.ready
	$(BIN)/python -m benchmarks.fuzz_inputs --json benchmarks/results/fuzz_inputs.json
	$(BIN)/python -m benchmarks.fuzz --json benchmarks/results/fuzz.json

# sixty small faults in planner and trainer, each with the test that notices it; goes on where it was stopped
mutants: $(VENV)/.ready
	$(BIN)/python -m benchmarks.mutants --json benchmarks/results/mutants.json

# the files of tests/data/engines, read by torchtitan, LitGPT, transformers, accelerate and DeepSpeed themselves
check-engines: $(VENV)/.ready
	$(BIN)/python -m benchmarks.check_engines --json benchmarks/results/check_engines.json

test: $(VENV)/.ready
	$(BIN)/python -m pytest

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m docs.make --check

# the generated parts of README.md and docs/
docs: $(VENV)/.ready
	$(BIN)/python -m docs.make

# the pictures of the terminal planner, in docs/looks/
pictures: $(VENV)/.ready
	$(BIN)/python -m docs.looks

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .import_linter_cache
