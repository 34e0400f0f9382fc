# Every target runs from a fresh clone: what is missing is installed first, and nothing is installed twice.

PYTHON_IN_VENV := .venv/bin/python
# By way of the interpreter: the script in .venv/bin names its interpreter by a path that a moved clone breaks.
LINT_IMPORTS := $(PYTHON_IN_VENV) -c 'from importlinter.cli import lint_imports_command as run; run()' --no-logo
PYTEST_ARGS ?= -n 2 --dist loadfile -q
# Two torch threads in each of two test processes would fight for two cores.
TEST_THREADS ?= 1
FUZZ_SECONDS ?= 3600

# albumentations would ask the network for its newest version at every import.
export NO_ALBUMENTATIONS_UPDATE := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint doctor openmv-test soak soak-link fuzz readme clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## Make .venv with the pinned packages; on Debian also the cross-compiler and the emulator
	@./setup.sh

demo: setup ## Walk the whole line: train, shrink to int8, schedule, run on an emulated Cortex-M7
	@$(PYTHON_IN_VENV) -m detection.demo_line

test: lint ## Check style and import contracts, then run every test (under ten minutes on two cores)
	@OMP_NUM_THREADS=$(TEST_THREADS) $(PYTHON_IN_VENV) -m pytest $(PYTEST_ARGS)

lint: setup ## Check style (ruff), the arrows between the rooms (import-linter), C (cppcheck and clang-tidy where installed)
	@$(PYTHON_IN_VENV) -m ruff check --quiet .
	@report=$$($(LINT_IMPORTS) 2>&1) || { printf '%s\n' "$$report"; exit 1; }
	@$(PYTHON_IN_VENV) -m firmware.lint

doctor: ## Show what is installed, what is missing, and the way out (needs no set-up)
	@if [ -x $(PYTHON_IN_VENV) ]; then $(PYTHON_IN_VENV) -m detection.doctor; else python3 -m detection.doctor; fi

openmv-test: setup ## Run the OpenMV package in MicroPython on an emulated Cortex-M7 (the first time builds MicroPython)
	@firmware/openmv/get_micropython.sh
	@$(PYTHON_IN_VENV) -m firmware.openmv.rehearsal
	@OMP_NUM_THREADS=$(TEST_THREADS) $(PYTHON_IN_VENV) -m pytest -q tests/firmware/test_openmv.py

soak: setup ## Ten thousand random networks under random schedules: everywhere the same bytes (hours, resumable)
	@$(PYTHON_IN_VENV) -m benchmarks.soak

soak-link: setup ## A thousand schedules of faults on the link: everywhere the same bytes (minutes)
	@$(PYTHON_IN_VENV) -m benchmarks.soak_link

fuzz: setup ## Attack the readers of model.tess and .tflite, FUZZ_SECONDS each (default: an hour); docs/reliability.md
	@$(PYTHON_IN_VENV) -m benchmarks.fuzz --seconds $(FUZZ_SECONDS)

readme: setup ## Write the tables of README.md anew from the artefacts
	@$(PYTHON_IN_VENV) -m detection.readme

clean: ## Remove caches and build outputs; .venv and runs/ stay
	@rm -rf .pytest_cache .ruff_cache .hypothesis .import_linter_cache firmware/build
	@find . -path ./.venv -prune -o -name __pycache__ -type d -exec rm -rf {} +
