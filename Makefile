# make demo | test | test-s3 | test-stack | test-containers | chaos | coverage | check | bounds | up | format | documents | site | constraints | clean
# Every target makes .venv first, from constraints.txt; it is made again when that file changes.

PYTHON ?= python3
LAKE ?= lake
LIST ?=
SEGMENTS ?=
DELIMITER ?=
ENCODING ?=
BIN := .venv/bin
READY := .venv/ready
IMAGE_EXTRAS := sandbox postgresql delta duckdb charts dask kubernetes redis otel openlineage
TEST := $(BIN)/python -m pytest -m "not s3 and not chaos and not stack and not containers" --numprocesses 2 --dist worksteal
TEST_S3 := $(BIN)/python -m pytest tests/s3

.PHONY: demo test test-s3 test-stack test-containers chaos coverage check bounds up format documents site constraints clean

demo: $(READY)
	@$(BIN)/nudgeflow demo --lake "$(LAKE)" --list "$(LIST)" --segments "$(SEGMENTS)" --delimiter "$(DELIMITER)" --encoding "$(ENCODING)"

test: $(READY)
	@$(TEST)

# Against Ceph's S3 gateway, started for it.
test-s3: $(READY)
	@$(TEST_S3)

# As it is operated: servers, the UI in a browser, every command of the documents.
test-stack: $(READY)
	@$(BIN)/python -m pytest -m stack --numprocesses 2 --dist loadfile --no-loadscope-reorder

# As it is deployed: images built, compose.yaml brought up, containers killed. What images stand on,
# and their layers, are kept by podman for the next time.
test-containers: $(READY)
	@$(BIN)/python -m pytest -m containers tests/containers

# What happens when something is killed; CHAOS_SEED chooses the order and the ways to go on, and
# CHAOS_HALF, 0 or 1, every other of the points.
chaos: $(READY)
	@$(BIN)/python -m pytest -m chaos -p tests.chaos.table --numprocesses 2 --dist worksteal

# What `test` and `test-s3` cover together; they take a sixth longer with it.
coverage: $(READY)
	@$(TEST) --cov --cov-report= --cov-fail-under=0
	@$(TEST_S3) --cov --cov-append --cov-report=term

check: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@printf '%s\n' 3.11 3.13 | xargs -P 2 -n 1 $(BIN)/pyright --pythonversion
	@$(BIN)/lint-imports

# With the oldest libraries that pyproject.toml allows, and with the newest on each newer Python here.
bounds: $(READY)
	@$(BIN)/python -m tests.bounds

up: $(READY)
	@$(BIN)/nudgeflow up

format: $(READY)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# What is generated from the contract and its tests, and committed.
documents: $(READY)
	@$(BIN)/python -m sandbox openapi > docs/openapi.json
	@$(BIN)/python -m deployments.reference > docs/reference.md
	@$(BIN)/python -m tests.conformance

# The documents as a site, in build/site/html; a broken link fails it, here and in `make test`.
site: $(READY)
	@$(BIN)/python docs/build.py

# Resolves all extras anew and pins what the resolver chose. A uv.lock would hold the addresses of the
# index that made it. To add one package and leave the other pins: `pip install --constraint
# constraints.txt PACKAGE`, then add the lines that `pip freeze` has more.
constraints:
	@rm -rf .venv && $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --editable ".[development]"
	@$(BIN)/pip freeze --exclude-editable > constraints.txt
	@$(BIN)/uv pip compile pyproject.toml --quiet --group image $(IMAGE_EXTRAS:%=--extra %) --constraint constraints.txt \
		--python-version 3.11 --python-platform linux --generate-hashes --no-header --no-annotate --output-file deployments/requirements.txt

$(READY): constraints.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[development]"
	@touch $(READY)

clean:
	rm -rf .venv .demo .local lake
