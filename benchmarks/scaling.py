"""What a second core, process or worker adds, and what an engine that hands out the work takes for it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from . import workers as worker_processes
from .inputs import mixed_texts
from .models import LADDER, MODELS
from .results import Ratio, Row, Table, row_of
from .run import Contenders, Run
from .texts import TASK
from .turns import Spread, Turn

ONE, TWO = "1 thread", "2 threads"
STREAM = "1 thread, stream(workers=2)"
PROCESSES = "2 processes of 1 thread"
ALONE, RAY_ONE, RAY_TWO = "1 thread, no engine", "Ray Data, 1 worker", "Ray Data, 2 workers"
SINGLE, CACHED, UNCACHED = "1 process", "2 processes", "2 processes, no session cache"
_FILL = "to fill the session cache"
_PROCESSES = {_FILL: (1, True), SINGLE: (1, True), CACHED: (2, True), UNCACHED: (2, False)}
_MODELS = ("bert-tiny", "minilm")
_DTYPES = ("fp32", "int8")
_TEXTS = 256
_TEXTS_OF_JOBS = {"bert-tiny": 8192, "minilm": 1024, "minimal": 64}
_CHUNK = 64
_ANSWERS, _RESIDENT = "answers", "resident"
_STORE_BYTES = 200 * 2**20


def measure_scaling(run: Run) -> Iterator[Table]:
    """Yields the tables of cores, of jobs of an engine, and of the memory of processes."""
    models = run.models(*_MODELS)
    kinds = [(model, dtype) for model in models for dtype in (_DTYPES[:1] if run.quick else _DTYPES)]
    ready = [(model, dtype) for model, dtype in kinds if run.prepare(model, "original", "stock", dtype)]
    about = (
        f"{_TEXTS} texts of realistic lengths. `pipe(texts)` with one and with two threads in the session; "
        "`pipe.stream(workers=2)`, which gets all texts at once and runs two batches at a time on one thread each; and "
        f"a pool of two processes, each with a pipeline of one thread, which get {_CHUNK} texts at a time."
    )
    yield Table("scaling-cores", "Two cores", about, "ms", tuple(_cores(run, *kind) for kind in ready))
    jobs = tuple(_jobs(run, model) for model, dtype in ready if dtype == _DTYPES[0])
    about = (
        "A whole job, fp32: `map_batches(...)` starts workers, which import this package and open the model, and hands "
        "them the texts; Ray itself runs already. Without an engine: `pipe(texts)` in a process that is ready."
    )
    yield Table("scaling-jobs", "A job of Ray Data", about, "ms", jobs)
    about = (
        "MiB of all processes together, each of which has opened a pipeline, fp32, and answered a text; what several "
        "have mapped counts once (PSS). Python and what is imported are among it."
    )
    large = [
        model for model in run.models("minilm", "bert-base") if run.prepare(model, "original", "stock", _DTYPES[0])
    ]
    memory = tuple(_memory(run, model) for model in large)
    yield Table("scaling-memory", "Memory of two processes", about, "MiB", memory)


def _cores(run: Run, model: str, dtype: str) -> Row:
    common = {"folder": run.place(model), "dtype": dtype, "count": run.texts if run.quick else _TEXTS}
    contenders: Contenders = {
        ONE: ("scaling:threads", {**common, "threads": 1}),
        TWO: ("scaling:threads", {**common, "threads": 2}),
        STREAM: ("scaling:stream", common),
        PROCESSES: ("scaling:processes", common),
    }
    title = f"{MODELS[model].title}, {dtype}"
    with run.workers(f"{title}, cores", contenders) as started:
        turns = [Turn(worker, {who: _ANSWERS}) for who, worker in started.items()]
        times = run.take_turns(title, turns, seconds=0.5, budget=30)
    return row_of(title, times, [(ONE, who, None) for who in (TWO, STREAM, PROCESSES)])


def _jobs(run: Run, model: str) -> Row:
    count = _TEXTS_OF_JOBS[model]
    common = {"folder": run.place(model), "dtype": _DTYPES[0], "count": count}
    contenders: Contenders = {
        ALONE: ("scaling:threads", {**common, "threads": 1}),
        RAY_TWO: ("scaling:ray_data", common),
    }
    title = f"{MODELS[model].title}, {count} texts"
    with run.workers(f"{title}, jobs", contenders) as started:
        calls = {ALONE: {ALONE: _ANSWERS}, RAY_TWO: {RAY_ONE: RAY_ONE, RAY_TWO: RAY_TWO}}
        turns = [Turn(worker, calls[who]) for who, worker in started.items()]
        times = run.take_turns(title, turns, seconds=0.1, budget=60)
    return row_of(title, times, [(ALONE, RAY_ONE, None), (ALONE, RAY_TWO, None), (RAY_ONE, RAY_TWO, None)])


def _memory(run: Run, model: str) -> Row:
    common = {"folder": run.place(model), "dtype": _DTYPES[0]}
    taken = {}
    for who, (count, cached) in _PROCESSES.items():
        contenders = {str(number): ("scaling:loaded", {**common, "cached": cached}) for number in range(count)}
        with run.workers(f"{MODELS[model].title}, memory, {who}", contenders) as started:
            taken[who] = sum(worker.ask(_RESIDENT) for worker in started.values())
    values = {who: Spread(value, value, value) for who, value in taken.items() if who != _FILL}
    ratios = [Ratio(who, SINGLE, Spread(*[taken[who] / taken[SINGLE]] * 3)) for who in (CACHED, UNCACHED)]
    return Row(MODELS[model].title, values, tuple(ratios))


def threads(folder: str, dtype: str, count: int, threads: int) -> worker_processes.Calls:
    """One pipeline whose sessions have so many threads."""
    return {_ANSWERS: partial(_pipe(folder, dtype, threads), _texts(folder, count))}


def stream(folder: str, dtype: str, count: int) -> worker_processes.Calls:
    """One pipeline of one thread, and a batcher that runs two batches at a time."""
    batcher, texts = _pipe(folder, dtype, 1).stream(workers=2), _texts(folder, count)
    return {_ANSWERS: lambda: [answer.result() for answer in [batcher.submit(text) for text in texts]]}


def processes(folder: str, dtype: str, count: int) -> worker_processes.Calls:
    """A pool of two processes, each with a pipeline of one thread."""
    import multiprocessing

    texts = _texts(folder, count)
    chunks = [texts[start : start + _CHUNK] for start in range(0, count, _CHUNK)]
    pool = multiprocessing.get_context("spawn").Pool(2, _open_here, (folder, dtype))
    return {_ANSWERS: lambda: pool.map(_answer_here, chunks, chunksize=1)}


def ray_data(folder: str, dtype: str, count: int) -> worker_processes.Calls:
    """Jobs of Ray Data on a cluster of this machine."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DATA_DISABLE_PROGRESS_BARS": "1", "RAY_worker_niceness": "0"}
    import ray
    import ray.data

    class Sorter:
        def __init__(self) -> None:
            self.pipe = _pipe(folder, dtype)

        def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
            return {**batch, "label": [answer["label"] for answer in self.pipe(batch["text"].tolist())]}

    own = {"address": "local", "num_cpus": 2, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
    ray.init(log_to_driver=False, **own)
    texts = _texts(folder, count)

    def job(workers: int) -> Any:
        table = ray.data.from_items([{"text": text} for text in texts])
        pool = ray.data.ActorPoolStrategy(size=workers)
        return table.map_batches(Sorter, compute=pool, batch_size=_CHUNK, num_cpus=1).take_all()

    return {RAY_ONE: partial(job, 1), RAY_TWO: partial(job, 2)}


def loaded(folder: str, dtype: str, cached: bool) -> worker_processes.Calls:
    """A process with a pipeline that has answered."""
    if not cached:
        os.environ["OPTIMUM_FIXEDSHAPE_CACHE"] = "0"
    pipe = _pipe(folder, dtype)
    pipe(_texts(folder, 1))
    return {_RESIDENT: worker_processes.resident}


_HERE: dict[str, Any] = {}


def _open_here(folder: str, dtype: str) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    _HERE["pipe"] = _pipe(folder, dtype)


def _answer_here(texts: list[str]) -> Any:
    return _HERE["pipe"](texts)


def _pipe(folder: str, dtype: str, threads: int | None = None) -> Any:
    import optimum_fixedshape
    from optimum_fixedshape.sessions import options_with

    settings = {"session_options": options_with({"intra_op_num_threads": threads})} if threads else {}
    return optimum_fixedshape.pipeline(TASK, model=f"{folder}/{dtype}", model_kwargs={"shapes": LADDER, **settings})


def _texts(folder: str, count: int) -> list[str]:
    return mixed_texts(count, f"{folder}/original/tokenizer.json")
