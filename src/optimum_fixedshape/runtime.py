"""onnxruntime sessions behind a ladder: any items in, each item's own outputs back."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from .contract import BATCH, SEQUENCE, Axis, ShapeContract, ShapeLadder, TensorSpec
from .errors import GraphNotFoundError, InputTooLongError, InvalidModelError
from .fitting import FILLED, Array, Arrays, Fill, collate, cut, fit, join, prepare
from .roles import with_input_roles, with_output_roles

CPU = "CPUExecutionProvider"

# Fixed shapes let onnxruntime fuse Add + LayerNormalization into a CPU kernel that is several times slower than both.
_SLOW_ON_CPU = ["SkipLayerNormFusion", "EmbedLayerNormFusion"]

_SHAPE_WAYS_OUT = (
    "Ways out: truncation=True or overflow='truncate' cuts it; overflow='window' runs overlapping windows and merges "
    "them (for a processor or a pipeline); or export a larger rung, export_model(..., shapes={{{axis!r}: [..., {size}]}})."
)


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
        providers: Execution providers in order of preference.
        provider_options: One mapping for each provider.
        session_options: Passed on to every session.
    """

    def __init__(
        self,
        ladder: ShapeLadder,
        graphs: Sequence[Path],
        *,
        fill: Fill,
        providers: Sequence[str] = (CPU,),
        provider_options: Sequence[Mapping[str, Any]] | None = None,
        session_options: ort.SessionOptions | None = None,
    ) -> None:
        self.ladder = ladder
        self.graphs = tuple(graphs)
        self.fill = fill
        self.providers = checked_providers(providers)
        self.provider_options = [dict(options) for options in provider_options or [{}] * len(self.providers)]
        self.session_options = session_options
        self._reset()

    @classmethod
    def of_session(cls, session: ort.InferenceSession, fill: Fill) -> Runtime:
        """Returns a runtime around one session that is open already."""
        contract = contract_of_session(session)
        runtime = cls(ShapeLadder((contract,)), (contract.path or Path(),), fill=fill, providers=session.get_providers())
        runtime._sessions[runtime.graphs[0], ()] = session
        return runtime

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[tuple[Path, tuple[tuple[str, int], ...]], ort.InferenceSession] = {}
        self._counts: dict[int, _Count] = defaultdict(_Count)

    def __getstate__(self) -> dict[str, Any]:
        hidden = {"_lock", "_sessions", "_counts", "session_options"}
        return {key: value for key, value in self.__dict__.items() if key not in hidden}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, session_options=None)
        self._reset()

    def run(self, items: Sequence[Mapping[str, Any]]) -> list[Arrays]:
        """Returns the outputs of each item, in order, with the item's own rows and lengths.

        Items of like size share runs; each array of an item is ``(rows, ...)``.

        Raises:
            InputTooLongError: An item is larger than the largest rung.
            MissingInputError, ShapeMismatchError: See `fitting.prepare`.
        """
        prepared = [prepare(item, self.ladder.largest) for item in items]
        groups: dict[tuple[tuple[str, int], ...], list[int]] = defaultdict(list)
        for index, (_, sizes) in enumerate(prepared):
            target = self._target(sizes, index if len(items) > 1 else None)
            # Without a batch axis two items cannot share a run: the index keeps their groups apart.
            groups[target if BATCH in sizes else (*target, ("", index))].append(index)
        results: list[Arrays] = [{}] * len(items)
        for target, members in groups.items():
            outputs = self._run_group([prepared[i] for i in members], dict(target))
            for index, output in zip(members, outputs, strict=True):
                results[index] = output
        return results

    def _target(self, sizes: Mapping[str, int], index: int | None) -> tuple[tuple[str, int], ...]:
        """The sizes that an item is padded to: the rung's where they are fixed, else its own."""
        check_length(sizes, self.ladder, index)
        rung = self.ladder.rungs[self.ladder.choose(max(sizes.get(BATCH, 1), 1), sizes)]
        return tuple((role, rung.sizes.get(role) or size) for role, size in sizes.items() if role != BATCH)

    def _run_group(self, items: Sequence[tuple[Arrays, dict[str, int]]], target: dict[str, int]) -> list[Arrays]:
        rows = sum(sizes.get(BATCH, 1) for _, sizes in items)
        index = self.ladder.choose(max(rows, 1), target)
        rung = self.ladder.rungs[index]
        arrays = items[0][0] if len(items) == 1 else collate([a for a, _ in items], self.ladder.largest, target, self.fill)
        if not rows:
            arrays = {spec.name: _stand_in(array, spec) for spec, array in zip(rung.inputs, arrays.values(), strict=True)}
        session = self.session(index)
        feeds = list(fit(arrays, rung, self.fill))
        pieces = [session.run(None, feed.arrays) for feed in feeds]
        outputs = join(pieces, [feed.rows for feed in feeds], rung)
        self._count(index, len(feeds), items, target)
        shares, start = [], 0
        for _, sizes in items:
            shares.append(dict(zip(rung.output_names, cut(outputs, rung, start, sizes), strict=True)))
            start += sizes.get(BATCH, 1)
        return shares

    def session(self, index: int) -> ort.InferenceSession:
        """Returns the session of a rung, opened when it is first asked for.

        Raises:
            GraphNotFoundError: A weights file of the graph is missing.
            InvalidModelError: onnxruntime refuses the graph.
        """
        rung, path = self.ladder.rungs[index], self.graphs[index]
        pins = () if self.providers[0] == CPU else _pins(rung)
        with self._lock:
            if (path, pins) not in self._sessions:
                self._sessions[path, pins] = self._open(path, rung, pins)
            return self._sessions[path, pins]

    def _open(self, path: Path, rung: ShapeContract, pins: Sequence[tuple[str, int]]) -> ort.InferenceSession:
        missing = tuple(name for name in rung.external_data if not (path.parent / name).is_file())
        if missing:
            raise GraphNotFoundError(
                f"{path} keeps its weights in {', '.join(missing)}, and the folder {path.parent} does not have it.",
                source=str(path),
            )
        options = self.session_options
        if pins:
            options = options or ort.SessionOptions()
            for symbol, size in pins:
                options.add_free_dimension_override_by_name(symbol, size)
        try:
            return ort.InferenceSession(
                str(path),
                sess_options=options,
                providers=self.providers,
                provider_options=self.provider_options,
                disabled_optimizers=_SLOW_ON_CPU if self.providers[0] == CPU else None,
            )
        except Exception as error:  # onnxruntime's errors share no public base class
            raise InvalidModelError(f"onnxruntime cannot open {path}: {error}", path=str(path)) from error

    def _count(self, index: int, runs: int, items: Sequence[tuple[Arrays, dict[str, int]]], target: dict[str, int]) -> None:
        rung = self.ladder.rungs[index]
        rows = sum(sizes.get(BATCH, 1) for _, sizes in items)
        length = rung.sizes.get(SEQUENCE) or target.get(SEQUENCE, 1)
        with self._lock:
            count = self._counts[index]
            count.runs += runs
            count.rows += rows
            count.real += sum(sizes.get(BATCH, 1) * sizes.get(SEQUENCE, 1) for _, sizes in items)
            count.computed += runs * (rung.batch_size or rows) * length

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
    axis = next(role for role in sizes if role != BATCH and sizes[role] > (ladder.limit(role) or sizes[role]))
    limit = ladder.limit(axis) or 0
    rungs = sorted({rung.sizes[axis] or 0 for rung in ladder.rungs})
    who = "The item" if index is None else f"Item {index}"
    raise InputTooLongError(
        f"{who} has {axis} {sizes[axis]}, and the largest rung holds {limit} (rungs: {', '.join(map(str, rungs))}). "
        + _SHAPE_WAYS_OUT.format(axis=axis, size=sizes[axis]),
        index=index,
        size=sizes[axis],
        limit=limit,
        axis=axis,
    )


