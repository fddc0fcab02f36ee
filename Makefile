# `make report` and `make test` do everything, set-up included, on a machine that has
# Python 3.11 or newer, pip and make. The environment is .venv; `make test-matrix` has one
# for each Python, .venv-3.12 and so on.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.PHONY: help report test test-all test-quick test-matrix lint accuracy benchmark docs lock clean

# The first interpreter that is new enough; `make PYTHON=/path/to/python3.12 ...` overrides.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null)
LOCK := requirements/py$(VERSION).txt
VENV := .venv
READY := $(VENV)/.ready-$(VERSION)
RUN := $(VENV)/bin/python
PYTHONS := 3.11 3.12 3.13

# Tests do little but compile. XLA's older kernels for the CPU compile in two thirds of the
# time, and in one piece, not several at once, they take a seventh less of the processor.
# `make test-all` takes what users get. A flag that a version of XLA does not know ends it:
# the lock files of 3.12 and newer have one without the older kernels.
QUICK := XLA_FLAGS="--xla_cpu_parallel_codegen_split_count=1 \
  $(if $(filter 3.11,$(VERSION)),--xla_cpu_use_fusion_emitters=false)"
PYTEST := -m pytest --numprocesses auto --dist loadfile

help:
	@echo 'make report    claims of Huang et al. and the data, as pages: report/index.html (under 8 minutes)'
	@echo 'make test      the tests (minutes); make test-all adds the slow statistical ones'
	@echo 'make test-matrix  the tests on each supported Python that is found'
	@echo 'make accuracy  how exact the kernels are, against 50 digits and neural-tangents'
	@echo 'make benchmark times and accuracy, saved in benchmarks/results with figures, and in docs/benchmarks.md'
	@echo 'make docs      these pages: docs/_build/html/index.html'
	@echo 'make lint      ruff and mypy'
	@echo 'make lock      choose new versions for requirements/py*.txt'

report: $(READY)
	$(VENV)/bin/ntk-resnet report --out report

test: $(READY)
	$(QUICK) $(RUN) $(PYTEST)

test-all: $(READY)
	$(RUN) $(PYTEST) -m "slow or not slow"

test-quick: $(READY)
	$(QUICK) $(RUN) $(PYTEST) -m "quick and not slow"

test-matrix:
	@said=; for v in $(PYTHONS); do p=$$($(MAKE) --silent python-$$v); \
	  if test -z "$$p"; then result='not found'; \
	  elif $(MAKE) PYTHON=$$p VENV=.venv-$$v test; then result=passed; else result=FAILED; fi; \
	  said="$${said}Python $$v: $$result. "; done; \
	echo "$$said"; case "$$said" in *FAILED*) exit 1;; *passed*) ;; *) exit 2;; esac

# Where that Python is, if there is one: on the path, or pyenv's.
python-%:
	@for p in python$* $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$*.*/bin/python; do \
	  $$p -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != "$*")' >/dev/null 2>&1 \
	  && { echo $$p; break; }; done; true

accuracy: $(READY)
	$(RUN) benchmarks/accuracy.py
	$(RUN) tests/native/compare.py

benchmark: $(READY)
	$(RUN) benchmarks/gram.py --save
	$(RUN) benchmarks/depth.py --save
	$(RUN) benchmarks/accuracy.py --save
	for asked in mercer spectrum learning_curve regression empirical convolution; do \
	  $(RUN) benchmarks/$$asked.py --save || exit 1; done
	$(RUN) benchmarks/plot.py
	$(RUN) benchmarks/tables.py

docs: $(READY)
	$(VENV)/bin/sphinx-build -W --keep-going --quiet -b html docs docs/_build/html

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

$(READY): $(LOCK) setup.cfg pyproject.toml
	@test -n "$(VERSION)" || { echo 'Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python'; exit 2; }
	@test -x .uv/bin/uv || $(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv uv
	.uv/bin/uv venv --quiet --clear --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV)
	.uv/bin/uv pip install --quiet --python $(RUN) --no-deps -r $(LOCK)
	.uv/bin/uv pip install --quiet --python $(RUN) --no-deps --editable .
	@touch $@

requirements/py%.txt:
	@echo 'There is no lock file $@ (supported: $(PYTHONS)); run `make lock` or name another Python: make PYTHON=...'; exit 2

lock:
	@test -x .uv/bin/uv || $(PYTHON) -m pip install --quiet --disable-pip-version-check --target .uv uv
	for v in $(PYTHONS); do .uv/bin/uv pip compile --quiet --upgrade --python-version $$v --no-annotate \
	  --custom-compile-command 'make lock' --override requirements/overrides.txt \
	  --extra test --extra docs --extra lint setup.cfg -o requirements/py$$v.txt || exit 1; done

clean:
	rm -rf .venv .venv-* .uv report docs/_build build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
