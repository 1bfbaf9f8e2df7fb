"""A day's worth of calls in miniature: many threads, mixed calls, every answer known in advance.

    .venv/5/bin/python -m benchmarks.soak --calls 200000 --threads 16

Prints wrong answers and resident memory at ten points of the run, and fails if an answer was wrong. Models are tiny,
so that the code around them is what runs: text and token classification, embeddings and images; fixed rungs and open
sizes; single items and lists; texts cut into windows, and texts that are too long; calls joined by a batcher, too.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimum_fixedshape import export_model, pipeline
from optimum_fixedshape.errors import FixedShapeError
from tests import onnx_models, pictures, tiny, zoo
from tests.equality import assert_same

POINTS = 10
TOLERANCE = 1e-5  # rows are summed in another order in batches of another size
LADDER = {"batch_size": 2, "sequence_length": [8, 16]}
LONG = " ".join(tiny.SENTENCES)
TEXTS = ["Go", "A quiet library", "Rain fell on the market.", "Nobody in Zürich", ""]
LISTS = [TEXTS, TEXTS[::-1], ["Go"] * 3]
SPEECHLESS = [LONG, ["Go", LONG], None]


@dataclass(frozen=True)
class Known:
    """A call, and what it gives: an answer, or an error's type and message."""

    ask: Callable[[], Any]
    answer: Any

    def is_right(self) -> bool:
        """Whether the call gives the same once more."""
        try:
            assert_same(outcome(self.ask), self.answer, tolerance=TOLERANCE)
        except AssertionError as error:
            print(f"wrong: {error}", file=sys.stderr)
            return False
        return True


@dataclass(frozen=True)
class Point:
    """How things stood after so many calls.

    Attributes:
        calls: Made so far.
        wrong: Of them, answered otherwise than in advance.
        mebibytes: Resident memory of the process.
    """

    calls: int
    wrong: int
    mebibytes: float


def main() -> None:
    """Runs the calls, prints each point, and exits with 1 if an answer was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=200_000)
    parser.add_argument("--threads", type=int, default=16)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        calls = known_calls(pipelines(export(Path(folder))), stack)
        print(f"{len(calls)} kinds of call, {options.threads} threads")
        points, start = [], time.monotonic()
        for point in soak(calls, options.calls, options.threads):
            points.append(point)
            passed = time.monotonic() - start
            print(
                f"{point.calls:>9} calls {point.wrong:>3} wrong {point.mebibytes:>8.1f} MiB {passed:>7.0f} s",
                flush=True,
            )
    sys.exit(points[-1].wrong > 0)


def export(folder: Path) -> dict[str, Path]:
    """Returns folders of tiny models by name, made in `folder`."""
    words = tiny.tokenizer("wordpiece")
    parts = {
        task: (tiny.original("bert", task), words, LADDER) for task in ("text-classification", "token-classification")
    }
    parts["image-classification"] = (zoo.original("vit"), zoo.processor("vit"), zoo.ZOO["vit"].shapes)
    for task, (original, processor, shapes) in parts.items():
        export_model(original, folder / task, task=task, shapes=shapes, processor=processor, progress=False)
    encoder = tiny.original("bert", "feature-extraction")
    (folder / "feature-extraction").mkdir()
    onnx_models.export_dynamic(
        encoder,
        folder / "feature-extraction" / "model.onnx",
        inputs=onnx_models.ALL_INPUTS,
        outputs=["last_hidden_state", "pooler_output"],
    )
    words.save_pretrained(folder / "feature-extraction")
    encoder.config.save_pretrained(folder / "feature-extraction")
    return {path.name: path for path in folder.iterdir()}


def pipelines(folders: Mapping[str, Path]) -> dict[str, Any]:
    """Returns a pipeline for each task, and one that cuts long texts into windows."""
    pipes = {task: pipeline(task, model=folder) for task, folder in folders.items()}
    windows = pipeline("text-classification", model=folders["text-classification"], overflow="window")
    return {**pipes, "windows": windows}


def known_calls(pipes: Mapping[str, Any], stack: ExitStack) -> list[Known]:
    """Returns calls of every kind, each with what it gave alone; batchers among them are closed by `stack`."""
    pictured = [pictures.picture(width) for width in (30, 60)]
    calls = [
        *((pipes["text-classification"], item, {}) for item in [*TEXTS, *LISTS, *SPEECHLESS]),
        *((pipes["text-classification"], item, {"top_k": None}) for item in [*TEXTS, *LISTS]),
        *((pipes["text-classification"], LONG, {"truncation": True, "max_length": most}) for most in (7, 12)),
        *((pipes["windows"], item, {}) for item in [LONG, ["Go", LONG]]),
        *((pipes["token-classification"], item, {}) for item in [*TEXTS[:4], *LISTS[2:], LONG]),
        *((pipes["token-classification"], item, {"aggregation_strategy": "simple"}) for item in TEXTS[:4]),
        *((pipes["feature-extraction"], item, {}) for item in [*TEXTS, *LISTS]),
        *((pipes["image-classification"], item, {}) for item in [*pictured, pictured]),
    ]
    alone = [_known(pipe, item, params) for pipe, item, params in calls]
    return alone + [
        Known(_call(batcher, item, params), outcome(_call(batcher, item, params)))
        for pipe, batcher in [(pipe, stack.enter_context(pipe.stream())) for pipe in pipes.values()]
        for other, item, params in calls
        if other is pipe and not isinstance(item, list)
    ]


def outcome(ask: Callable[[], Any]) -> Any:
    """Returns what a call gives; of an error, its type and message."""
    try:
        return ask()
    except (FixedShapeError, ValueError, TypeError, AttributeError) as error:
        return type(error).__name__, str(error)


def soak(calls: Sequence[Known], count: int, threads: int, points: int = POINTS) -> Iterator[Point]:
    """Makes `count` calls, chosen at random, from so many threads; yields how things stand at equal intervals."""
    made, wrong = 0, 0
    with ThreadPoolExecutor(threads) as pool:
        for point in range(points):
            share = count * (point + 1) // points - made
            shares = [share // threads + (number < share % threads) for number in range(threads)]
            seeds = range(point * threads, (point + 1) * threads)
            wrong += sum(pool.map(lambda seed, some: _wrong_of(calls, seed, some), seeds, shares))
            made += share
            yield Point(made, wrong, resident_mebibytes())


def resident_mebibytes() -> float:
    """Returns the memory of this process that is in RAM, after what nobody holds any more was collected."""
    gc.collect()
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def _wrong_of(calls: Sequence[Known], seed: int, count: int) -> int:
    chosen = random.Random(seed)
    return sum(not chosen.choice(calls).is_right() for _ in range(count))


def _call(pipe: Any, item: Any, params: Mapping[str, Any]) -> Callable[[], Any]:
    return lambda: pipe(item, **params)


def _known(pipe: Any, item: Any, params: Mapping[str, Any]) -> Known:
    ask = _call(pipe, item, params)
    return Known(ask, outcome(ask))


if __name__ == "__main__":
    main()
