# make demo   train a Go2 to walk, evaluate, film and deploy it
# make test   the whole test suite
# make bench  measure the speed of simulation and learning, for docs/benchmarks.md
# They make .venv on first use, or when what it is made of has changed. PYTHON names the interpreter.

SHELL := /bin/sh
INSTALLED := .venv/.installed
BIN := .venv/bin

.PHONY: demo test fast lint types check bench forget reference lock clean
demo: $(INSTALLED)
	@.ci/system gl
	@$(BIN)/motoric demo

test: $(INSTALLED)
	@.ci/system gl browser screen git
	@.ci/test

# The tests without those that train until something is learned.
fast: $(INSTALLED)
	@.ci/system gl browser screen git
	@.ci/test -m "not slow"

check: lint types

# All of docs/benchmarks.md: three quarters of an hour for the speeds, then hours for the learning,
# alone on the machine or the figures mean little. What docs/benchmarks/ holds already is kept, so an
# interrupted measurement goes on; `make forget bench` starts anew. Other libraries come from
# .venv-bench and .venv-jax, made on first use. RUN is a run folder whose policy walks a Go2.
RUN := runs/bench
bench: $(INSTALLED) $(RUN)/bundle/best/policy.onnx
	@$(BIN)/python benchmarks/env_speed.py rates
	@$(BIN)/python benchmarks/env_speed.py scaling
	@$(BIN)/python benchmarks/speed.py updates
	@$(BIN)/python benchmarks/latency.py run "$(RUN)"
	@$(BIN)/python benchmarks/time_to_return.py run
	@$(BIN)/python benchmarks/time_to_return.py report

runs/bench/bundle/best/policy.onnx: | $(INSTALLED)
	@rm -rf runs/bench
	@$(BIN)/motoric train experiment=go2_walk run=runs/bench

forget:
	@cd docs/benchmarks && rm -f env_speed/*.csv update_speed/*.csv time_to_return/*.csv

lint: $(INSTALLED)
	@$(BIN)/ruff check .

# Type checkers don't follow the mapping of folders to packages: links give them one. MuJoCo's
# compiled modules come without types: its names count as Any.
types: $(INSTALLED)
	@mkdir -p .types/motoric && ln -sfn ../../scripts/api/__init__.py .types/motoric/__init__.py
	@for folder in control hardware envs policies configs scripts; do \
		ln -sfn ../../$$folder .types/motoric/$$folder; done
	@mkdir -p .types/mujoco && for name in __init__ viewer; do \
		printf 'from typing import Any\ndef __getattr__(name: str) -> Any: ...\n' \
		> .types/mujoco/$$name.pyi; done
	@$(BIN)/pyright

# From the docstrings of the modules that docs/api.md lists, as HTML.
reference: $(INSTALLED)
	@PDOC_ALLOW_EXEC=1 PYTHONWARNINGS=ignore $(BIN)/pdoc --no-show-source -o build/reference \
		$$(sed -n 's/^| `\(motoric[a-z_.]*\)` .*/\1/p' docs/api.md)
	@echo build/reference/index.html

# Write the versions installed here to constraints.txt (after: pip install NAME==VERSION, make test).
lock: $(INSTALLED)
	@$(BIN)/python .ci/lock.py > constraints.new && mv constraints.new constraints.txt

$(INSTALLED): constraints.txt pyproject.toml .ci/install
	@.ci/install
	@touch $@

clean:
	rm -rf .venv .types motoric.egg-info build
