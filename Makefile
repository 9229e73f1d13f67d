# make demo   set up .venv and run the demonstration (resumes what a former call began)
# make test   set up .venv and run the tests
# make lint   the checks of .pre-commit-config.yaml
# make clean  remove .venv and caches; results are left alone
#
# PYTHON=... chooses the interpreter that .venv is made with (3.10, 3.11 or 3.12).

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SUPPORTED := import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))
PYTHON ?= $(firstword $(foreach p,python3.12 python3.11 python3.10 python3,$(shell $(p) -c "$(SUPPORTED)" 2>/dev/null && echo $(p))))
PIP := $(BIN)/python -m pip --disable-pip-version-check
ARGS ?=
INTERPRETER = $(or $(PYTHON),python3)

.PHONY: demo test lint clean

demo: $(STAMP)
	$(BIN)/emae-mm demo $(ARGS)

# One thread a process: as many processes as cores share the files of tests, four at most (each takes some GB).
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(STAMP)
	@$(BIN)/python -c "import ruff, pre_commit" 2>/dev/null || $(PIP) install -c constraints.txt -e '.[dev]'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/pre-commit run --all-files

# The stamp is written last: a set-up that was interrupted starts again.
# MMCV_WITH_OPS=0 keeps onedl-mmcv from compiling, whatever the caller's environment says.
# onedl-mmcv and others bring two builds of OpenCV into one folder, and the one that wins may need libGL.
$(STAMP): pyproject.toml constraints.txt
	@$(INTERPRETER) -c "$(SUPPORTED)" 2>/dev/null || { \
	  echo "emae-mm needs Python 3.10, 3.11 or 3.12; '$(INTERPRETER)' is not one of them." >&2; \
	  echo "  fix: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@echo "Setting up $(VENV) with $(INTERPRETER): about 6 GB and a few minutes ..."
	$(INTERPRETER) -m venv --clear $(VENV)
	MMCV_WITH_OPS=0 $(PIP) install -c constraints.txt -e '.[test]'
	@$(BIN)/python -c "import cv2" 2>/dev/null || { \
	  echo "cv2 cannot be imported (no libGL?): reinstalling opencv-python-headless ..."; \
	  version=$$($(BIN)/python -c "from importlib.metadata import version as v; print(v('opencv-python-headless'))") && \
	  $(PIP) install --force-reinstall --no-deps "opencv-python-headless==$$version" && \
	  $(BIN)/python -c "import cv2"; }
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
