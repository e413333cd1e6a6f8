# Everything a newcomer needs: `make demo`, `make test`. Everything is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# In CI and in a hurry alike, pip says only what went wrong.
PIP := $(BIN)/python -m pip --disable-pip-version-check -q

.PHONY: demo demo-models test emulators libraries check coverage bench docs fix clean

demo: $(VENV)/.demo
	$(BIN)/weightstore demo

# The same, and then the models themselves: needs torch, some GB.
demo-models: $(VENV)/.demo-models
	$(BIN)/weightstore demo

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(TESTS)

# Google Cloud Storage and Azure on this machine, in ~/.cache/weightstore-emulators: without them their tests are skipped.
emulators:
	PYTHON=$(PYTHON) scripts/emulators

# Other libraries, unmodified, and all models of TorchVision: an environment of its own (some GB), about an hour.
libraries: $(VENV)-libraries/.libraries
	$(VENV)-libraries/bin/python -m pytest -m libraries tests/libraries $(TESTS)

check: $(VENV)/.check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell

# Branch coverage of the whole suite, subprocesses included.
coverage: $(VENV)/.test
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 2 --dist loadgroup $(TESTS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.run $(BENCH)

docs: $(VENV)/.docs
	$(BIN)/sphinx-build -q -W --keep-going -b html docs docs/_build/html
	@echo "docs/_build/html/index.html"

fix: $(VENV)/.check
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) $(VENV)-libraries docs/_build .coverage* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The suite regenerates the catalog from an installed TorchVision, so it needs the torch extra (some GB).
$(VENV)/.demo: EXTRAS := demo
$(VENV)/.demo-models: EXTRAS := demo-models
$(VENV)/.test: EXTRAS := test,demo-models,docs
$(VENV)/.check: EXTRAS := check,test
$(VENV)/.docs: EXTRAS := docs
$(VENV)/.bench: EXTRAS := bench
$(VENV)/.demo $(VENV)/.demo-models $(VENV)/.test $(VENV)/.check $(VENV)/.docs $(VENV)/.bench: pyproject.toml | $(BIN)/python
	$(PIP) install -e '.[$(EXTRAS)]'
	@touch $@

# facenet-pytorch pins a torch of 2024, with which the others do not work; itself it works with newer ones.
$(VENV)-libraries/.libraries: pyproject.toml
	$(PYTHON) -m venv $(VENV)-libraries
	$(VENV)-libraries/bin/python -m pip --disable-pip-version-check -q install -e '.[libraries]'
	$(VENV)-libraries/bin/python -m pip --disable-pip-version-check -q install --no-deps 'facenet-pytorch>=2.6'
	@touch $@
