"""Runs decoders: any number of new tokens behind any cache that the graphs hold.

A cache of fixed length is right-aligned: its tokens lie in the last slots, the slots before them are masked, and new
tokens follow. To the model that is a batch with padding on the left, which every decoder of transformers understands.
New tokens are padded on the right, where no real token sees them, and only real ones are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .caches import CacheTensor, Place
from .contract import BATCH, PAST, SEQUENCE, SOURCE, TOTAL, ShapeContract
from .errors import InputTooLongError, InvalidModelError
from .fitting import Array, Arrays, Feed, prepare
from .roles import MASKS
from .runtime import Runtime, check_length
from .unfitting import join

CONTEXT, PREFILL = "context_length", "prefill_length"
"""The shape keys of decoders: tokens of a text, prompt and answer together, and new tokens of one run."""


POSITIONS = frozenset({"position_ids", "position_offset"})
"""The inputs that tell a decoder where tokens stand."""


class Memory(Protocol):
    """The keys and values of all tokens so far."""

    @property
    def length(self) -> int:
        """How many tokens it holds."""

    def padded(self, place: Place, slots: int) -> Array:
        """Returns keys or values with so many slots ``(rows, heads, slots, features)``: tokens last, a source first."""

    def add(self, new: Mapping[Place, Array]) -> None:
        """Puts keys and values ``(rows, heads, tokens, features)`` behind those that are there."""

    def keep_last(self, tokens: int) -> None:
        """Forgets all tokens but the last ones."""


@dataclass(frozen=True)
class Tokens:
    """New tokens.

    Attributes:
        ids: ``(rows, new)``.
        mask: 1 for each real token, those of the memory first, ``(rows, memory + new)``.
        positions: Where each token stands in its text, ``(rows, new)``.
    """

    ids: Array
    mask: Array
    positions: Array

    def part(self, start: int, stop: int) -> Tokens:
        """Returns the new tokens from `start` to `stop`, with the mask of all before them."""
        seen = self.mask.shape[1] - self.ids.shape[1]
        return Tokens(self.ids[:, start:stop], self.mask[:, : seen + stop], self.positions[:, start:stop])


class Decoder:
    """The graphs of one decoder. Safe to share between threads; the memory is the caller's.

    Args:
        following: Graphs that take a cache.
        first: Graphs that start one, where those that take one cannot.

    Raises:
        InvalidModelError: A graph's cache is laid out in a way that is not understood.
    """

    def __init__(self, following: Runtime, first: Runtime | None = None) -> None:
        self.following = following
        self.first = first
        for runtime in filter(None, (first, following)):
            for rung in runtime.ladder.rungs:
                _check(rung)

    @property
    def limit(self) -> int | None:
        """The most tokens of a text, or None where there is no limit: the last one needs no slot."""
        slots = self.following.ladder.limit(PAST)
        return None if slots is None else slots + 1

    def run(
        self, tokens: Tokens, memory: Memory, inputs: Mapping[str, Array], *, keep: int = 0, slide: bool = False
    ) -> Array:
        """Returns the logits of the new tokens, ``(rows, new, vocabulary)``, which then are in `memory`.

        Args:
            tokens: The new tokens, at least one.
            memory: The tokens before.
            inputs: What else the graph takes, such as ``encoder_hidden_states``.
            keep: Logits of the last `keep` tokens only; 0 for all.
            slide: Forget the first tokens where there are more than the graphs hold.

        Raises:
            InputTooLongError: The text is longer than the graphs hold.
            MissingInputError, ShapeMismatchError: The inputs contradict the graph.
        """
        new = tokens.ids.shape[1]
        if not slide:
            check_context(memory.length + new, self.limit)
        kept: list[Array] = []
        start = 0
        while start < new:
            if slide and self.limit is not None:
                memory.keep_last(self.limit - 1)
            runtime = self.first if self.first and not memory.length else self.following
            stop = start + _chunk(runtime, memory.length, new - start)
            logits = self._run_chunk(runtime, tokens.part(start, stop), memory, inputs, slide=slide)
            wanted = max((keep or new) - (new - stop), 0)
            kept.append(logits[:, max(stop - start - wanted, 0) :])
            start = stop
        return kept[0] if len(kept) == 1 else np.concatenate(kept, axis=1)

    def _run_chunk(
        self, runtime: Runtime, tokens: Tokens, memory: Memory, inputs: Mapping[str, Array], *, slide: bool
    ) -> Array:
        rows, new = tokens.ids.shape
        source = inputs["encoder_hidden_states"].shape[1] if "encoder_hidden_states" in inputs else None
        sizes = {BATCH: rows, SEQUENCE: new, PAST: memory.length} | ({} if source is None else {SOURCE: source})
        check_length(sizes, runtime.ladder, None)
        index = runtime.ladder.choose(sizes)
        rung = runtime.ladder.rungs[index]
        room, slots = rung.sizes.get(SEQUENCE) or new, _slots(rung, memory.length)
        cache = rung.cache
        arrays, _ = prepare(
            {
                **_sources(inputs, rung, source),
                **_placed(tokens, memory.length, slots, room),
                **_pasts(cache, rung, memory, rows, slots, source),
            },
            rung,
        )
        feeds, pieces = _run(runtime, index, arrays, tokens)
        outputs = dict(zip(rung.output_names, join(pieces, [feed.spans for feed in feeds], rung), strict=True))
        computed = {BATCH: rows, SEQUENCE: new}
        runtime.count(index, len(feeds), [computed], computed)
        if slide and self.limit is not None:
            memory.keep_last(self.limit - 1 - new)
        memory.add(dict(_added(cache, outputs, room, new, source)))
        logits: Array = outputs["logits"][:, :new]
        return logits


def check_context(tokens: int, limit: int | None) -> None:
    """Raises an error that names the ways out if a text of so many tokens is longer than the graphs hold.

    Raises:
        InputTooLongError: It is.
    """
    if limit is not None and tokens > limit:
        raise InputTooLongError(
            f"The text would have {tokens} tokens, prompt and answer together, and the graphs hold {limit}. Ways out: "
            f"a shorter prompt, a smaller max_new_tokens, overflow='window', which forgets the first tokens, or graphs "
            f"that are loaded or exported with shapes={{{CONTEXT!r}: {tokens}}}.",
            size=tokens,
            limit=limit,
            axis=CONTEXT,
        )


# A run of a few tokens takes as long as one of a single token, since it reads the same weights.
_WASTE, _FREE = 1.5, 16
_BEYOND_A_TABLE = "out of data bounds"


def _run(runtime: Runtime, index: int, arrays: Arrays, tokens: Tokens) -> tuple[list[Feed], list[list[Array]]]:
    try:
        return runtime.run_rung(index, arrays)
    except Exception as error:  # onnxruntime's errors share no public base class
        if _BEYOND_A_TABLE not in str(error):
            raise
        raise InputTooLongError(
            f"The model has learned no position {int(tokens.positions.max())}, or has no token "
            f"{int(tokens.ids.max())} in its vocabulary: onnxruntime says {error}",
            size=int(tokens.positions.max()) + 1,
            limit=int(tokens.positions.max()),
            axis=CONTEXT,
        ) from error


def _check(rung: ShapeContract) -> None:
    """Raises an error unless the graph's mask and cache are as long as slots and new tokens."""
    new, slots = rung.sizes.get(SEQUENCE), rung.sizes.get(PAST)
    if slots is not None and TOTAL not in rung.sizes:
        raise InvalidModelError(
            f"{rung.path or 'The graph'} has a cache of {slots} slots and takes no attention_mask, so that it cannot "
            "tell those that are empty. Export it with a mask of slots and new tokens, or with a cache of open length.",
            path=str(rung.path) if rung.path else None,
        )
    if new is None or (slots is None and PAST in rung.sizes):
        return
    total = new + (slots or 0)
    known = {new, slots, total, None}
    presents = {tensor.present for tensor in rung.cache if not tensor.place.is_cross}
    wrong = [spec for spec in rung.outputs if spec.name in presents and spec.axes and spec.axes[2].size not in known]
    wrong += [spec for spec in rung.inputs if spec.name in MASKS and spec.axes and spec.axes[1].size != total]
    if wrong:
        raise InvalidModelError(
            f"{rung.path or 'The graph'} takes {new} new tokens behind {slots or 0} slots, which does not go with "
            f"{wrong[0]}: a mask covers both, and a cache comes back with both, or with either.",
            path=str(rung.path) if rung.path else None,
        )


