# make demo: set everything up and run the toy study.  make test: set everything up and pass the tests.
PYTHON ?= python3
BIN := .venv/bin
OUTPUTS ?= outputs

.PHONY: demo test slow benchmark clean

.venv/ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[test]'
	touch $@

demo: .venv/ready
	$(BIN)/synthdiv -m experiment=demo runtime.outputs=$(OUTPUTS) hydra/launcher=local hydra.launcher.jobs=2
	$(BIN)/synthdiv report demo runtime.outputs=$(OUTPUTS)

test: .venv/ready
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -m 'not slow'

slow: .venv/ready
	$(BIN)/python -m pytest -m slow

benchmark: .venv/ready
	$(BIN)/python benchmarks/measures.py
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/sweep.py
	$(BIN)/python benchmarks/ledger.py
	$(BIN)/python benchmarks/engines.py
	$(BIN)/python benchmarks/generate.py
	$(BIN)/python benchmarks/api.py
	$(BIN)/pip install --quiet -c constraints.txt trl==1.16.0
	$(BIN)/python benchmarks/train.py

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache
