"""What a ladder takes: memory by rungs, and the time to load it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import loading
from .models import MODELS, SIX_LENGTHS
from .results import Ratio, Row, Table, at_most, row_of
from .run import Contenders, Run
from .turns import Spread, Turn

PLAIN, FIXED, DYNAMIC = "a session a graph", "ours, fixed graphs", "ours, one dynamic graph"
ONE_SESSION = "one session"
PYTORCH, STOCK, INT8 = "PyTorch", "stock optimum-onnx", "ours, one dynamic int8 graph"
_MEMORY_TARGET, _LOAD_TARGET = at_most(1.1), at_most(0.4)


def measure_memory(run: Run) -> Iterator[Table]:
    """Yields the table of memory: ladders of one to six rungs of BERT-base."""
    model = "bert-base"
    if run.quick or not run.prepare(model, "original", "stock", "fp32", loading.FIXED_PART):
        return
    arguments = {"folder": run.place(model)}
    contenders = {
        PLAIN: ("loading:plain_sessions", arguments),
        FIXED: ("loading:ours", {**arguments, "part": loading.FIXED_PART}),
        DYNAMIC: ("loading:our_dynamic_graph", arguments),
    }
    grown: dict[str, list[float]] = {}
    for _ in ("to fill the cache of sessions", "to measure"):
        for who, contender in contenders.items():
            with run.workers(f"memory {who}", {who: contender}) as workers:
                grown.update({name: worker.ask(loading.GROWN) for name, worker in workers.items()})
    if PLAIN not in grown:
        return
    rows = []
    for count in range(1, len(SIX_LENGTHS) + 1):
        values = {who: _exactly(each[count - 1]) for who, each in grown.items()}
        ratios = [
            Ratio(who, ONE_SESSION, _exactly(each[count - 1] / grown[PLAIN][0]), _target(who, count))
            for who, each in grown.items()
        ]
        rows.append(Row(f"{count} rungs" if count > 1 else "1 rung", values, tuple(ratios)))
    about = (
        "MiB by which a process grows that loads BERT-base and runs so many rungs, of 512, 256, 128, 64, 32 and 16 "
        "tokens in this order; what is mapped several times counts once (PSS). One session is the plain onnxruntime "
        "session of 512 tokens."
    )
    yield Table("memory", "Memory of a ladder", about, "MiB", tuple(rows))


def measure_loading(run: Run) -> Iterator[Table]:
    """Yields the table of load times."""
    rows = []
    for model in run.models("minilm", "bert-base"):
        parts = ["original", "stock", "fp32", "int8", *([loading.FIXED_PART] if model == "bert-base" else [])]
        if not run.prepare(model, *parts):
            continue
        title = f"{MODELS[model].title}, load"
        with run.workers(title, _loaders(run, model, parts)) as workers:
            turns = [Turn(worker, {who: loading.LOAD}) for who, worker in workers.items()]
            times = run.take_turns(title, turns, seconds=0.2, budget=25)
        pairs = [(who, STOCK, _LOAD_TARGET if who != PYTORCH else None) for who in times.rounds if who != STOCK]
        rows.append(row_of(MODELS[model].title, times, pairs))
    about = "`from_pretrained` of a folder that was loaded before, and one answer; all that is imported was before."
    yield Table("loading", "The second load of a folder", about, "ms", tuple(rows))


def _loaders(run: Run, model: str, parts: list[str]) -> Contenders:
    arguments = {"folder": run.place(model)}
    contenders: Contenders = {
        PYTORCH: ("loading:pytorch", arguments),
        STOCK: ("loading:stock", arguments),
        DYNAMIC: ("loading:our_dynamic_graph", arguments),
        INT8: ("loading:our_dynamic_graph", {**arguments, "part": "int8"}),
        FIXED: ("loading:ours", {**arguments, "part": loading.FIXED_PART}),
    }
    return {who: each for who, each in contenders.items() if who != FIXED or loading.FIXED_PART in parts}


def _target(who: str, count: int) -> Any:
    return _MEMORY_TARGET if who != PLAIN and count == len(SIX_LENGTHS) else None


def _exactly(value: float) -> Spread:
    return Spread(value, value, value)
