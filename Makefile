# `make demo` and `make test` need only Python 3.11 and make; everything else is set up in .venv.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready

# Where this is set, each of the hundred processes that the tests start compiles torch and all else anew, for seconds.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-slow mutate check docs bench gpu format clean

help:
	@echo "make demo       the whole story on procedural bitewings, in minutes; ends in demo/study/report.html"
	@echo "make test       all tests"
	@echo "make test-slow  the slow tests as well"
	@echo "make mutate     put small mistakes into a copy of the code and see whether the tests notice"
	@echo "make check      lint, types, import rule, documents up to date"
	@echo "make docs       the documents as HTML in build/docs; a warning is an error"
	@echo "make bench      the measurements of benchmarks/ that need no data; they write results/*.csv"
	@echo "make gpu        what only a CUDA card can show: tests, speed, a plan; writes results/gpu-*.csv"
	@echo "make format     format the code"

# Of 20,000 files a third is ever imported: Python compiles these when it needs them.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt -e ".[dev]"
	touch $@

demo: $(READY)
	$(BIN)/python tools/demo.py

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "slow or not slow"

mutate: $(READY)
	$(BIN)/python tools/mutate.py --jobs 2

check: $(READY)
	$(BIN)/ruff check src tests tools benchmarks docs
	$(BIN)/ruff format --check src tests tools benchmarks docs
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 0 tests/test_imports.py
	$(BIN)/python tools/mutate.py --check
	$(BIN)/python tools/reference.py --check docs/reference/commands.md
	$(BIN)/python tools/stubs.py --check src/radiffuse/__init__.pyi
	$(BIN)/python tools/house.py --check docs/images/house.svg
	$(BIN)/python tools/tables.py --check README.md $$(find docs results -name "*.md")

docs: $(READY)
	rm -rf docs/reference/api
	$(BIN)/python -m sphinx -W --keep-going -q -j 2 -b html docs build/docs

bench: $(READY)
	$(BIN)/python benchmarks/faults.py
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/scale.py
	$(BIN)/python benchmarks/scale_plan.py

gpu: $(READY)
	$(BIN)/python benchmarks/gpu.py

format: $(READY)
	$(BIN)/ruff check --fix src tests tools benchmarks
	$(BIN)/ruff format src tests tools benchmarks

clean:
	rm -rf $(VENV) build demo .pytest_cache .mypy_cache .ruff_cache
