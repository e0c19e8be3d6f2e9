# Every target does its own set-up (scripts/setup.sh); what is up to date is left alone.
SHELL := /bin/bash
RUN = scripts/setup.sh && . scripts/env.sh &&

.PHONY: help setup demo test lint docs clean

help:
	@echo "make demo    the simulated arm follows three instructions (ARGS=... are passed to vla-ros demo)"
	@echo "make test    style, layering and all tests (ARGS=... are passed to pytest)"
	@echo "make lint    style and layering alone"
	@echo "make docs    the documentation site, into build/docs"
	@echo "make setup   .venv and .ros alone; then: . scripts/env.sh"
	@echo "make clean   remove .venv, .venv-docs and .ros"

setup:
	@scripts/setup.sh

demo:
	@$(RUN) exec vla-ros demo $(ARGS)

lint:
	@$(RUN) ruff check . && lint-imports --no-cache

# Each of two processes begins with a half of the unit tests, so that what those of a file share is made once. Whole graphs
# are timed by real clocks, mostly wait, and run three at a time, the tests of a file one by one.
test: lint
	@. scripts/env.sh && $(if $(ARGS),exec python -m pytest -q $(ARGS),\
	  python -m pytest -q -n 2 --dist worksteal --ignore=test/system && exec python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder test/system)

# In an environment of its own, which sees the packages of .venv: the reference of the Python interface imports ours.
docs:
	@scripts/setup.sh
	@. scripts/env.sh && cmp -s requirements/docs.txt .venv-docs/installed || { echo "docs: installing Sphinx into .venv-docs" >&2 && \
	  python -m venv --clear .venv-docs && .venv-docs/bin/pip install -q --disable-pip-version-check -r requirements/docs.txt && \
	  for site in $$VIRTUAL_ENV/lib/python3.*/site-packages; do \
	    echo $$site >.venv-docs/lib/$$(basename $$(dirname $$site))/site-packages/environment.pth; done && \
	  cp requirements/docs.txt .venv-docs/installed; }
	@. scripts/env.sh && .venv-docs/bin/python -m sphinx -q --fail-on-warning --keep-going -b html -c docs . build/docs && \
	  echo "build/docs/docs/index.html"

clean:
	rm -rf .venv .venv-docs .ros
