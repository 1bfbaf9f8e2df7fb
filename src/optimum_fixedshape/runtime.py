"""Runs a ladder: any items in, each item's own outputs back."""

from __future__ import annotations

import math
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime as ort

from .contract import BATCH, BATCHES, SEQUENCE
from .errors import InputTooLongError
from .fitting import Array, Arrays, Feed, Fill, collate, fit, prepare
from .ladder import ShapeLadder, rows_of
from .roles import with_shown_outputs
from .sessions import SessionPool, contract_of_session
from .unfitting import cut, join

Target = tuple[tuple[str, int], ...]

_CUTS = (
    "truncation=True or overflow='truncate' cuts it; overflow='window' runs overlapping windows and merges them "
    "(for a processor or a pipeline); or "
)


class Run(NamedTuple):
    """Rows of tokens that go into a session together.

    Attributes:
        rung: Its index.
        rows: Rows of the run, those that only fill the batch among them.
        length: Tokens of each.
        members: Which rows are real, by their place among all.
    """

    rung: int
    rows: int
    length: int
    members: Sequence[int]


@dataclass(frozen=True)
class RungStats:
    """What one rung has computed.

    Attributes:
        sizes: The rung's shape.
        runs: Calls of the session.
        rows: Real rows.
        waste: Share of the computed elements that were padding, 0 to 1.
    """

    sizes: Mapping[str, int | None]
    runs: int = 0
    rows: int = 0
    waste: float = 0.0


@dataclass
class _Count:
    runs: int = 0
    rows: int = 0
    real: int = 0
    computed: int = 0


