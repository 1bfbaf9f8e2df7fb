"""More than one machine: workers of Ray on a cluster of three nodes.

The cluster is real but for the wires: a head that computes nothing, and nodes with one CPU each, all with a raylet and
an object store of their own. What runs there is defined within functions, as workers cannot import this module.
"""

from __future__ import annotations

import asyncio
import copy
import logging
import os
import signal
import tempfile
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from optimum_fixedshape import export_model, pipeline
from optimum_fixedshape.errors import InputTooLongError

from . import tiny
from .equality import assert_same

ray = pytest.importorskip("ray")

# Ray sets deprecated settings of its own, and describes those of Serve in a way that Pydantic deprecates.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")

WORDS = 140_000  # so many that the graph is large enough for the session cache
TEXTS = [f"{tiny.SENTENCES[row % 6].split()[row % 4]} {'very ' * (row % 9)}{row}" for row in range(96)]
TOO_LONG = " ".join(tiny.SENTENCES)
STORE_BYTES = 80 * 2**20
SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_AUTH_MODE": "disabled",  # or Ray writes a token to the home of whoever runs the tests
    "RAY_worker_niceness": "0",  # or its workers wait for all other tests
}


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    """A folder with graphs, the cache of their weights, the pipeline on them, and its answers to the texts."""
    place = tmp_path_factory.mktemp("classifier")
    original = copy.deepcopy(tiny.original("bert", "text-classification"))
    torch.manual_seed(0)
    original.resize_token_embeddings(WORDS, mean_resizing=False)
    folder = export_model(
        original,
        place / "graphs",
        task="text-classification",
        shapes={"batch_size": 4, "sequence_length": [8, 16]},
        processor=tiny.tokenizer("wordpiece"),
        progress=False,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTIMUM_FIXEDSHAPE_CACHE", str(place / "cache"))
        pipe = pipeline("text-classification", model=folder)
        yield SimpleNamespace(folder=str(folder), cache=str(place / "cache"), pipe=pipe, answers=pipe(TEXTS))


@pytest.fixture(scope="module")
def cluster(classifier):
    """Two nodes that compute, and a head that does not."""
    from ray.cluster_utils import Cluster

    common = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(prefix="ray-") as place:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        cluster = Cluster(initialize_head=True, head_node_args={**common, "num_cpus": 0, "temp_dir": place})
        try:
            nodes = [cluster.add_node(**common, num_cpus=1) for _ in range(2)]
            ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.ERROR)
            yield SimpleNamespace(nodes={node.node_id: node for node in nodes}, remove=cluster.remove_node)
        finally:
            ray.shutdown()
            cluster.shutdown()


def worker_that_ends(folder, place, end):
    """A worker class of Ray Data. Both workers begin; then one ends between computing its third batch and giving it."""

    class Worker:
        def __init__(self):
            self.pipe, self.batches = pipeline("text-classification", model=folder), 0
            self.node, self.place = ray.get_runtime_context().get_node_id(), Path(place)

        def __call__(self, batch):
            answers = self.pipe(batch["text"].tolist())
            (self.place / f"began-{self.node}").touch()
            while len(list(self.place.glob("began-*"))) < 2:
                time.sleep(0.05)
            self.batches += 1
            if self.batches == 3:
                self.end_if_first()
            options = self.pipe.model.session.get_session_options()
            maps = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
            facts = {
                "node": self.node,
                "threads": options.intra_op_num_threads,
                "weights": " ".join(sorted({line.split()[-1] for line in maps if "/weights-" in line})),
            }
            answered = {name: [answer[name] for answer in answers] for name in ("label", "score")}
            return {**batch, **answered, **{name: [fact] * len(answers) for name, fact in facts.items()}}

        def end_if_first(self):
            (self.place / self.node).write_text(self.node, encoding="utf-8")
            try:
                os.link(self.place / self.node, self.place / "ended")
            except FileExistsError:
                return
            end()

    return Worker


def rows_of_job(worker):
    """Returns what two workers make of the texts, in the order of the texts."""
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    table = ray.data.from_items([{"row": row, "text": text} for row, text in enumerate(TEXTS)], override_num_blocks=12)
    pool = ray.data.ActorPoolStrategy(size=2)
    done = table.map_batches(worker, compute=pool, batch_size=4, num_cpus=1).take_all()
    return sorted(done, key=lambda row: row["row"])


def assert_complete(rows, classifier):
    """Asserts that each row is there once, with the answer of the pipeline alone."""
    assert [(row["row"], row["text"]) for row in rows] == list(enumerate(TEXTS))
    answers = [{name: row[name] for name in ("label", "score")} for row in rows]
    assert_same(answers, classifier.answers, tolerance=1e-6)


def test_a_killed_worker_loses_nothing_and_repeats_nothing(cluster, classifier, tmp_path):
    def end():
        os.kill(os.getpid(), signal.SIGKILL)

    rows = rows_of_job(worker_that_ends(classifier.folder, str(tmp_path), end))
    assert_complete(rows, classifier)
    assert (tmp_path / "ended").is_file()
    assert {row["node"] for row in rows} == cluster.nodes.keys()
    (weights,) = {row["weights"] for row in rows}  # all workers map one file
    assert weights.startswith(classifier.cache)
    assert {row["threads"] for row in rows} == {1}  # as many as Ray gave CPUs


def test_a_pipeline_goes_to_workers_as_it_is(cluster, classifier):
    @ray.remote(num_cpus=1)
    def answers(pipe, texts):
        return pipe(texts)

    pipe = ray.put(classifier.pipe)
    assert_same(ray.get(answers.remote(pipe, TEXTS)), classifier.answers, tolerance=1e-6)


def test_requests_to_a_service_share_batches_and_errors_reach_their_callers(cluster, classifier):
    from ray import serve

    @serve.deployment(max_ongoing_requests=256, ray_actor_options={"num_cpus": 1})
    class Desk:
        def __init__(self, folder):
            self.pipe = pipeline("text-classification", model=folder)
            self.batcher = self.pipe.stream()

        async def answer(self, text):
            return await self.batcher.acall(text)

        async def counts(self):
            return [(rung.runs, rung.rows) for rung in self.pipe.model.stats]

    async def ask(desk):
        texts = [*TEXTS[:40], TOO_LONG, *TEXTS[40:]]
        return await asyncio.gather(*(desk.answer.remote(text) for text in texts), return_exceptions=True)

    serve.start(proxy_location="Disabled")
    try:
        desk = serve.run(Desk.bind(classifier.folder), route_prefix=None)
        answers = asyncio.run(ask(desk))
        runs, rows = map(sum, zip(*desk.counts.remote().result(), strict=True))
    finally:
        serve.shutdown()
    error = answers.pop(40)
    assert isinstance(error, InputTooLongError)
    assert error.limit == 16
    assert_same(answers, classifier.answers, tolerance=1e-6)
    assert rows == len(TEXTS)
    assert runs < len(TEXTS)


def test_a_node_that_is_gone_loses_nothing_and_repeats_nothing(cluster, classifier, tmp_path):
    def end():
        threading.Event().wait()  # for the end of the node

    def remove_node():
        while not (tmp_path / "ended").is_file():
            time.sleep(0.05)
        node = cluster.nodes.pop((tmp_path / "ended").read_text(encoding="utf-8"))
        cluster.remove(node, allow_graceful=False)

    other = threading.Thread(target=remove_node, daemon=True)
    other.start()
    rows = rows_of_job(worker_that_ends(classifier.folder, str(tmp_path), end))
    other.join()
    assert len(cluster.nodes) == 1
    assert_complete(rows, classifier)
