"""transformers' own `pipeline()` with a model of this package, and this package's with the arguments of transformers.

One PyTorch model, its graphs of 4 texts of 16 or 64 tokens, and six ways to put the graphs into a pipeline. Look for:
every way gives the labels of PyTorch, with scores that agree to the last digits of float32, for every kind of call;
and the times, since transformers' own pipeline runs text by text unless it is told a batch size. Without ``--model`` it
is a small BERT, trained on the spot to sort messages to a shop.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

import optimum_fixedshape
from optimum_fixedshape import AutoTokenizer, ORTModelForSequenceClassification, export_model

sys.path.insert(0, str(Path(__file__).parents[1]))
import offline
from side_by_side import largest_difference, show_times

TASK = "text-classification"
TEXTS = [
    "My parcel has still not arrived.",
    "You charged my credit card twice!",
    "The app crashes whenever I open it.",
    "Three days ago my order was sent to an address where I have not lived for years. Can you find the box, please?",
    "Refund?",
] * 4


def ways_to_run(folder: Path) -> dict[str, Any]:
    """Six pipelines on the same graphs: what you would write, in transformers' words or in this package's."""
    model = ORTModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_model(model)
    stock_tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs, ours = transformers.pipeline, optimum_fixedshape.pipeline
    return {
        "transformers, our model and tokenizer": theirs(TASK, model=model, tokenizer=tokenizer),
        "transformers, our model, its tokenizer": theirs(TASK, model=model, tokenizer=stock_tokenizer),
        "transformers, trust_remote_code": theirs(TASK, model=str(folder), trust_remote_code=True),
        "transformers, our name of the task": theirs(f"fixed-shape-{TASK}", model=str(folder)),
        "optimum_fixedshape, a folder": ours(TASK, model=folder),
        "optimum_fixedshape, its tokenizer": ours(TASK, model=model, tokenizer=stock_tokenizer),
    }


CALLS: dict[str, Callable[[Any], Any]] = {
    "pipe(text)": lambda pipe: pipe(TEXTS[0]),
    "pipe(texts, batch_size=8, top_k=None)": lambda pipe: pipe(TEXTS, batch_size=8, top_k=None),
    "pipe(texts, truncation=True, max_length=8)": lambda pipe: pipe(TEXTS, truncation=True, max_length=8),
    'pipe({"text": ..., "text_pair": ...})': lambda pipe: pipe({"text": TEXTS[0], "text_pair": TEXTS[4]}),
    "pipe(a generator), one by one": lambda pipe: list(pipe(text for text in TEXTS)),
}
"""Every call is transformers'."""


class Cautious(transformers.TextClassificationPipeline):
    """A pipeline class of one's own, written for transformers: its answers say whether they are sure."""

    def postprocess(self, model_outputs: Any, **options: Any) -> dict[str, Any]:
        """Returns transformers' best answer, with a note."""
        answer = super().postprocess(model_outputs, **options)
        return answer | {"sure": answer["score"] > 0.9}


def main() -> None:
    """Exports, and compares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a PyTorch model that classifies texts: a folder or a Hub id")
    source = parser.parse_args().model
    with tempfile.TemporaryDirectory() as temporary:
        source = source or offline.text_classifier(Path(temporary) / "bert")
        shapes = {"batch_size": 4, "sequence_length": [16, 64]}
        folder = export_model(source, Path(temporary) / "bert-fixed", task=TASK, shapes=shapes, progress=False)
        compare(transformers.pipeline(TASK, model=str(source)), ways_to_run(folder), folder)


def compare(original: Any, pipes: dict[str, Any], folder: Path) -> None:
    """Prints how far each way is from PyTorch, for each kind of call, and how long it takes."""
    print("1. Largest difference of a score from PyTorch's; every label is the same\n")
    worst = 0.0
    for call, answers_of in CALLS.items():
        expected = answers_of(original)
        found = max(largest_difference(answers_of(pipe), expected) for pipe in pipes.values())
        worst = max(worst, found)
        print(f"   {call:<46}{found:.1e}")
    print(f"\n   The same answers {len(pipes)} ways, {len(CALLS)} kinds of call: at most {worst:.1e} apart.")

    print(f"\n2. Time for {len(TEXTS)} texts\n")
    timed = {"transformers, PyTorch": original} | pipes
    show_times({name: lambda pipe=pipe: pipe(TEXTS) for name, pipe in timed.items()})

    print("\n3. A pipeline class of your own, on the graphs\n")
    own = optimum_fixedshape.pipeline(TASK, model=folder, pipeline_class=Cautious)
    for text, answer in zip(TEXTS[:5], own(TEXTS[:5]), strict=True):
        print(f"   {answer['label']:<12}{'sure' if answer['sure'] else 'unsure':<8}{text[:60]}")
    print(f"\n   isinstance(pipe, Cautious): {isinstance(own, Cautious)}")


if __name__ == "__main__":
    main()
