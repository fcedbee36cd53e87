# medtl's commands. `make demo` and `make test` need nothing but Python 3.11 or newer and make.
SHELL := /bin/bash
.DEFAULT_GOAL := help
BIN := .venv/bin
STAMP := .venv/.setup-done

DEMO_OUT ?= runs/demo
DEMO_ARGS ?=
# One file stays in one worker, so that fixtures of a module are made once.
PYTEST_ARGS ?= -n auto --maxprocesses 4 --dist loadfile
# Workers times threads must not exceed the cores, and no number may depend on how many there are.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

.PHONY: help setup demo test test-all lint fix bench gpu-check coverage gallery docs clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 12

setup: $(STAMP)  ## the environment in .venv/, as constraints.txt pins it
$(STAMP): pyproject.toml constraints.txt .ci/setup
	@.ci/setup all,dev
	@touch $@

demo: $(STAMP)  ## synthetic DICOMs to a clinical report in runs/demo/ (DEMO_ARGS="--task bone-age")
	@case " $(DEMO_ARGS) " in *" --resume "*) ;; *) if [ -e "$(DEMO_OUT)" ]; then \
		echo "$(DEMO_OUT) exists; a finished run has its report in $(DEMO_OUT)/run/report.html."; \
		echo "Go on with it: make demo DEMO_ARGS=--resume    Start again: rm -r $(DEMO_OUT)"; \
		exit 1; fi ;; esac
	$(BIN)/medtl demo --out "$(DEMO_OUT)" $(DEMO_ARGS)

test: $(STAMP)  ## the fast suite (PYTEST_ARGS="-x tests/metrics" narrows it)
	$(PYTEST) $(PYTEST_ARGS)

# In the order of the folders: the longest files come early, and no worker waits for the last one.
test-all: $(STAMP)  ## the slow suite, which `make test` leaves out; both together are everything
	$(PYTEST) -m slow --no-loadscope-reorder $(PYTEST_ARGS) || [ $$? -eq 5 ]  # 5: PYTEST_ARGS selected no slow test

lint: $(STAMP)  ## ruff (rules and format) and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(STAMP)  ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench:  ## the benchmarks against the peers, in an environment of their own (BENCH_ARGS="ingest")
	@MEDTL_VENV=.tools/bench .ci/setup all,bench
	.tools/bench/bin/python -m benchmarks.run $(BENCH_ARGS)

gpu-check: $(STAMP)  ## does the GPU here compute what the CPU does, how fast, in what memory (ten minutes)
	$(BIN)/python -m benchmarks.gpu $(GPU_ARGS)

coverage: $(STAMP)  ## how often each interval holds the truth, to reports/coverage.md (a quarter of an hour)
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.coverage

gallery: $(STAMP)  ## the manual's pictures in docs/images/, its notebooks, and the numbers that its pages name
	OMP_NUM_THREADS=1 $(BIN)/python -W ignore -m manual.gallery

docs: $(STAMP)  ## the manual as pages in site/
	@.ci/setup all,dev,docs
	$(BIN)/mkdocs build --strict

clean:  ## caches and build leftovers; .venv/ and runs/ stay
	rm -rf build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .coverage
	find . -name __pycache__ -not -path './.venv/*' -not -path './.tools/*' -prune -exec rm -rf {} +
