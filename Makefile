# make demo     pretrain, fine-tune and compare on two CPU cores; IMAGES=<folder> for your own images
# make web      a web page for the demo's best model; MODEL=<run, or a folder of runs> for yours
# make test     run all tests, JOBS files at a time (2 by default)
# make test-fast    run those that take less than a few seconds and compile nothing
# make lint     check style and formatting
# make clean    remove what these have made; your files stay
# make requirements    choose new versions within setup.py's ranges
#
# All but clean create .venv first. PYTHON=python3.12 make test creates it with that Python.

PYTHON ?= python3
JOBS ?= 2
# Whole files, in the order of tests/conftest.py.
SIDE_BY_SIDE = --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder
BIN := .venv/bin
# As in ddep/__init__.py, for tests that import torch first.
export GOMP_SPINCOUNT ?= 3000

# Each is a file in .venv that marks a stage of it as complete.
VENV := .venv/.created
RUN := .venv/.ready-to-run
TEST := .venv/.ready-to-test
WEB := .venv/.ready-for-the-web-page
LINT := .venv/.ready-to-lint

# What setup.py compiles; a change compiles it again.
OPS := $(shell find ddep/ops/csrc -type f)
CPP := $(shell find ddep tests -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo web test test-fast lint clean requirements FORCE

demo: $(RUN)
	$(BIN)/python tools/label-efficiency.py experiments/demo.yaml --jobs 2 --rerun-changed \
	    $(if $(IMAGES),--images '$(IMAGES)')

web: $(WEB)
	$(BIN)/python tools/web.py $(if $(MODEL),--model '$(MODEL)')

test: $(TEST)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE)

test-fast: $(TEST)
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not native"

lint: $(LINT)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/clang-format --dry-run --Werror $(CPP)

clean:
	rm -rf .venv output/demo build dist .pytest_cache .ruff_cache .hypothesis *.egg-info ddep/_C*.so
	find . -path ./datasets -prune -o -name __pycache__ -prune -exec rm -rf {} +
	rm -rf datasets/__pycache__

# If PYTHON is given and differs from the Python in .venv, .venv is created again.
ifneq ($(origin PYTHON),file)
ifneq ($(shell { $(PYTHON) -V; } 2>/dev/null),$(shell { $(BIN)/python -V; } 2>/dev/null))
$(VENV): FORCE
endif
endif

$(VENV):
	@command -v $(PYTHON) >/dev/null || { echo "error: there is no '$(PYTHON)'; \
	install Python 3.10 or newer (Debian, Ubuntu: apt install python3 python3-venv)" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "error: \
	$(PYTHON) is $$($(PYTHON) -V 2>&1), Python 3.10 or newer is needed; \
	install one and name it, as in: PYTHON=python3.12 make test" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "error: $(PYTHON) cannot create \
	virtual environments; install its venv package (Debian, Ubuntu: apt install \
	$$($(PYTHON) -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])'))" >&2; exit 1; }
	rm -rf .venv
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --constraint requirements-dev.txt pip setuptools wheel
	touch $@

$(RUN): requirements.txt setup.py tools/install-detectron2.py tools/detectron2_wheel.py $(OPS) $(VENV)
	$(BIN)/python -m pip install --no-build-isolation --requirement requirements.txt
	$(BIN)/python tools/install-detectron2.py
	$(BIN)/python -m pip install --quiet --no-build-isolation --no-deps --editable .
	touch $@

$(TEST): requirements-dev.txt $(RUN)
	$(BIN)/python -m pip install --quiet --no-build-isolation --requirement requirements-dev.txt
	touch $@

$(WEB): requirements-dev.txt $(RUN)
	$(BIN)/python -m pip install --quiet --constraint requirements-dev.txt gradio
	touch $@

$(LINT): requirements-dev.txt $(VENV)
	$(BIN)/python -m pip install --quiet --constraint requirements-dev.txt ruff clang-format
	touch $@

requirements: $(VENV)
	$(BIN)/python -m pip install --quiet uv
	UV_CUSTOM_COMPILE_COMMAND='make requirements' $(BIN)/uv pip compile --quiet --upgrade --universal \
	    --python-version 3.10 setup.py requirements.in --output-file requirements.txt
	UV_CUSTOM_COMPILE_COMMAND='make requirements' $(BIN)/uv pip compile --quiet --upgrade --universal \
	    --python-version 3.10 setup.py requirements.in --extra dev --constraint requirements.txt \
	    --output-file requirements-dev.txt
