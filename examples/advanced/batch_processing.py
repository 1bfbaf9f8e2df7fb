"""Thousands of texts of very different lengths through one ladder of graphs, beside PyTorch.

Exports a text classifier to graphs that take exactly 8 texts of 16, 32, 64 or 256 tokens. The same messages then come
as a list, as a generator and as a column of a data set. What to look for: texts of like length share runs, if the
pipeline sees enough of them at once. Of a list it does; of a generator it takes one batch ahead, since somebody may be
waiting, and more if it is told to. The model's `stats` tell how many runs that takes, and how much of them is padding.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers

from optimum_fixedshape import export_model, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))

from offline import NEUTRAL, TOPICS, text_classifier

SHAPES = {"batch_size": 8, "sequence_length": [16, 32, 64, 256]}
Answers = list[dict[str, Any]]


def as_list(pipe: Any, texts: list[str]) -> Answers:
    """A list is looked at as a whole (64 batches at a time), so that texts of like length share runs."""
    return pipe(texts)


def as_generator(pipe: Any, texts: list[str]) -> Answers:
    """A generator, such as one that reads a file line by line, is read as answers are asked for."""
    return list(pipe(text for text in texts))


def as_column(pipe: Any, texts: list[str]) -> Answers:
    """A column of a data set is taken like a list."""
    import datasets

    return pipe(datasets.Dataset.from_dict({"text": texts})["text"])


WAYS: list[tuple[str, Callable[[Any, list[str]], Answers], dict[str, int]]] = [
    ("a list", as_list, {}),
    ("a generator", as_generator, {}),
    ("a generator, max_delay_items=128", as_generator, {"max_delay_items": 128}),
    ("a column of a data set", as_column, {}),
]


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help="a text classifier in PyTorch form, to export: a folder or a Hub id")
    parser.add_argument("--texts", type=int, default=2000, help="how many texts (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        source = arguments.model or text_classifier(Path(temporary) / "torch")
        run(source, export_model(source, Path(temporary) / "fixed", shapes=SHAPES, progress=False), arguments.texts)


def run(source: str | Path, folder: Path, count: int) -> None:
    """Answers the messages in each way, and compares."""
    texts = messages(count)
    words = sorted(len(text.split()) for text in texts)
    print(f"{count} messages of {words[0]} to {words[-1]} words, half of them of {words[count // 2]} or fewer.\n")
    print(f"{'':<40}{'seconds':>8}{'texts/s':>9}{'runs':>7}   padding")

    original = transformers.pipeline("text-classification", model=str(source), device="cpu")
    expected, alone = timed("PyTorch, one by one", lambda: original(texts, truncation=True))
    print()
    _, batched = timed("PyTorch, batch_size=8", lambda: original(texts, truncation=True, batch_size=8))
    print()
    taken, given = [], []
    for name, way, options in WAYS:
        pipe = pipeline("text-classification", model=folder, **options)
        answers, seconds = timed(name, lambda pipe=pipe, way=way: way(pipe, texts))
        print(f"{sum(rung.runs for rung in pipe.model.stats):>7}{waste(pipe.model.stats):>10.0%}")
        taken.append(seconds)
        given.append(answers)

    print("\nWhere these texts went, each run of 8 rows:")
    for rung in reversed(pipe.model.stats):
        length = rung.sizes["sequence_length"]
        print(f"{length:>6} tokens{rung.runs:>6} runs{rung.rows:>7} texts{rung.waste:>6.0%} padding")
    times = f"{alone / taken[0]:.1f} times as fast as one by one, {batched / taken[0]:.1f} times as batches"
    same = all([each["label"] for each in answers] == [each["label"] for each in expected] for answers in given)
    apart = max(abs(a["score"] - b["score"]) for answers in given for a, b in zip(answers, expected, strict=True))
    print(f"\nA list beside PyTorch: {times}.")
    print(f"Labels as PyTorch gives them, in all {len(WAYS)} ways: {same}. Largest difference of a score: {apart:.0e}.")


def messages(count: int) -> list[str]:
    """Messages to a shop, most of them short and some very long; the same ones at every run."""
    chance, made = random.Random(1), []
    for _ in range(count):
        thing, trouble = (chance.choice(part.split("|")) for part in chance.choice(list(TOPICS.values())))
        start, more = chance.randrange(len(NEUTRAL) - 150), int(min(chance.lognormvariate(2, 1), 150))
        made.append(" ".join([thing, trouble, *NEUTRAL[start : start + more]]))
    return made


def timed(name: str, call: Callable[[], Answers]) -> tuple[Answers, float]:
    """What the call returns, and the seconds that it took, which are printed."""
    start = time.perf_counter()
    answers = call()
    seconds = time.perf_counter() - start
    print(f"{name:<40}{seconds:8.2f}{len(answers) / seconds:9.0f}", end="")
    return answers, seconds


def waste(stats: Any) -> float:
    """The share of all computed tokens that is padding."""
    computed = [rung.runs * rung.sizes["batch_size"] * rung.sizes["sequence_length"] for rung in stats]
    return sum(tokens * rung.waste for tokens, rung in zip(computed, stats, strict=True)) / sum(computed)


if __name__ == "__main__":
    main()