class Runtime:
    """Runs items on the cheapest rung that holds them. Safe to share between threads.

    Args:
        ladder: The rungs. A rung whose contract was pinned from a dynamic graph runs that graph at the rung's sizes.
        graphs: The file of each rung, in the ladder's order.
        fill: What stands in the padded places.
        pool: Opens the sessions; by default on the CPU.
    """

    def __init__(
        self, ladder: ShapeLadder, graphs: Sequence[Path], *, fill: Fill, pool: SessionPool | None = None
    ) -> None:
        self.ladder = ladder
        self.graphs = tuple(graphs)
        self.fill = fill
        self.pool = pool or SessionPool()
        self._start()

    @classmethod
    def of_session(cls, session: ort.InferenceSession, *, fill: Fill) -> Runtime:
        """Returns a runtime around one session that is open already."""
        contract = contract_of_session(session)
        path = contract.path or Path()
        pool = SessionPool(session.get_providers())
        pool.add(path, session)
        return cls(ShapeLadder((contract,)), [path], fill=fill, pool=pool)

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._counts: dict[int, _Count] = defaultdict(_Count)
        self._most_rows = max(rung.batch_size or 1 for rung in self.ladder.rungs)
        self._lengths: dict[int, int] = {}
        self._lone: dict[int, Run] = {}
        self._shapes: dict[tuple[int, int], tuple[int, int | None]] = {}

    def __getstate__(self) -> dict[str, Any]:
        kept = {name: getattr(self, name) for name in ("ladder", "graphs", "fill", "pool")}
        return {**kept, "files": self._files()}  # by which `datasets` knows that a graph was exported anew

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update({name: value for name, value in state.items() if name != "files"})
        self._start()

    def _files(self) -> list[tuple[str, int, int]]:
        """Size and time of each file that the graphs are in, where there is one."""
        pairs = zip(self.graphs, self.ladder.rungs, strict=True)
        files = {graph.parent / name for graph, rung in pairs for name in (graph.name, *rung.external_data)}
        stats = {str(file): file.stat() for file in sorted(files) if file.is_file()}
        return [(file, stat.st_size, stat.st_mtime_ns) for file, stat in stats.items()]

    def on(self, provider: str, options: Mapping[str, Any]) -> Runtime:
        """Returns the same ladder on another execution provider.

        Raises:
            ValueError: onnxruntime was built without it.
        """
        pool = self.pool.on(provider, options)
        return Runtime(self.ladder, self.graphs, fill=self.fill, pool=pool)

    def run(self, items: Sequence[Mapping[str, Any]]) -> list[Arrays]:
        """Returns the outputs of each item, in order, with the item's own rows and lengths.

        Items of like size share runs; each array of an item is ``(rows, ...)``.

        Raises:
            InputTooLongError: An item is larger than the largest rung.
            MissingInputError, ShapeMismatchError: See `fitting.prepare`.
        """
        prepared = [prepare(item, self.ladder.largest) for item in items]
        groups: dict[Target, list[int]] = defaultdict(list)
        for index, (_, sizes) in enumerate(prepared):
            target = self._target(sizes, index if len(items) > 1 else None)
            groups[target if self.ladder.shares_runs else (*target, ("", index))].append(index)
        results: list[Arrays] = [{}] * len(items)
        for target, members in groups.items():
            outputs = self._run_group([prepared[i] for i in members], dict(target))
            for index, output in zip(members, outputs, strict=True):
                results[index] = output
        return results

    def _target(self, sizes: Mapping[str, int], index: int | None) -> Target:
        """The sizes that an item is padded to: the rung's where they are fixed, else its own."""
        check_length(sizes, self.ladder, index)
        rung = self.ladder.rungs[self.ladder.choose(sizes)]
        return tuple((role, rung.sizes.get(role) or size) for role, size in sizes.items() if role not in BATCHES)

    def _run_group(self, items: Sequence[tuple[Arrays, dict[str, int]]], target: dict[str, int]) -> list[Arrays]:
        asked = self._asked([sizes for _, sizes in items], target)
        index = self.ladder.choose(asked)
        rung = self.ladder.rungs[index]
        arrays = items[0][0]
        if len(items) > 1:
            arrays = collate([arrays for arrays, _ in items], rung, target, self.fill)
        if not rows_of(asked):
            # The outputs' shapes can only be had from a run, so ones stand in for the rows that are not there.
            arrays = {name: np.ones([size or 1 for size in array.shape], array.dtype) for name, array in arrays.items()}
        feeds, pieces = self.run_rung(index, arrays)
        rung = with_shown_outputs(rung, feeds[0].arrays, pieces[0])
        outputs = join(pieces, [feed.spans for feed in feeds], rung)
        self.count(index, len(feeds), [sizes for _, sizes in items], asked)
        shares, start = [], 0
        for _, sizes in items:
            shares.append(dict(zip(rung.output_names, cut(outputs, rung, start, sizes), strict=True)))
            start += sizes.get(BATCH, 1)
        return shares

    def run_rung(self, index: int, arrays: Mapping[str, Array]) -> tuple[list[Feed], list[list[Array]]]:
        """Returns the feeds that hold all rows of `arrays` on one rung, and the outputs of each."""
        session = self.session(index)
        feeds = list(fit(arrays, self.ladder.rungs[index], self.fill))
        return feeds, [session.run(None, feed.arrays) for feed in feeds]

    def session(self, index: int) -> ort.InferenceSession:
        """Returns the session of a rung; see `SessionPool.get`."""
        return self.pool.get(self.graphs[index], self.ladder.rungs[index])

    def plan(self, lengths: Sequence[int], rows: int = 1) -> Iterator[Run]:
        """Yields runs that together hold rows of tokens, and counts them in `stats`.

        Rows that go to one rung share runs: as many as fill its largest batch, and the rest where it costs least.

        Args:
            lengths: The tokens of each row.
            rows: How many go into a run where the graph leaves that open.
        """
        most = max(rows, 1)
        groups: dict[int, list[int]] = {}
        for index, length in enumerate(lengths):
            groups.setdefault(self._rung_length(length), []).append(index)
        for length, members in groups.items():
            start = 0
            while start < len(members):
                rung, batch = self._shape(len(members) - start, length)
                some = members[start : start + (batch or most)]
                start += len(some)
                run = Run(rung, batch or len(some), length, some)
                self._add(rung, 1, len(some), sum(lengths[i] for i in some), run.rows * length)
                yield run

    def plan_one(self, length: int) -> Run:
        """Returns the run of a single row of so many tokens, and counts it."""
        if (run := self._lone.get(length)) is None:
            padded = self._rung_length(length)
            rung, batch = self._shape(1, padded)
            self._lone[length] = run = Run(rung, batch or 1, padded, (0,))
        self._add(run.rung, 1, 1, length, run.rows * run.length)
        return run

    def _rung_length(self, length: int) -> int:
        """The tokens that a row of this length is padded to."""
        if (padded := self._lengths.get(length)) is None:
            target = dict(self._target({BATCH: 1, SEQUENCE: length}, None))
            self._lengths[length] = padded = target[SEQUENCE]
        return padded

    def _shape(self, rows: int, length: int) -> tuple[int, int | None]:
        """The rung for the next of so many rows, and its batch."""
        rows = min(rows, self._most_rows)
        if (known := self._shapes.get((rows, length))) is None:
            rungs = self.ladder.rungs
            fitting = [i for i in self.ladder.holding({SEQUENCE: length}) if rungs[i].sequence_length in (length, None)]
            rung = max(fitting, key=lambda i: rungs[i].batch_size or 0)
            if (rungs[rung].batch_size or 0) > rows:
                rung = self.ladder.choose({BATCH: rows, SEQUENCE: length})
            self._shapes[rows, length] = known = (rung, rungs[rung].batch_size)
        return known

    def _asked(self, items: Sequence[Mapping[str, int]], target: Mapping[str, int]) -> dict[str, int]:
        """The sizes of all the items together."""
        asked = {**items[0], **target}
        return {**asked, BATCH: sum(sizes[BATCH] for sizes in items)} if BATCH in asked else asked

    def count(self, index: int, runs: int, items: Sequence[Mapping[str, int]], asked: Mapping[str, int]) -> None:
        """Adds runs of a rung to `stats`.

        Args:
            index: The rung.
            runs: Calls of the session.
            items: The sizes of each item.
            asked: The sizes of all of them together.
        """
        rung = self.ladder.rungs[index]
        real = sum(math.prod(sizes.values()) for sizes in items)
        computed = runs * math.prod(rung.sizes.get(role) or size for role, size in asked.items())
        self._add(index, runs, rows_of(asked), real, computed)

    def _add(self, index: int, runs: int, rows: int, real: int, computed: int) -> None:
        with self._lock:
            count = self._counts[index]
            count.runs += runs
            count.rows += rows
            count.real += real
            count.computed += computed

    @property
    def stats(self) -> tuple[RungStats, ...]:
        """What each rung has computed so far, in the ladder's order."""
        with self._lock:
            counts = [replace(self._counts[i]) if i in self._counts else _Count() for i in range(len(self.ladder))]
        return tuple(
            RungStats(rung.sizes, c.runs, c.rows, 1 - c.real / c.computed if c.computed else 0.0)
            for rung, c in zip(self.ladder.rungs, counts, strict=True)
        )


def check_length(sizes: Mapping[str, int], ladder: ShapeLadder, index: int | None) -> None:
    """Raises an error that names the way out if no rung holds an item of these sizes.

    Args:
        sizes: The item's sizes.
        ladder: The rungs.
        index: Which item of the call it is, for the message; None where there is only one.

    Raises:
        InputTooLongError: No rung holds it.
    """
    if ladder.holding(sizes):
        return
    items = {role: size for role, size in sizes.items() if role not in BATCHES}
    # Each axis alone may be in order where no rung holds them together.
    axis = next((role for role, size in items.items() if size > (ladder.limit(role) or size)), max(items))
    held = sorted({rung.sizes[axis] or 0 for rung in ladder.rungs})
    wanted = ", ".join(f"{role} {size}" for role, size in items.items())
    who = "The item" if index is None else f"Item {index}"
    raise InputTooLongError(
        f"{who} has {wanted}, and the largest rung holds {axis} {held[-1]} (rungs: {', '.join(map(str, held))}). "
        f"Ways out: {_CUTS if axis == SEQUENCE else ''}load or export a larger rung, "
        f"shapes={{{axis!r}: [..., {items[axis]}]}}.",
        index=index,
        size=items[axis],
        limit=held[-1],
        axis=axis,
    )
