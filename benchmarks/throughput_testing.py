"""How many texts a second: ladders beside dynamic shapes in arrival order, kinds of ladders, and many callers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

import numpy as np

from . import ladders
from .models import MODELS
from .results import Ratio, Row, Table, at_least, row_of
from .run import Run
from .turns import Spread, Turn

ARRIVAL, LADDER = "dynamic, arrival order", "our ladder"
SINGLE, STREAM = "a session call each", "our batcher"
_BATCH_TARGETS = {8: 2.2, 32: 2.7}
_RATE_TARGET, _SLOWEST_TARGET = at_least(2), at_least(1)
_FEW_TEXTS = {"bert-base": 96}
_TEXTS = 256
_TEXTS_OF_LADDERS = 64


def measure_throughput(run: Run) -> Iterator[Table]:
    """Yields the tables of ladders beside arrival order, and of kinds of ladders."""
    models = run.models("bert-tiny", "minilm", "bert-base")
    rows = [row for model in models for row in _batches(run, model)]
    yield Table(
        "arrival-order",
        "Our ladder beside dynamic shapes",
        f"{_TEXTS} texts of realistic lengths (BERT-base: {_FEW_TEXTS['bert-base']}), fp32. Dynamic: by hand on the "
        "stock graph, in batches as the texts come, each padded to its longest. Ours: `pipe(texts, batch_size=...)` on "
        "the rungs of a dynamic graph.",
        "ms",
        tuple(rows),
    )
    yield _kinds_of_ladders(run)


def measure_callers(run: Run) -> Iterator[Table]:
    """Yields the table of many threads that each classify one text after the other."""
    rows = []
    for model in run.models("bert-tiny", "minilm", "bert-base"):
        if run.prepare(model, "original", "stock", "fp32"):
            rows += _callers(run, model)
    about = (
        f"{ladders.CALLERS} threads, each of which classifies its text again and again, fp32. On one session each call "
        "runs by itself; `pipe.stream()` joins those that wait into batches."
    )
    yield Table("callers", f"{ladders.CALLERS} concurrent callers", about, "texts/s or ms", tuple(rows))


def _batches(run: Run, model: str) -> Iterator[Row]:
    title = MODELS[model].title
    if not run.prepare(model, "original", "stock", ladders.PART):
        return
    arguments = {"folder": run.place(model), "count": _count(run, model)}
    contenders = {ARRIVAL: ("ladders:arrival_order", arguments), LADDER: ("ladders:ladder", arguments)}
    with run.workers(f"{title}, batches", contenders) as workers:
        for batch in ladders.BATCHES:
            name, call = f"{title}, batch {batch}", ladders.in_batches(batch)
            turns = [Turn(worker, {who: call}) for who, worker in workers.items()]
            times = run.take_turns(name, turns, seconds=0.5, budget=40)
            yield row_of(name, times, [(ARRIVAL, LADDER, at_least(_BATCH_TARGETS[batch]))])


def _kinds_of_ladders(run: Run) -> Table:
    model = run.models("minilm")[0]
    title, count = MODELS[model].title, _TEXTS_OF_LADDERS
    arguments = {"folder": run.place(model), "count": count}
    values: dict[str, Spread] = {}
    with run.workers(f"{title}, ladders", {LADDER: ("ladders:ladders", arguments)}) as workers:
        # One process: its sessions do not spin, and so do not disturb one another.
        turns = [Turn(worker, {kind: kind for kind in ladders.KINDS}) for worker in workers.values()]
        times = run.take_turns(f"{title}, ladders", turns, seconds=0.5, budget=40)
    for kind in times.rounds:
        spread = times.spread(kind)
        values[kind] = Spread(count / spread.median, count / spread.high, count / spread.low)
    others = [kind for kind in values if kind != ladders.EXACT]
    ratios = tuple(Ratio(kind, ladders.EXACT, times.ratio(ladders.EXACT, kind)) for kind in others)
    about = (
        f"{count} texts of realistic lengths, fp32, one row a run: which lengths the rungs have. Suggested: by "
        f"`suggest_ladder` from other texts of the same kind."
    )
    return Table("ladders", "Throughput by ladder", about, "texts/s", (Row(title, values, ratios),) if values else ())


def _callers(run: Run, model: str) -> list[Row]:
    arguments = {"folder": run.place(model)}
    contenders = {SINGLE: ("ladders:single_calls", arguments), STREAM: ("ladders:stream", arguments)}
    title = f"{MODELS[model].title}, callers"
    facts: dict[str, list[Mapping[str, Any]]] = {}
    with run.workers(title, contenders) as workers:
        for _ in range(min(run.rounds, 3)):
            for who, worker in workers.items():
                facts.setdefault(who, []).append(worker.ask("callers"))
    if len(facts) < len(contenders):
        return []
    name = MODELS[model].title
    rate = {who: _spread([each["rate"] for each in all_]) for who, all_ in facts.items()}
    slowest = {who: _spread([1000 * each["p99"] for each in all_]) for who, all_ in facts.items()}
    faster = Ratio(STREAM, SINGLE, _ratio(facts, "rate", STREAM, SINGLE), _RATE_TARGET)
    no_worse = Ratio(SINGLE, STREAM, _ratio(facts, "p99", SINGLE, STREAM), _SLOWEST_TARGET)
    return [Row(f"{name}, texts/s", rate, (faster,)), Row(f"{name}, p99 in ms", slowest, (no_worse,))]


def _ratio(facts: Mapping[str, list[Mapping[str, Any]]], key: str, over: str, under: str) -> Spread:
    return _spread([one[key] / other[key] for one, other in zip(facts[over], facts[under], strict=True)])


def _spread(values: list[float]) -> Spread:
    low, high = np.percentile(values, (10, 90))
    return Spread(median(values), float(low), float(high))


def _count(run: Run, model: str) -> int:
    return run.texts if run.quick else _FEW_TEXTS.get(model, _TEXTS)
