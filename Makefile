# `make demo`, `make test`: on a machine with Python and nothing else. See README.md for the same without make.
PYTHON ?= python3
SECONDS ?= 75
BIN = .venv/bin
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Where it is set, as in many containers, every process would compile all of TensorFlow anew: 18 seconds instead of 6.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo docs test test-matrix test-web lint bench bench-power bench-toys clean

demo: .venv/installed
	$(BIN)/python examples/alanine_dipeptide.py

# Three runs: what XLA compiled in one would need more memory than a machine of 24 GB has. One process runs all tests of a
# file, which share what takes long to make; the longest files come first, so that both processes end together.
PYTEST = $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
test: .venv/installed lint
	$(PYTEST) $(patsubst %,tests/test_%.py,bijectors continuous checkpoints) tests/test_[a-c]*.py
	$(PYTEST) $(patsubst %,tests/test_%.py,inference docs export gallery distribute) tests/test_[d-k]*.py
	$(PYTEST) $(patsubst %,tests/test_%.py,readme model posterior_examples testing point_clouds) tests/test_[l-z]*.py

# Needs npm and Chromium with its driver.
test-web: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[web]"
	cd examples/web && npm install --silent
	$(BIN)/python examples/web/build.py
	$(BIN)/python -m pytest examples/web

# On other versions: PART="lowest-3.10 nightly-3.12", each in a new environment; without PART the parts are listed.
test-matrix:
	$(PYTHON) benchmarks/matrix.py $(PART)

# Into site/; `.venv/bin/mkdocs serve` shows it as it is written.
docs: .venv/installed
	$(BIN)/mkdocs build --strict

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed
	$(BIN)/python benchmarks/speed.py

bench-power: .venv/installed
	$(BIN)/python benchmarks/density.py --dataset power --data "$(DATA)" --seconds $(SECONDS)

# Python compiles what is imported; pip would compile all of TensorFlow and SciPy, on one core.
.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt -e ".[test]"
	touch $@

bench-toys: .venv/installed
	$(BIN)/python benchmarks/toys.py

clean:
	rm -rf .venv
