# Two commands on a fresh machine with Python >= 3.10 and a C++17 compiler:
#   make demo     trains, evaluates and segments on the embedded street (INPUT=scan.bin: your scan)
#   make test     runs the tests
# TORCH names the torch to install where the environment has none, e.g. TORCH="torch==2.13.0".
# With nvcc the CUDA library is built too; PERCEPTION_CUDA=OFF leaves it out, ON insists on it, and
# PERCEPTION_CUDA_ARCHS="80-real;90a-real" names its architectures (csrc/cuda/library.cmake).
PYTHON ?= python3
VENV   ?= .venv
TORCH  ?= torch==2.13.0
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
CPP    := csrc/CMakeLists.txt $(wildcard csrc/*.cpp $(foreach room,common cpu cuda,csrc/$(room)/*.*))

.PHONY: demo test lint build clean
demo: $(STAMP)
	$(BIN)/perception demo $(if $(INPUT),--input $(INPUT))

test: $(STAMP)
	$(BIN)/python -m pytest -q

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

build: $(STAMP) ## compile the C++ anew after editing csrc/
	$(BIN)/python -m pip install -q --no-deps -e .

$(STAMP): pyproject.toml $(CPP)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/python -m pip install -q "$(TORCH)"
	$(BIN)/python -m pip install -q -e ".[dev]"
	$(BIN)/python -c "import perception._native"
	touch $@

clean:
	rm -rf $(VENV) build perception/lib
