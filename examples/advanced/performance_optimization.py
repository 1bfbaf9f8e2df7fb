"""From one slow graph padded to its maximum to a fast ladder, step by step, and what each step costs in accuracy.

Starts with what fixed shapes are often blamed for: one graph as long as the longest text, and every text padded to it.
Then a ladder computed from the lengths of one's own texts, fused operators, and int8, with ranges found at each run and
with ranges from samples. What to look for: the ladder gains the most and changes nothing; int8 changes answers, and how
many is measured on texts that no sample came from. The ratios are those of this machine and this model: try your own.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from optimum_fixedshape import AutoTokenizer, export_model, pin_shapes, pipeline, suggest_ladder

sys.path.insert(0, str(Path(__file__).parents[1]))

from offline import NEUTRAL, TOPICS, text_classifier

ROWS, MAX_RUNGS, ROUNDS = 8, 3, 3
Steps = dict[str, Any]


def steps_from(source: str | Path, output: Path, texts: list[str], samples: list[str]) -> Steps:
    """A pipeline for each step: one export, and three graphs made from it.

    Args:
        source: A text classifier in PyTorch form.
        output: Where the graphs go.
        texts: What the lengths are taken from.
        samples: What the ranges of int8 are taken from.
    """
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    best = suggest_ladder([len(ids) for ids in tokenizer(texts + samples)["input_ids"]], max_rungs=MAX_RUNGS)
    print(f"Rungs for these lengths: {', '.join(map(str, best.rungs))} tokens.")
    print(f"Real tokens among those computed: {best.real_with_one:.0%} with the longest, {best.real:.0%} with all.\n")

    shapes = {"batch_size": ROWS, "sequence_length": list(best.rungs)}
    ladder = export_model(source, output / "ladder", shapes=shapes, progress=False)
    fused = pin_shapes(ladder, output / "fused", {}, optimize=True, progress=False)
    int8 = pin_shapes(ladder, output / "int8", {}, optimize=True, dtype="int8", progress=False)
    told = AutoTokenizer.from_model(ladder)
    ranges = [told(samples[at : at + ROWS], return_tensors="np") for at in range(0, len(samples), ROWS)]
    static = pin_shapes(ladder, output / "static", {}, optimize=True, dtype="int8", calibration=ranges, progress=False)
    return {
        "one graph, padded to the maximum": pipeline("text-classification", model=ladder / "model.onnx"),
        "a ladder": pipeline("text-classification", model=ladder),
        "a ladder, optimized": pipeline("text-classification", model=fused),
        "a ladder, optimized, int8": pipeline("text-classification", model=int8),
        "a ladder, optimized, int8 from samples": pipeline("text-classification", model=static),
    }


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a text classifier in PyTorch form, to export: a folder or a Hub id")
    parser.add_argument("--texts", type=Path, help="a file of your own texts, one a line; half of them are samples")
    arguments = parser.parse_args()
    texts = arguments.texts.read_text(encoding="utf-8").splitlines() if arguments.texts else messages(384)
    with tempfile.TemporaryDirectory() as temporary:
        source = arguments.model or text_classifier(Path(temporary) / "torch")
        run(source, Path(temporary), texts[::2], texts[1::2])


def run(source: str | Path, output: Path, texts: list[str], samples: list[str]) -> None:
    """Makes the graphs, and measures them in turns."""
    steps = steps_from(source, output, texts, samples)
    original = transformers.pipeline("text-classification", model=str(source), device="cpu")
    every: Steps = {"PyTorch, one by one": original, **steps}
    answers = {name: scores(pipe, texts) for name, pipe in every.items()}
    times = seconds_of({name: lambda pipe=pipe: pipe(texts) for name, pipe in every.items()})

    start = "one graph, padded to the maximum"
    print(f"{len(texts)} texts, graphs of {ROWS} rows; median of {ROUNDS} rounds, taking turns.\n")
    print(f"{'':<40}{'ms a text':>10}{'times as fast':>15}{'answers changed':>17}{'lowest cosine':>15}")
    wanted = answers["PyTorch, one by one"]
    for name, seconds in times.items():
        changed = np.mean(answers[name].argmax(-1) != wanted.argmax(-1))
        cost = f"{changed:17.1%}{cosines(answers[name], wanted).min():15.4f}"
        print(f"{name:<40}{1000 * seconds / len(texts):10.2f}{times[start] / seconds:15.1f}{cost}")
    exact = all(np.allclose(answers[name], wanted, atol=1e-4) for name in list(steps)[:3])
    print(f"\nSame scores as PyTorch, to 0.0001, in all steps without int8: {exact}.")


def scores(pipe: Any, texts: list[str]) -> np.ndarray:
    """The score of each label for each text, ``(texts, labels)``, labels in alphabetical order."""
    answers = pipe(texts, top_k=None)
    return np.array([[each["score"] for each in sorted(answer, key=lambda each: each["label"])] for answer in answers])


def cosines(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """How alike two lists of vectors are, row by row; 1 where they point the same way."""
    return (some * others).sum(-1) / np.linalg.norm(some, axis=-1) / np.linalg.norm(others, axis=-1)


def seconds_of(calls: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The median time of each call; the calls take turns, so that the machine treats them alike."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(each) for name, each in times.items()}


def messages(count: int) -> list[str]:
    """Messages to a shop, most of them short and some very long; the same ones at every run."""
    chance, made = random.Random(1), []
    for _ in range(count):
        thing, trouble = (chance.choice(part.split("|")) for part in chance.choice(list(TOPICS.values())))
        start, more = chance.randrange(len(NEUTRAL) - 400), int(min(chance.lognormvariate(2, 1.2), 400))
        made.append(" ".join([thing, trouble, *NEUTRAL[start : start + more]]))
    return made


if __name__ == "__main__":
    main()
