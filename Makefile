# Each target makes its own environment where there is none; nothing but Python (3.11 or newer) and make has to be there.
#   make demo    send mail through Django and Flask to a server on loopback
#   make quick   the unit tests on this Python, in under a minute
#   make test    lint and the whole suite; what depends on them on every Python and Django found here
#   make lint    ruff and mypy
#   make bench   round trips and throughput beside other clients
#   make venv    only the environment, in .venv
#   make clean   remove what the above have made

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready

# Many tests start programs of their own: without bytecode on disk each of them would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo quick test lint bench venv clean

demo: $(READY)
	$(RUN) testproject/demo.py

# Tests wait more than they work, so six runs go side by side; five of them print when they have ended.
# nox goes on after a failed session; the summary, which ends with the totals, has the last word either way.
test: $(READY)
	rm -rf .nox/reports && mkdir -p .nox/reports
	@$(RUN) -m nox -t versions --report .nox/reports/versions.json >.nox/versions.log 2>&1 & \
		$(RUN) -m nox -s acceptance --report .nox/reports/acceptance.json >.nox/acceptance.log 2>&1 & \
		$(RUN) -m nox -s campaigns --report .nox/reports/campaigns.json >.nox/campaigns.log 2>&1 & \
		$(RUN) -m nox -s core tools --report .nox/reports/core.json >.nox/core.log 2>&1 & \
		$(RUN) -m nox -s integration --report .nox/reports/integration.json >.nox/integration.log 2>&1 & \
		$(RUN) -m nox -s lint units --report .nox/reports/units.json; \
		wait; cat .nox/integration.log .nox/campaigns.log .nox/acceptance.log .nox/core.log .nox/versions.log
	@$(RUN) tests/summary.py .nox/reports

# One process for each of two cores, and hypothesis briefly: what is wanted while one writes.
quick: $(READY)
	MAILBRIDGE_HYPOTHESIS=brief $(RUN) -m pytest -q -n 2 --dist loadfile -m "not campaign" tests/unit

venv: $(READY)

lint: $(READY)
	$(RUN) -m nox -s lint

bench: $(READY)
	$(RUN) -m benchmarks

clean:
	rm -rf .venv .nox dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

# Django 5.2 is the oldest that is supported; the newer ones get environments of their own (noxfile.py).
$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "mailbridge needs Python 3.11 or newer; name one: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null \
		|| { echo "This Python cannot make environments; on Debian: apt-get install python3-venv"; exit 1; }
	test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check -e ".[dev,all]" "Django>=5.2,<5.3"
	touch $@
