# Every target installs what it needs into .venv, once; constraints.txt pins the exact versions.
#   make demo    the whole graph on real code with the real MiniLM, about five minutes on two CPU cores
#   make test    the tests            make check   what CI checks before them
#   make ui      the Dagster UI on the state that the demo, or your own nights, left
#   make bench   the benchmarks       make clean   remove the environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DATA ?=

.PHONY: demo test check ui bench install format clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo "embed_assets needs Python 3.11 to 3.14, as Dagster does; $$($(PYTHON) --version) was found; try: make PYTHON=python3.14 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "this Python lacks the venv module; install it (Debian, Ubuntu: apt-get install python3-venv) and run make again"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/embed-assets demo $(if $(DATA),--data-dir $(DATA))

ui: $(STAMP)
	@if [ -n "$(DATA)" ]; then $(BIN)/embed-assets ui --data-dir $(DATA); \
	elif [ -f embed_assets.toml ]; then $(BIN)/embed-assets ui; \
	elif [ -f data/demo/embed_assets.toml ]; then $(BIN)/embed-assets ui --config data/demo/embed_assets.toml; \
	else $(BIN)/embed-assets ui; fi

test: $(STAMP)
	$(BIN)/python -m pytest

check: $(STAMP)
	@! git grep -nE '^ *(<{7}|>{7}) ' || { echo "a merge left its markers in the files above"; exit 1; }
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(STAMP)
	$(BIN)/python -m benchmarks

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV)
