"""Tells what texts are about, on graphs that take exactly 8 texts of 16 or 64 tokens.

Exports a PyTorch model, classifies five texts with the graphs, and does the same with transformers on PyTorch. What to
look for: five texts are not 8 and none has 16 tokens or 64, and still the answers are PyTorch's. Without ``--model`` it
is a small BERT, trained on the spot to sort messages to a shop.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import transformers

from optimum_fixedshape import AutoTokenizer, ORTModelForSequenceClassification, export_model, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
import offline
from side_by_side import largest_difference, show_times, show_use

TEXTS = [
    "My parcel has still not arrived.",
    "You charged my credit card twice!",
    "The app crashes whenever I open it.",
    "I was always happy with you. But three days ago my order was left at the wrong house, and the courier does not "
    "answer. Can you find the box, please?",
    "Refund?",
]


def make_pipeline(source: str | Path, folder: Path) -> Any:
    """What you would write: export once, load, and call it like any pipeline."""
    shapes = {"batch_size": 8, "sequence_length": [16, 64]}
    export_model(source, folder, task="text-classification", shapes=shapes, progress=False)
    model = ORTModelForSequenceClassification.from_pretrained(folder)
    return pipeline("text-classification", model=model, data_processor=AutoTokenizer.from_model(model))


def main() -> None:
    """Runs it beside PyTorch."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("texts", nargs="*", default=TEXTS, help="texts to classify, up to 64 tokens each")
    parser.add_argument("--model", help="a PyTorch model that classifies texts: a folder or a Hub id")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.model or offline.text_classifier(Path(folder) / "bert")
        ours = make_pipeline(source, Path(folder) / "bert-fixed")
        theirs = transformers.pipeline("text-classification", model=str(source))
        compare(ours, theirs, arguments.texts)


def compare(ours: Any, theirs: Any, texts: list[str]) -> None:
    """Prints the answers, which graphs gave them, how far they are from PyTorch's, and how long both took."""
    print("1. Answers\n")
    for text, answer in zip(texts, ours(texts), strict=True):
        print(f"   {answer['label']:<12}{answer['score']:.3f}  {text if len(text) < 80 else text[:76] + ' ...'}")

    print("\n2. Where the texts ran\n")
    show_use(ours.model.stats, "sequence_length", "tokens")

    difference = largest_difference(ours(texts, top_k=None), theirs(texts, top_k=None))
    print(f"\n3. Largest difference from PyTorch, over the scores of all labels: {difference:.1e}")

    print(f"\n4. Time for {len(texts)} texts\n")
    show_times(
        {
            "transformers on PyTorch": lambda: theirs(texts),
            "transformers on PyTorch, batch_size=8": lambda: theirs(texts, batch_size=8),
            "optimum_fixedshape": lambda: ours(texts),
        }
    )


if __name__ == "__main__":
    main()
