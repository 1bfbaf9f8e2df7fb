"""Every script of examples/ runs by itself, from any folder and without a network, and its answers make sense."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from . import stock

EXAMPLES = Path(__file__).parents[1] / "examples"
SCRIPTS = sorted(str(path.relative_to(EXAMPLES)) for path in EXAMPLES.glob("*/*.py"))
TINY = r"(\d(\.\d)?e-(0[5-9]|[1-9]\d)|0(\.0)?e\+00)"  # what rounding leaves: below 0.0001

SAID: Mapping[str, Sequence[str]] = {
    "advanced/batch_processing.py": [
        rf"Labels as PyTorch gives them, in all \d ways: True\. Largest difference of a score: {TINY}\.",
    ],
    "advanced/concurrent_server.py": [
        rf"Every answer is that of a call by itself: True\. Largest difference of a score: {TINY}\.",
        r"\[\(200, 8\), \(400, 8\), \(413, 8\)\]",
        r"Each of them to its own client: True",
    ],
    "advanced/custom_processors.py": [
        r"StaffTokenizer, pipeline +(\d+) of \1 right",
        r"StaffTokenizer, bare session +(\d+) of \1 right",
        r"lime +on black: red 0\.0, green 1\.0, blue 0\.0",
    ],
    "advanced/long_documents.py": [
        r"by default +Item 1: The item has sequence_length \d+, and the largest rung holds sequence_length 64",
        r"Entities as in PyTorch on the whole letter: True",
        r"Answers as in PyTorch on the whole letter: True",
        r"window +cosine with PyTorch on the whole letter 0\.[7-9]",
    ],
    "advanced/performance_optimization.py": [r"in all steps without int8: True"],
    "basic/audio_transcription.py": [
        r"0\.60 s, the notes 'gage':\n +'gage'",
        r"2\.25 s, the notes 'edcdeee ddd egg':\n +'edcdeee ddd egg'",
        r"5\.70 s, the notes '(.+)':\n +'\1'",
        r"The same text from PyTorch: True",
        rf"(Largest difference in the logits of a sound that fits: {TINY}\s+){{2}}",
    ],
    "basic/image_classification.py": [
        r"a \w+ circle +64 x 64 +circle ",
        r"a \w+ square +200 x 160 +square ",
        r"a \w+ triangle +33 x 35 +triangle ",
        rf"Largest difference from PyTorch, .*: {TINY}",
    ],
    "basic/multimodal_clip.py": [
        r"a red circle +200 x 240 +a red circle ",
        r"a blue square +64 x 64 +a blue square ",
        r"a yellow triangle +130 x 100 +a yellow triangle ",
        rf"Largest difference from PyTorch, over all scores: {TINY}",
        r"In two calls, 6 images and 5 descriptions went through the graph",
    ],
    "basic/semantic_search.py": [
        r"Got invalid dimensions",
        rf"Largest difference from PyTorch, .*: {TINY}",
    ],
    "basic/text_classification.py": [
        r"delivery +0\.9\d+  My parcel",
        r"billing +0\.9\d+  You charged",
        r"technical +0\.9\d+  The app",
        r"the graph of 16 tokens took 4\n +the graph of 64 tokens took 1\n",
        rf"Largest difference from PyTorch, .*: {TINY}",
    ],
    "basic/text_generation.py": [
        r"A stitch \| in time saves nine\.\n",
        r"Rome \| was not built in a day\.\n",
        r"The same from transformers on PyTorch: True",
        rf"Largest difference in the logits of .*: {TINY}",
    ],
    "integration/with_datasets.py": [
        rf"datasets\.map: 320 vectors in .* largest difference {TINY}",
        r"read from the disk: True",
    ],
    "integration/with_export.py": [
        r"verdict: pass",
        r"delivery +(0\.\d+|1\.000)  My parcel",
        rf"Largest difference from PyTorch, over all logits: {TINY}",
        r"(\d) of \1 labels are the same",
        r"\n +delivery, billing, technical, delivery\n",
        r"Refund\? +is most like  You charged",
        rf"Largest difference from PyTorch, over both outputs: {TINY}",
    ],
    "integration/with_gradio.py": [
        r"delivery +0\.\d+ ",
        r"Every answer is the pipeline's own: True",
    ],
    "integration/with_optimum.py": [
        r"isinstance\(model, optimum's OptimizedModel\): True",
        r"model_4x16\.onnx .* batch_size 4, sequence_length 16 ",
        r"optimum-onnx is not installed|isinstance\(model, optimum's class\): True",
        rf"optimum-onnx is not installed|Largest difference from PyTorch: {TINY}",
        rf"optimum-onnx is not installed|four texts of 64 tokens: stock and ours differ by {TINY}",
        r"optimum-onnx is not installed|one text, ours:  delivery",
    ],
    "integration/with_pipelines.py": [
        rf"The same answers \d ways, \d kinds of call: at most {TINY} apart",
        r"isinstance\(pipe, Cautious\): True",
    ],
    "integration/with_ray.py": [
        r"Ray Data: +(\d+) messages .*; \1 answers are those",
        r"Ray Serve: +(\d+) requests .*; \1 answers are those",
    ],
    "integration/with_sentence_transformers.py": [
        rf"SentenceTransformer on fixed graphs +{TINY}",
        rf"pipe\.embed\(\) +{TINY}",
        r"the same vectors: True",
    ],
}
"""What each script must have printed, as patterns."""
NEEDS = {"integration/with_gradio.py": "gradio"}  # which only one of the two stacks has

WARNED_OF = {"integration/with_ray.py": ["ray.data.context", "ray.serve._private.config"]}
"""Modules of other packages that deprecate what they do themselves."""


def test_every_example_is_here():
    assert [*SAID] == SCRIPTS


@pytest.mark.parametrize("script", SCRIPTS)
def test_an_example_prints_what_it_promises(script, tmp_path):
    if not importlib.util.find_spec(NEEDS.get(script, "transformers")):
        pytest.skip(f"{NEEDS[script]} is not installed on this stack")
    assert_said(run(script, folder=tmp_path), SAID[script])
    assert not [*tmp_path.iterdir()]  # examples leave nothing behind


def test_a_stock_export_is_pinned(tmp_path):
    said = run("basic/text_generation.py", "--model", str(stock.graphs("gpt2")), folder=tmp_path)
    assert_said(said, [r"The same from the graph with open shapes: True", rf"Largest difference in .*: {TINY}"])


def assert_said(said: str, patterns: Sequence[str]) -> None:
    missing = [pattern for pattern in patterns if not re.search(pattern, said)]
    assert not missing, f"no {missing} in:\n{said}"


def run(script: str, *arguments: str, folder: Path) -> str:
    """Runs a script as its reader would; a warning is an error."""
    filters = [f"-Wignore::DeprecationWarning:{module}" for module in WARNED_OF.get(script, ())]
    done = subprocess.run(
        [sys.executable, "-Werror", *filters, EXAMPLES / script, *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