def _chunk(runtime: Runtime, seen: int, new: int) -> int:
    """How many of the new tokens run next: all, where a rung holds them with little padding, else what fills a rung."""
    rungs = [rung for rung in runtime.ladder.rungs if _slots(rung, seen) >= seen]
    sizes = {rung.sizes.get(SEQUENCE) or new for rung in rungs}
    starts = all(PAST not in rung.sizes for rung in rungs)  # what is left over may have to run one by one
    if any(new <= size and (starts or size <= new * _WASTE + _FREE) for size in sizes):
        return new
    return max((size for size in sizes if size <= new), default=new)


def _slots(rung: ShapeContract, seen: int) -> int:
    if PAST not in rung.sizes:
        return 0
    slots = rung.sizes[PAST]
    return seen if slots is None else slots


def _placed(tokens: Tokens, seen: int, slots: int, room: int) -> Arrays:
    """The inputs that depend on where the tokens lie, whatever the graph calls them."""
    rows, new = tokens.ids.shape
    mask = np.zeros((rows, slots + room), np.int64)
    mask[:, slots - seen : slots + new] = tokens.mask[:, tokens.mask.shape[1] - seen - new :]
    return {
        "input_ids": _filled(tokens.ids, room),
        "position_ids": _filled(tokens.positions, room),
        "position_offset": tokens.positions[:, -1:] - (slots + new - 1),  # the first may be padding, which has none
        **dict.fromkeys(MASKS, mask),
    }


