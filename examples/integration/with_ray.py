"""Many workers: a table of messages sorted by Ray Data, and a service of Ray Serve that joins requests into batches.

Ray starts the workers, hands them batches, and gives a dead worker's batches to another one; each worker has one
pipeline. Look for three things: workers answer what one pipeline answers; 64 requests at once are run as a few full
batches; and on a model this small the engine takes longer than one pipeline alone (docs/scaling.md says when it pays).

Runs offline on a small model that it trains. ``--model`` takes a folder or a Hub repo with the graphs of a text
classifier, and ``--address`` a cluster that is there already, each machine of which must reach the model.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")
os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")

import ray
import ray.data
from ray import serve

from optimum_fixedshape import export_model, pipeline

sys.path.insert(0, str(Path(__file__).parents[1]))
import offline

WORKERS = 2
COPIES = 10  # of each message, so that there is something to do
REQUESTS = 64
STORE_BYTES = 200 * 2**20  # for tables in shared memory; Ray would take a third of the machine's


class Sorter:
    """A worker of Ray Data. Ray sets OMP_NUM_THREADS to the CPUs it has, and its sessions keep to that."""

    def __init__(self, model: str) -> None:
        self.pipe = pipeline("text-classification", model=model)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns the batch with one more column."""
        answers = self.pipe(batch["text"].tolist())
        return {**batch, "topic": [answer["label"] for answer in answers]}


def sort_table(model: str, texts: list[str], workers: int) -> list[str]:
    """Returns the topic of each text, in order."""
    table = ray.data.from_items([{"row": row, "text": text} for row, text in enumerate(texts)])
    pool = ray.data.ActorPoolStrategy(size=workers)
    done = table.map_batches(Sorter, fn_constructor_args=(model,), compute=pool, batch_size=256, num_cpus=1)
    return [row["topic"] for row in sorted(done.take_all(), key=lambda row: row["row"])]  # workers finish in any order


@serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
class Desk:
    """A replica of Ray Serve: what waits at the same time shares the graph's batches."""

    def __init__(self, model: str) -> None:
        self.pipe = pipeline("text-classification", model=model)
        self.batcher = self.pipe.stream(max_queue=256, timeout=0.5)

    async def sort(self, text: str) -> str:
        """Returns the topic of a text."""
        return (await self.batcher.acall(text))["label"]

    async def runs(self) -> int:
        """Returns how many batches the graphs have run."""
        return sum(rung.runs for rung in self.pipe.model.stats)


async def ask(desk: Any, texts: list[str]) -> list[str]:
    """Returns the topic of each text; all are asked for at the same time."""
    return await asyncio.gather(*(desk.sort.remote(text) for text in texts))


def main() -> None:
    """Sorts messages with one pipeline, with workers of Ray Data, and through a service."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a folder or Hub repo with the graphs of a text classifier")
    parser.add_argument("--address", help="a Ray cluster, such as auto; by default one is started here")
    options = parser.parse_args()
    own = {"address": "local", "num_cpus": WORKERS, "object_store_memory": STORE_BYTES, "include_dashboard": False}
    with tempfile.TemporaryDirectory() as place:
        model = options.model or exported_classifier(Path(place))
        there = {"address": options.address} if options.address else own
        ray.init(log_to_driver=False, logging_level=logging.ERROR, **there)
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            show(model, messages() * COPIES)
        finally:
            if options.address:
                serve.shutdown()
            ray.shutdown()


def exported_classifier(place: Path) -> str:
    """Trains the small model and exports it; returns the folder with the graphs."""
    original = offline.text_classifier(place / "original")
    shapes = {"batch_size": 8, "sequence_length": [8, 32]}
    return str(export_model(original, place / "graphs", shapes=shapes, progress=False))


def messages() -> list[str]:
    """Messages to a shop."""
    parts = [[part.split("|") for part in each] for each in offline.TOPICS.values()]
    return [f"{thing} {trouble}" for things, troubles in parts for thing in things for trouble in troubles]


def show(model: str, texts: list[str]) -> None:
    """Prints what was answered, and how long it took."""
    alone, seconds = timed(lambda: [answer["label"] for answer in pipeline("text-classification", model=model)(texts)])
    print(f"One pipeline: {len(alone)} messages in {seconds:.1f} s, such as {texts[0]!r}: {alone[0]}")
    for workers in range(1, WORKERS + 1):
        found, seconds = timed(lambda: sort_table(model, texts, workers))  # noqa: B023
        print(f"Ray Data:     {len(found)} messages in {seconds:.1f} s, workers: {workers}; {agreement(found, alone)}")

    serve.start(proxy_location="Disabled")  # no HTTP: we ask by handle
    desk = serve.run(Desk.bind(model), route_prefix=None)
    answers, seconds = timed(lambda: asyncio.run(ask(desk, texts[:REQUESTS])))
    runs = desk.runs.remote().result()
    print(f"Ray Serve:    {REQUESTS} requests in {seconds:.1f} s, run as {runs} batches; {agreement(answers, alone)}")


def timed(call: Callable[[], list[str]]) -> tuple[list[str], float]:
    """What a call returns, and its seconds."""
    start = time.perf_counter()
    return call(), time.perf_counter() - start


def agreement(answers: list[str], alone: list[str]) -> str:
    """In words, how many answers are those of one pipeline."""
    return f"{sum(map(str.__eq__, answers, alone))} answers are those of the pipeline alone"


if __name__ == "__main__":
    main()
