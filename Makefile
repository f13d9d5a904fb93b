# make run    set up .venv and run the whole loop on the embedded model
# make test   set up .venv-test and pass the tests
# make mac-check   on a Mac, in about 20 minutes: what works there, written to runs/mac-check (docs/mac.md)
#
# Neither needs root. PYTHON chooses the interpreter (3.11 to 3.13), PIP_ARGS is handed to pip,
# TEST_EXTRAS=test,parity also runs the tests that compare with PyTorch.

PYTHON ?= python3
PIP_ARGS ?=
TEST_EXTRAS ?= test
PYTEST_ARGS ?=
CHECK_ARGS ?=

.PHONY: run test mac-check clean

run: .venv/installed
	.venv/bin/mlx-ssd run

test: .venv-test/installed
	.venv-test/bin/python -m pytest $(PYTEST_ARGS)

mac-check: .venv-test/installed
	.venv-test/bin/python -m benchmarks.mac_check $(CHECK_ARGS)

.venv/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "mlx-ssd needs Python 3.11 to 3.13; choose one with make PYTHON=python3.12 run"; exit 2; }
	$(PYTHON) -m venv .venv
	.venv/bin/pip install --quiet $(PIP_ARGS) -e .
	touch $@

.venv-test/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || \
		{ echo "mlx-ssd needs Python 3.11 to 3.13; choose one with make PYTHON=python3.12 test"; exit 2; }
	$(PYTHON) -m venv .venv-test
	.venv-test/bin/pip install --quiet $(PIP_ARGS) -e '.[$(TEST_EXTRAS)]'
	touch $@

clean:
	rm -rf .venv .venv-test
