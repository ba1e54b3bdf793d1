# make demo   train a Go2 to walk, evaluate, film and deploy it
# make test   the whole test suite
# make bench  measure the speed of simulation and learning, for docs/benchmarks.md
# They make .venv on first use, or when what it is made of has changed. PYTHON names the interpreter.

SHELL := /bin/sh
INSTALLED := .venv/.installed
BIN := .venv/bin

.PHONY: demo test fast lint types check bench bench-learning lock clean
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

# Half an hour, alone on the machine, or the figures mean little. Other libraries come from
# .venv-bench, made on first use. RUN is a run folder whose policy walks a Go2.
bench: $(INSTALLED)
	@$(BIN)/python benchmarks/env_speed.py rates
	@$(BIN)/python benchmarks/env_speed.py scaling
	@$(BIN)/python benchmarks/speed.py updates
	@if [ -n "$(RUN)" ]; then $(BIN)/python benchmarks/latency.py run "$(RUN)"; \
		else echo "latency of a policy is not measured: give a run, make bench RUN=runs/DIR"; fi

# Time to a good policy: hours. What was interrupted begins again, what is finished is kept.
bench-learning: $(INSTALLED)
	@$(BIN)/python benchmarks/time_to_return.py run
	@$(BIN)/python benchmarks/time_to_return.py report

lint: $(INSTALLED)
	@$(BIN)/ruff check .

# Type checkers don't follow the mapping of folders to packages: links give them one. MuJoCo's
# compiled modules come without types: its names count as Any.
types: $(INSTALLED)
	@mkdir -p .types/motoric
	@for folder in control hardware envs policies configs scripts; do \
		ln -sfn ../../$$folder .types/motoric/$$folder; done
	@mkdir -p .types/mujoco && for name in __init__ viewer; do \
		printf 'from typing import Any\ndef __getattr__(name: str) -> Any: ...\n' \
		> .types/mujoco/$$name.pyi; done
	@$(BIN)/pyright

# Write the versions installed here to constraints.txt (after: pip install NAME==VERSION, make test).
lock: $(INSTALLED)
	@$(BIN)/python .ci/lock.py > constraints.new && mv constraints.new constraints.txt

$(INSTALLED): constraints.txt pyproject.toml .ci/install
	@.ci/install
	@touch $@

clean:
	rm -rf .venv .types motoric.egg-info build
