# Two commands do all the set-up: `make demo` and `make test`. They need Python 3.11+ and PyPI.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := demo
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo test lint types test-slow test-oracle test-gpu test-browser integration integration-lite docs docs-reference package setup clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

$(STAMP): pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes some minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP) ## create .venv and install what constraints.txt pins

demo: $(STAMP) ## index examples/corpus.jsonl into Milvus Lite and search it three ways
	@mkdir -p $(DEMO)
	@BIN=$(BIN) DEMO=$(DEMO) sh examples/demo.sh

test: $(STAMP) ## the default tests: fast, no network, no server, no GPU
	$(BIN)/python -m pytest -n 2

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

test-slow: $(STAMP) ## minutes to an hour: kill tests, full collections (M3INDEX_DATA), many examples
	$(BIN)/python -m pytest -m slow

integration-lite: $(STAMP) ## the integration suite against `milvus-lite server`, over gRPC
	$(BIN)/python -m pytest -m integration

integration: $(STAMP) ## the integration suite against the Milvus of docker-compose.yml
	MILVUS_AUTH=true docker compose up --detach --wait; status=$$?; \
	if [ $$status = 0 ]; then \
	  M3INDEX_TEST_URI=http://127.0.0.1:19530 M3INDEX_TEST_TOKEN=root:Milvus $(BIN)/python -m pytest -m integration; \
	  status=$$?; fi; \
	docker compose down --volumes; exit $$status

build/engines/%: # milvus-lite-2.5.1, milvus-2.3.5: name and version of a package, in a venv of its own
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check --no-deps "$$(echo '$*' | sed 's/-\([0-9]\)/==\1/')" || { rm -rf $@; exit 1; }

engines: $(STAMP) build/engines/milvus-lite-2.5.1 build/engines/milvus-2.3.5 ## second opinions: older engines of PyPI (110 MB, 10 minutes)
	$(BIN)/python -m pytest -m engines
	$(BIN)/python tests/engines/servers.py $(BIN)/python -m pytest -m integration tests/integration --deselect tests/integration/test_faults.py

test-oracle: ## against FlagEmbedding and sentence-transformers, in a virtual environment of its own
	@test -d .venv-oracle || $(PYTHON) -m venv .venv-oracle
	.venv-oracle/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]' -r tests/oracle/requirements.txt
	.venv-oracle/bin/python -m pytest -m oracle

test-browser: $(STAMP) ## the page of `m3index serve` in Chromium (Debian's, or Playwright's own)
	$(BIN)/python -m pip install --quiet -c constraints.txt playwright
	$(BIN)/python -m pytest tests/serve -m browser

test-gpu: $(STAMP) ## needs CUDA
	$(BIN)/python -m pytest -m gpu

clean: ## remove what make made, the virtual environment too
	rm -rf $(VENV) .venv-docs $(DEMO) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

docs-reference: $(STAMP) ## write docs/reference.md from the commands
	$(BIN)/python -c 'from m3index.cli.reference import markdown; print(markdown(), end="")' > docs/reference.md

docs: ## the documentation as a site, into site/, in a virtual environment of its own
	@test -d .venv-docs || $(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet -c constraints.txt mkdocs-material
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

package: $(STAMP) ## build wheel and sdist, install the wheel into a fresh venv, try it
	rm -rf dist build/smoke build/build
	$(PYTHON) -m venv build/build
	build/build/bin/python -m pip install --quiet --disable-pip-version-check build
	build/build/bin/python -m build --outdir dist .
	$(PYTHON) -m venv build/smoke
	build/smoke/bin/python -m pip install --quiet -c constraints.txt "$$(ls dist/*.whl)[offline]"
	cd build/smoke && bin/m3index --version && bin/m3index ingest ../../examples/corpus.jsonl --encoder offline --uri smoke.db \
	  && bin/m3index search "honey bees" --uri smoke.db -k 1
