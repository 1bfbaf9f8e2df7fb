"""`pipe.stream()`: one pipeline for many callers, each with a single item."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from optimum_fixedshape.batching import Batcher
from optimum_fixedshape.contract import BATCH, IMAGES, SEQUENCE, SOUNDS
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.processors.backends import own_copy

_ROWS_WHERE_OPEN = 32
_LONE_ANSWERS = {"fill-mask", "question-answering"}
"""Tasks whose classes answer a list of one item as if it were no list."""


def stream(
    pipe: Any,
    *,
    batch_size: int | None = None,
    max_delay_ms: float = 1.0,
    max_queue: int = 1024,
    timeout: float | None = None,
    workers: int = 1,
) -> Batcher[Any, Any]:
    """Returns a batcher: callable, awaitable and a context manager; see `Batcher`.

    An answer is what the pipeline gives for the item in a list. Texts share a batch if they go to the same rung.

    Args:
        pipe: A pipeline of this package.
        batch_size: Items of a batch; by default the rows of the graph, or 32 where it leaves them open.
        max_delay_ms: See `Batcher`, as for all others.
        max_queue: How many items may wait.
        timeout: Seconds that a call waits for a place in a full queue.
        workers: Batches at the same time.
    """
    return Batcher(
        _answers_of_lists(pipe),
        batch_size=(_rows_of(pipe.model.ladder) or _ROWS_WHERE_OPEN) if batch_size is None else batch_size,
        bucket_of=_rung_of(pipe),
        max_delay_ms=max_delay_ms,
        max_queue=max_queue,
        timeout=timeout,
        workers=workers,
    )


def _answers_of_lists(pipe: Any) -> Callable[..., Any]:
    is_open = _rows_of(pipe.model.ladder) is None
    is_odd = pipe.task in _LONE_ANSWERS

    def answers(items: list[Any], **params: Any) -> Any:
        found = pipe(items, **({"batch_size": len(items)} if is_open else {}) | params)
        return [found] if is_odd and len(items) == 1 else found

    return answers


def _rung_of(pipe: Any) -> Callable[[Any], int | None] | None:
    """Tells of an item how long the rung is that its text goes to; None where that makes no difference."""
    lengths = _lengths_of_rungs(pipe.model.ladder)
    tokenizer = getattr(pipe, "tokenizer", None)
    if len(lengths) < 2 or tokenizer is None or not tokenizer.is_fast:
        return None
    rust = own_copy(tokenizer).backend_tokenizer  # settings of the pipeline's own change while it is in use
    rust.no_padding()
    rust.no_truncation()

    def rung_of(item: Any) -> int | None:
        tokens = sum(len(rust.encode(text)) for text in _texts_of(item))
        return next((length for length in lengths if length >= tokens), None)

    return rung_of


def _rows_of(ladder: ShapeLadder) -> int | None:
    sizes = ladder.largest.sizes
    return next((sizes[role] for role in (BATCH, IMAGES, SOUNDS) if role in sizes), None)


def _lengths_of_rungs(ladder: ShapeLadder) -> list[int]:
    lengths = {rung.sizes.get(SEQUENCE) for rung in ladder.rungs}
    return [] if None in lengths else sorted(length for length in lengths if length is not None)


def _texts_of(item: Any) -> Iterator[str]:
    """Every text in an item: of pairs and of dicts, too."""
    if isinstance(item, str):
        yield item
    elif isinstance(item, (list, tuple, Mapping)):
        for part in item.values() if isinstance(item, Mapping) else item:
            yield from _texts_of(part)
