"""Models with two towers: items share runs, and a text that was seen before is not run again."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from .contract import SEQUENCE, TEXTS, ShapeContract
from .fitting import Array, Arrays, prepare
from .remembered import Key, Remembered
from .runtime import Runtime, check_length
from .tower_parts import ITEMS, Parts, cut_runtime

REMEMBERED_BYTES = 64 * 2**20
"""How much is remembered of a model's texts: some 15,000 labels of CLIP."""


class TwoTowers:
    """A model with two towers, run in parts. Safe to share between threads.

    Attributes:
        parts: What runs items, texts, and the comparison of both.
        seen: The embeddings of texts that have run: of each by itself, and of all that came together.

    Args:
        contract: That of the whole graph.
        parts: The parts.
    """

    def __init__(self, contract: ShapeContract, parts: Parts) -> None:
        self.parts = parts
        self.seen = Remembered(REMEMBERED_BYTES)
        self._contract = contract

    def run(self, items: Sequence[Mapping[str, Array]]) -> list[Arrays]:
        """Returns the outputs of each item, as the whole graph gives them.

        Args:
            items: Each with the arrays of its texts, and of its images or sounds.

        Raises:
            InputTooLongError: A text is longer than the largest rung.
            MissingInputError, ShapeMismatchError: See `fitting.prepare`.
        """
        names = self.parts.items.ladder.largest.input_names
        of_item, of_text = (part.ladder.largest.output_names[0] for part in (self.parts.items, self.parts.texts))
        embedded = self.parts.items.run([{name: item[name] for name in names if name in item} for item in items])
        results: list[Arrays] = [{}] * len(items)
        for key, members in _by_texts(items, self._contract).items():
            embeddings = {
                of_item: np.concatenate([embedded[index][of_item] for index in members]),
                of_text: self._embeddings(key, items[members[0]]),
            }
            outputs = self.parts.head.run([embeddings])[0] | embeddings
            shares = _shares(outputs, self._contract, [len(embedded[index][of_item]) for index in members])
            for index, share in zip(members, shares, strict=True):
                results[index] = share
        return results

    def _embeddings(self, key: Key, item: Mapping[str, Array]) -> Array:
        """The embeddings ``(texts, width)`` of an item's texts, which `key` stands for."""
        if (matrix := self.seen.get(key)) is not None:
            return matrix
        contract = self.parts.texts.ladder.largest
        arrays, sizes = prepare({name: item[name] for name in contract.input_names if name in item}, contract)
        check_length(sizes, self.parts.texts.ladder, None)
        rows = _rows(arrays, contract)
        keys = [tuple(row[name].tobytes() for name in contract.input_names) for row in rows]
        found = {each: array for each in set(keys) if (array := self.seen.get(each)) is not None}
        missing = {each: row for each, row in zip(keys, rows, strict=True) if each not in found}
        for each, outputs in zip(missing, self.parts.texts.run(list(missing.values())), strict=True):
            found[each] = outputs[contract.output_names[0]].copy()
            self.seen.put(each, found[each])
        matrix = np.concatenate([found[each] for each in keys])
        matrix.flags.writeable = False
        self.seen.put(key, matrix)
        return matrix


def run_pairs(runtime: Runtime, items: Sequence[Mapping[str, Array]]) -> list[Arrays]:
    """Returns each item's outputs in a model with two towers: in parts where its graphs can be cut, else as a whole.

    Args:
        runtime: Runs the model.
        items: Each with the arrays of its texts, and of its images or sounds.
    """
    towers = towers_of(runtime)
    return _run_whole(runtime, items) if towers is None else towers.run(items)


def towers_of(runtime: Runtime) -> TwoTowers | None:
    """Returns the parts of a model, cut when they are first asked for, or None where its graphs run as a whole."""
    with _cutting:
        if runtime not in _known:
            parts = cut_runtime(runtime)
            _known[runtime] = parts and TwoTowers(runtime.ladder.largest, parts)
        return _known[runtime]


_known: WeakKeyDictionary[Runtime, TwoTowers | None] = WeakKeyDictionary()
_cutting = threading.Lock()


def _run_whole(runtime: Runtime, items: Sequence[Mapping[str, Array]]) -> list[Arrays]:
    """Each item's outputs of the whole graph: items with the same texts become rows of one."""
    contract = runtime.ladder.largest
    texts = {spec.name for spec in contract.inputs if spec.batch_role == TEXTS}
    results: list[Arrays] = [{}] * len(items)
    for members in _by_texts(items, contract).values():
        first = items[members[0]]
        joined = {
            name: array if name in texts else np.concatenate([items[index][name] for index in members])
            for name, array in first.items()
        }
        counted = next(name for name in first if name not in texts)
        shares = _shares(runtime.run([joined])[0], contract, [len(items[index][counted]) for index in members])
        for index, share in zip(members, shares, strict=True):
            results[index] = share
    return results


def _by_texts(items: Sequence[Mapping[str, Array]], contract: ShapeContract) -> dict[Key, list[int]]:
    """The places of the items that go with the same texts."""
    texts = [spec.name for spec in contract.inputs if spec.batch_role == TEXTS]
    same: dict[Key, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        arrays = [(name, item[name]) for name in texts if name in item]
        facts = repr([(name, array.shape, array.dtype.str) for name, array in arrays])
        same[facts.encode(), *(array.tobytes() for _, array in arrays)].append(index)
    return same


def _shares(outputs: Mapping[str, Array], contract: ShapeContract, rows: Iterable[int]) -> Iterator[Arrays]:
    """Yields each item's share in the outputs of several, which have so many rows: its own, and those of all texts."""
    axes = {
        spec.name: next((axis for axis, role in enumerate(spec.roles()) if role in ITEMS), None)
        for spec in contract.outputs
    }
    start = 0
    for count in rows:
        own = range(start, start + count)
        yield {name: outputs[name] if axis is None else outputs[name].take(own, axis) for name, axis in axes.items()}
        start += count


def _rows(arrays: Mapping[str, Array], contract: ShapeContract) -> list[Arrays]:
    """Each text by itself, without the padding that its mask shows at its end."""
    rows = len(next(iter(arrays.values())))
    mask = arrays.get("attention_mask")
    ends: Sequence[int | None] = [None] * rows
    if mask is not None and all(spec.axis_of(SEQUENCE) == 1 for spec in contract.inputs):
        ends = (mask.shape[1] - (mask[:, ::-1] != 0).argmax(axis=1)).tolist()
    return [{name: array[row : row + 1, :end] for name, array in arrays.items()} for row, end in enumerate(ends)]
