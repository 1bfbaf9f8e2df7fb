"""Goes on writing a text, on graphs that take exactly 8 tokens or 1 and a cache of a fixed length.

Exports a PyTorch model to graphs for texts of at most 48 tokens, finishes four sentences with transformers' own
`generate()`, and does the same with transformers on PyTorch. What to look for: the prompts have other lengths than the
graphs, the text grows with each token, and it is PyTorch's, token for token. Without ``--model`` it is a small GPT-2
that learns a dozen proverbs on the spot. With the folder of a stock ONNX export, nothing is exported again: its shapes
are pinned when it is loaded, and the graph as it was is what it is compared with.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from optimum_fixedshape import AutoTokenizer, ORTModelForCausalLM, export_model, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
import offline
from side_by_side import show_times

PROMPTS = ["A stitch", "When the cat is away, the", "Rome", "Too many cooks"]
SHAPES = {"batch_size": 1, "context_length": 48, "prefill_length": 8}
SETTINGS = {"max_new_tokens": 16, "do_sample": False}


def make_pipeline(source: str | Path, folder: Path) -> Any:
    """What you would write for a PyTorch model: export once, load, and call it like any pipeline."""
    export_model(source, folder, task="text-generation", shapes=SHAPES, progress=False)
    model = ORTModelForCausalLM.from_pretrained(folder)
    return pipeline("text-generation", model=model, data_processor=AutoTokenizer.from_model(model))


def pin_export(source: str | Path) -> Any:
    """What you would write for a folder that ``optimum-cli export onnx --task text-generation-with-past`` made."""
    model = ORTModelForCausalLM.from_pretrained(source, shapes=SHAPES)
    return pipeline("text-generation", model=model, data_processor=AutoTokenizer.from_model(model))


def main() -> None:
    """Runs it beside PyTorch, or beside the graph whose shapes are open."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("prompts", nargs="*", default=PROMPTS, help="texts to finish")
    parser.add_argument(
        "--model", help="a PyTorch model that writes: a folder or a Hub id; or the folder of a stock ONNX export"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model and [*Path(arguments.model).glob("*.onnx")]:
            theirs = pipeline("text-generation", model=ORTModelForCausalLM.from_pretrained(arguments.model))
            compare(pin_export(arguments.model), theirs, "the graph with open shapes", arguments.prompts)
        else:
            source = arguments.model or offline.text_generator(Path(folder) / "gpt2")
            theirs = transformers.pipeline("text-generation", model=str(source))
            ours = make_pipeline(source, Path(folder) / "gpt2-fixed")
            compare(ours, theirs, "transformers on PyTorch", arguments.prompts)


def compare(ours: Any, theirs: Any, name: str, prompts: list[str]) -> None:
    """Prints what was written, whether the other wrote the same, and how long both took."""
    written = ours(prompts, **SETTINGS)
    print("1. What was written\n")
    for prompt, answers in zip(prompts, written, strict=True):
        print(f"   {prompt} |{answers[0]['generated_text'].removeprefix(prompt)}")

    print(f"\n2. The same from {name}: {written == theirs(prompts, **SETTINGS)}")
    inputs = theirs.tokenizer(prompts[-1], return_tensors="pt")
    with torch.no_grad():
        apart = float((ours.model(**inputs).logits - theirs.model(**inputs).logits).abs().max())
    print(f"   Largest difference in the logits of {prompts[-1]!r}: {apart:.1e}")

    print(f"\n3. Time for {len(prompts)} texts\n")
    show_times({name: lambda: theirs(prompts, **SETTINGS), "optimum_fixedshape": lambda: ours(prompts, **SETTINGS)})


if __name__ == "__main__":
    main()
