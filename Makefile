# Two commands do all the set-up: `make demo` and `make test`. They need Python 3.11+ and PyPI.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   := demo
TOOLS  := build/tools
LOCK   := UV_CUSTOM_COMPILE_COMMAND='make lock (torch is left out: see requirements/README.md)' \
	$(TOOLS)/bin/uv pip compile --quiet --config-file requirements/uv.toml --universal --python-version 3.11 \
	--generate-hashes --no-annotate --constraint constraints.txt --no-emit-package torch $(UPGRADE)
PIP    := -m pip install --quiet --disable-pip-version-check
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo test lint types audit lint-ci lock licences figures fuzz test-slow test-oracle bench-encode test-gpu test-browser \
	engines integration integration-lite docs docs-reference package sbom setup clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

# First everything but torch, each file held to its hash; then torch, and m3index itself without fetching anything to build it.
$(STAMP): pyproject.toml constraints.txt requirements/dev.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (the first time takes some minutes)"
	@$(BIN)/python $(PIP) --require-hashes --no-deps -r requirements/dev.txt
	@$(BIN)/python $(PIP) --no-build-isolation -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP) ## create .venv and install what is pinned, held to its hashes

$(TOOLS)/.installed: requirements/tools.txt
	@test -d $(TOOLS) || $(PYTHON) -m venv $(TOOLS)
	@$(TOOLS)/bin/python $(PIP) --require-hashes --no-deps -r $<
	@touch $@

lock: $(TOOLS)/.installed ## write the locks in requirements/ anew from pyproject.toml and constraints.txt (UPGRADE=--upgrade: newest tools)
	$(LOCK) --extra dev pyproject.toml requirements/build.in --output-file requirements/dev.txt
	$(LOCK) --extra offline --extra serve pyproject.toml requirements/build.in --output-file requirements/image.txt
	$(LOCK) requirements/tools.in --output-file requirements/tools.txt
	$(LOCK) requirements/docs.in --output-file requirements/docs.txt
	$(LOCK) requirements/fuzz.in --output-file requirements/fuzz.txt

demo: $(STAMP) ## index examples/corpus.jsonl into Milvus Lite and search it, also across languages
	@mkdir -p $(DEMO)
	@BIN=$(BIN) DEMO=$(DEMO) sh examples/demo.sh

test: $(STAMP) ## the default tests: fast, no network, no server, no GPU
	$(BIN)/python -m pytest -n 2

lint: $(STAMP) audit ## ruff, and pip-audit where an advisory service answers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

audit: ## pip-audit over what is pinned (AUDIT=required: an unreachable service is a failure)
	@if $(MAKE) --silent $(TOOLS)/.installed; \
	then $(TOOLS)/bin/python requirements/audit.py constraints.txt requirements/*.txt; \
	else echo "pip-audit: skipped: $(TOOLS) could not be installed"; test "$$AUDIT" != required; fi

lint-ci: $(TOOLS)/.installed ## the Dockerfiles, the compose file and the workflow
	$(TOOLS)/bin/hadolint Dockerfile deploy/Dockerfile
	$(TOOLS)/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(TOOLS)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	$(TOOLS)/bin/zizmor --offline --no-progress --quiet .github/workflows

licences: $(STAMP) $(TOOLS)/.installed ## write docs/licences.md from what the installed packages say
	$(TOOLS)/bin/pip-licenses --python $(BIN)/python --from mixed --with-system --format json \
	  | $(BIN)/python requirements/licences.py > build/licences.md
	mv build/licences.md docs/licences.md

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

BENCH_ENCODE ?= --shape student --texts 48 --rounds 3 --int8 --flag-batch --st-batch 8
bench-encode: ## encoding beside FlagEmbedding, sentence-transformers, onnxruntime and bge-m3-lite, in an environment of its own
	@test -d .venv-peers || $(PYTHON) -m venv .venv-peers
	.venv-peers/bin/python -m pip install --quiet -c constraints.txt -e '.[dev]' -r benchmarks/peers.txt
	.venv-peers/bin/python benchmarks/encode.py $(BENCH_ENCODE)

test-browser: $(STAMP) ## the page of `m3index serve` in Chromium (Debian's, or Playwright's own)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[browser]'
	$(BIN)/python -m pytest tests/serve -m browser

build/fuzz/.installed: requirements/fuzz.txt # Atheris has wheels for Linux, and not for the newest Python
	@test -d build/fuzz || $(BIN)/python -m venv build/fuzz
	@build/fuzz/bin/python $(PIP) --require-hashes --no-deps -r $<
	@touch $@

FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?= rows parquet filter
fuzz: $(STAMP) build/fuzz/.installed ## the readers and the filter builder under Atheris, FUZZ_SECONDS (60) for each
	@for target in $(FUZZ_TARGETS); do mkdir -p build/fuzz/new/$$target; \
	  PYTHONPATH=$(CURDIR):$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') \
	  build/fuzz/bin/python tests/fuzz/harness.py $$target -max_total_time=$(FUZZ_SECONDS) -timeout=20 -rss_limit_mb=4096 \
	    -artifact_prefix=build/fuzz/$$target- build/fuzz/new/$$target tests/fuzz/corpus/$$target || exit 1; done

test-gpu: $(STAMP) ## needs CUDA
	$(BIN)/python -m pytest -m gpu

clean: ## remove what make made, the virtual environment too
	rm -rf $(VENV) .venv-docs .venv-peers $(DEMO) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis

docs-reference: $(STAMP) ## write docs/reference.md from the commands
	$(BIN)/python -c 'from m3index.cli.reference import markdown; print(markdown(), end="")' > docs/reference.md

figures: $(STAMP) ## draw docs/figures/*.svg from the tables of docs/performance.md and docs/results.md
	$(BIN)/python benchmarks/figures.py

docs: ## the documentation as a site, into site/, in a virtual environment of its own
	@test -d .venv-docs || $(PYTHON) -m venv .venv-docs
	@.venv-docs/bin/python $(PIP) --require-hashes --no-deps -r requirements/docs.txt
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet

package: $(STAMP) $(TOOLS)/.installed ## wheel, sdist and SBOM, into dist/; the wheel in a fresh venv, tried there
	rm -rf dist build/smoke
	$(TOOLS)/bin/python -m build --outdir dist .
	$(PYTHON) -m venv build/smoke
	build/smoke/bin/python $(PIP) -c constraints.txt "$$(ls dist/*.whl)"
	version="$$(build/smoke/bin/python -c 'import m3index; print(m3index.__version__)')"; \
	  sed "s/^dynamic = .*/version = \"$$version\"/" pyproject.toml > build/sbom.toml
	$(TOOLS)/bin/cyclonedx-py environment --pyproject build/sbom.toml --mc-type application --output-reproducible \
	  --output-file dist/m3index.cdx.json build/smoke/bin/python
	build/smoke/bin/python $(PIP) -c constraints.txt "$$(ls dist/*.whl)[offline]"
	cd build/smoke && bin/m3index --version && bin/m3index ingest ../../examples/corpus.jsonl --encoder offline --uri smoke.db \
	  && bin/m3index search "honey bees" --uri smoke.db -k 1

sbom: package ## dist/m3index.cdx.json, in CycloneDX: what the wheel installs in a clean environment
