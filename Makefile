# One target a question. A machine needs Python 3.11 to 3.14 and make; everything else goes into .venv.
#   make book   run every chapter and build book/_build/html
#   make lab    open the chapters in JupyterLab
#   make test   is everything right? export, lint, javascript, the book without warnings (it runs the chapters), pytest
#   make test-all  make test, and what takes long and changes rarely: JupyterLab live, kills, wheel, resolver
#   make recurrent  chapter 13's tests, on TensorFlow and on PyTorch
#   make check  the fast part of it: what must pass before each commit
#   make export write llmlab/ from the notebooks, and Colab's line into them
#   make bench  llmlab beside its peers
#   make wheel  the wheel in an empty environment: the README's lines and every chapter
#   make colab  Colab's versions, the notebooks' own line, every chapter in an empty folder
#   make resolve  do the versions go together, on each Python and on Colab?
# Another Python: make setup PYTHON=python3.12

SHELL := /bin/sh
.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help setup book lab test check bench export export-check lint js pytest fast long recurrent test-all wheel colab resolve clean

BIN := .venv/bin
PY := $(BIN)/python
STEP := @PATH="$(CURDIR)/$(BIN):$$PATH" $(PY) tools/step.py
PRETTIER := node_modules/.bin/prettier
NBS := "nbs/*.ipynb" "nbs/workshop/*.ipynb" settings.ini
LIB := "llmlab/**/*"
# all cores, a test file on one of them (so that it has one browser, one server), one thread each; the slow files first (tests/conftest.py)
XDIST = env OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n auto --dist loadfile --no-loadscope-reorder
KERAS := "llmlab/*.py" tests/conftest.py tests/test_recurrent.py pyproject.toml constraints.txt
TESTS := "tests/**/*" "tools/*" "book/*.*" "book/_ext/*" pyproject.toml constraints.txt

help:
	@sed -n '/^$$/q; 2,$$s/^# *//p' Makefile

# --- set-up -----------------------------------------------------------------------------------------------------------

setup: .venv/.setup node_modules/.package-lock.json

.venv/.setup: constraints.txt settings.ini setup.py pyproject.toml
	@test -x $(PY) || { \
	  for p in $(PYTHON) python3 python3.13 python3.12 python3.11 python3.14 python; do \
	    "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null && found=$$p && break; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "llmlab needs Python 3.11 to 3.14 and found none on the PATH (python3 is: $$(python3 --version 2>&1))." >&2; \
	    echo "Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3.12" >&2; exit 1; \
	  fi; \
	  echo "▶ setup: .venv from $$found ($$($$found --version))"; \
	  "$$found" -m venv .venv || { rm -rf .venv; \
	    echo "Python's venv module is missing: on Debian or Ubuntu, apt-get install python3-venv" >&2; exit 1; }; \
	}
	@echo "▶ setup: installing the tested versions (the first time this takes minutes)"
	@$(PY) -m pip install --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

# prettier, where there is npm; without it only `make lint` misses something, and says so
node_modules/.package-lock.json: package-lock.json
	@command -v npm >/dev/null || exit 0; \
	  npm ci --no-audit --no-fund --loglevel=error && touch $@ || echo "– setup: npm could not install prettier" >&2

# --- the three products -----------------------------------------------------------------------------------------------

book: setup
	@$(PY) book/build.py

lab: setup
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PY) -m jupyterlab nbs

export: setup
	@$(PY) tools/colab_line.py
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(PY) tools/export.py

# --- tests ------------------------------------------------------------------------------------------------------------

test: setup export-check lint js book pytest recurrent
	@echo "All of it passed."

test-all: test long
	@echo "What takes long passed too."

check: setup export-check lint js fast recurrent
	@echo "The fast part passed; make test runs the rest."

export-check:
	$(STEP) export $(NBS) $(LIB) tools/export.py tools/check_export.py -- $(PY) tools/check_export.py

lint:
	$(STEP) lint $(NBS) $(LIB) $(TESTS) "*.py" "bench/*" -- sh -c "ruff check . && ruff format --check ."
	@if test -x $(PRETTIER) || ! command -v node >/dev/null; then :; else \
	  echo "– prettier: not installed, so the format of llmlab/static and tests/js is not checked; npm ci installs it" >&2; \
	  test -z "$$CI"; \
	fi
	$(STEP) prettier "llmlab/static/*" "tests/js/*" "book/_static/*.js" "package*.json" $(PRETTIER) -- sh -c 'test ! -x $(PRETTIER) || npm run --silent lint'

js:
	@if command -v node >/dev/null; then :; else echo "– js: skipped, no node on this machine"; fi
	$(STEP) js "llmlab/static/*" "tests/js/*" "book/_static/*.js" package.json -- sh -c 'command -v node >/dev/null || exit 0; node --test tests/js/*.js'

pytest:
	$(STEP) pytest $(NBS) $(LIB) $(TESTS) "book/_build/built.json" README.md setup.py "nbs/api/*" -- $(XDIST) -v --durations=10 -m "not long"

long:
	$(STEP) long $(NBS) $(LIB) $(TESTS) README.md setup.py MANIFEST.in settings.ini "nbs/api/*" -- $(XDIST) -v --durations=10 -m long

fast:
	$(STEP) fast $(NBS) $(LIB) $(TESTS) README.md setup.py -- $(XDIST) -m "not slow"

# Keras has one backend a process, and TensorFlow shall not share threads and memory with the other tests
recurrent:
	$(STEP) recurrent-tensorflow $(KERAS) -- env KERAS_BACKEND=tensorflow $(PY) -m pytest tests/test_recurrent.py
	$(STEP) recurrent-torch $(KERAS) -- env KERAS_BACKEND=torch $(PY) -m pytest tests/test_recurrent.py

wheel: setup
	$(STEP) wheel $(NBS) $(LIB) setup.py MANIFEST.in constraints.txt README.md tools/check_wheel.py -- $(PY) tools/check_wheel.py

colab: setup
	@$(PY) tools/check_colab.py

resolve: setup
	@$(PY) tools/resolve.py

bench: setup
	@for f in bench/[a-z]*.py; do echo "▶ $$f"; TQDM_DISABLE=1 $(PY) $$f --json nbs/results/$$(basename $$f .py).json || exit 1; done
	@$(PY) tools/benchmarks.py

clean:
	rm -rf .make book/_build build dist