def checked_providers(providers: Sequence[str]) -> list[str]:
    """Returns `providers` as a list.

    Raises:
        ValueError: onnxruntime was built without one of them.
    """
    available = ort.get_available_providers()
    if unknown := [name for name in providers if name not in available]:
        raise ValueError(f"This onnxruntime has no {', '.join(unknown)}. It has: {', '.join(available)}.")
    return list(providers)


def contract_of_session(session: ort.InferenceSession) -> ShapeContract:
    """Returns the contract of an open session, with the shapes that it reports, pinned or not."""
    inputs = with_input_roles(map(_spec, session.get_inputs()), {})
    path = getattr(session, "_model_path", None)
    return ShapeContract(
        inputs=tuple(inputs),
        outputs=tuple(with_output_roles(map(_spec, session.get_outputs()), inputs, {})),
        path=Path(path) if path else None,
    )


_ORT_TYPES = {"float": "float32", "double": "float64", "int": "int32"}


def _spec(node: Any) -> TensorSpec:
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    axes = tuple(Axis(d) if isinstance(d, int) and d > 0 else Axis(None, d if isinstance(d, str) else None) for d in node.shape)
    return TensorSpec(node.name, _ORT_TYPES.get(dtype, dtype), axes)


def _pins(rung: ShapeContract) -> tuple[tuple[str, int], ...]:
    axes = (axis for spec in rung.inputs for axis in spec.axes or ())
    return tuple(sorted({(axis.symbol, axis.size) for axis in axes if axis.symbol and axis.size}))


def _stand_in(array: Array, spec: TensorSpec) -> Array:
    """One row of ones in place of no rows at all, so that the outputs' shapes can be had from a run."""
    axis = spec.axis_of(BATCH)
    return array if axis is None else np.ones([1 if i == axis else n for i, n in enumerate(array.shape)], array.dtype)