def _filled(array: Array, length: int) -> Array:
    """The tokens, the last of them repeated: whatever stands behind them is not seen."""
    return array if array.shape[1] == length else np.pad(array, ((0, 0), (0, length - array.shape[1])), mode="edge")


def _sources(inputs: Mapping[str, Array], rung: ShapeContract, source: int | None) -> Arrays:
    """What the encoder read, with as many places as the graph has."""
    places = rung.sizes.get(SOURCE) or source or 0
    found = {name: inputs[name] for name in rung.input_names if name in inputs}
    return {
        name: np.pad(array, [(0, 0), (0, places - array.shape[1]), *[(0, 0)] * (array.ndim - 2)])
        for name, array in found.items()
    }


def _pasts(
    cache: Sequence[CacheTensor], rung: ShapeContract, memory: Memory, rows: int, slots: int, source: int | None
) -> Arrays:
    found = {}
    for tensor in cache:
        if tensor.past is None:
            continue
        places = (rung.sizes.get(SOURCE) or source or 0) if tensor.place.is_cross else slots
        if memory.length:
            found[tensor.past] = memory.padded(tensor.place, places)
        else:
            spec = rung.input(tensor.past)
            _, heads, _, features = (axis.size for axis in spec.axes or ())
            found[tensor.past] = np.zeros((rows, heads or 1, places, features or 1), spec.dtype)
    return found


def _added(
    cache: Sequence[CacheTensor], outputs: Mapping[str, Array], room: int, new: int, source: int | None
) -> Iterator[tuple[Place, Array]]:
    """The keys and values of the new tokens; a graph gives them alone, or behind the slots."""
    for tensor in cache:
        if tensor.present is None:
            continue
        array = outputs[tensor.present]
        first = 0 if tensor.place.is_cross else array.shape[2] - room
        yield tensor.place, array[:, :, first : first + (source or 0 if tensor.place.is_cross else new)]
