"""What callers hand to a pipeline: as transformers takes it, and as often as it is gone through."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from torch.utils.data import Dataset


class Restarting:
    """Results for a list or a dataset: as many as it has items, computed anew whenever they are gone through."""

    def __init__(self, items: Any, run: Callable[[Iterable[Any]], Iterator[Any]]) -> None:
        self._items = items
        self._run = run

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Any]:
        # Some datasets of torch raise no IndexError at their end.
        return self._run(islice(iter(self._items), len(self._items)))


class _Rows(Dataset):  # type: ignore[misc]
    """A dataset of the ``datasets`` library as one that transformers recognises."""

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows)


def _stream(rows: Iterable[Any]) -> Iterator[Any]:
    yield from rows


_DATASETS: Mapping[str, Callable[[Any], Any]] = {
    "Dataset": _Rows,
    "Column": list,
    "IterableColumn": _stream,
}
"""Kinds of input of the ``datasets`` library that transformers does not know, and what it takes instead."""


def as_transformers_takes_it(inputs: Any) -> Any:
    """Returns inputs of the ``datasets`` library as what transformers knows, and all others as they are."""
    kind = type(inputs)
    convert = _DATASETS.get(kind.__name__) if kind.__module__.startswith("datasets.") else None
    return inputs if convert is None else convert(inputs)
