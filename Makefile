# Every target does its own set-up (scripts/setup.sh); what is up to date is left alone.
SHELL := /bin/bash
RUN = scripts/setup.sh && . scripts/env.sh &&

.PHONY: help setup demo test lint clean

help:
	@echo "make demo    the simulated arm follows three instructions (ARGS=... are passed to vla-ros demo)"
	@echo "make test    style, layering and all tests (ARGS=... are passed to pytest)"
	@echo "make lint    style and layering alone"
	@echo "make setup   .venv and .ros alone; then: . scripts/env.sh"
	@echo "make clean   remove .venv and .ros"

setup:
	@scripts/setup.sh

demo:
	@$(RUN) exec vla-ros demo $(ARGS)

lint:
	@$(RUN) ruff check . && lint-imports --no-cache

# Whole graphs are timed by real clocks, mostly wait, and run two at a time, the tests of a file one by one.
test: lint
	@. scripts/env.sh && $(if $(ARGS),exec python -m pytest -q $(ARGS),\
	  python -m pytest -q -n 2 --ignore=test/system && exec python -m pytest -q -n 2 --dist loadfile test/system)

clean:
	rm -rf .venv .ros
