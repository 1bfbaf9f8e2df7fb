"""The measure of correctness, written once: what we answer is what the original answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from optimum_fixedshape.contract import BATCH, SEQUENCE, ShapeLadder

TOLERANCE = 1e-4


def assert_same(ours: Any, theirs: Any, *, tolerance: float = TOLERANCE, where: str = "answer") -> None:
    """Asserts that two answers agree field by field: same types, same lengths, numbers within `tolerance`."""
    if isinstance(theirs, Mapping):
        assert isinstance(ours, Mapping), f"{where}: {type(ours)} is no mapping"
        assert list(ours) == list(theirs), f"{where}: fields {list(ours)} != {list(theirs)}"
        for key in theirs:
            assert_same(ours[key], theirs[key], tolerance=tolerance, where=f"{where}[{key!r}]")
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) is type(theirs), f"{where}: {type(ours)} != {type(theirs)}"
        assert len(ours) == len(theirs), f"{where}: {len(ours)} items != {len(theirs)}"
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            assert_same(mine, other, tolerance=tolerance, where=f"{where}[{index}]")
    elif isinstance(theirs, (torch.Tensor, np.ndarray)):
        assert type(ours) is type(theirs), f"{where}: {type(ours)} != {type(theirs)}"
        mine, other = np.asarray(ours), np.asarray(theirs)
        assert mine.shape == other.shape, f"{where}: shape {mine.shape} != {other.shape}"
        assert_close(mine, other, tolerance=tolerance, where=where)
    elif isinstance(theirs, (float, np.floating)):
        assert isinstance(ours, type(theirs)), f"{where}: {type(ours)} != {type(theirs)}"
        assert_close(np.asarray(ours), np.asarray(theirs), tolerance=tolerance, where=where)
    else:
        assert ours == theirs, f"{where}: {ours!r} != {theirs!r}"


def assert_close(ours: np.ndarray, theirs: np.ndarray, *, tolerance: float, where: str) -> None:
    assert np.isfinite(theirs.astype(float)).all(), f"{where}: the original itself is not finite"
    apart = float(np.abs(ours.astype(float) - theirs.astype(float)).max(initial=0.0))
    assert apart <= tolerance, f"{where}: {apart:.2e} apart"


def assert_model_equals_original(model: Any, original: torch.nn.Module, *, vocabulary: int, seed: int = 0) -> None:
    """Asserts equality below, at and above every rung in both directions, in every slot, in torch and in NumPy."""
    generator = np.random.default_rng(seed)
    for rows, length in sizes_around(model.ladder):
        feeds = random_rows(model, rows, length, vocabulary=vocabulary, generator=generator)
        with torch.no_grad():
            theirs = original(**{name: torch.from_numpy(array) for name, array in feeds.items()}, return_dict=True)
        where = f"{rows} rows of {length} tokens"
        ours = model(**feeds)
        names = [name for name in theirs if name in ours]
        assert names, where
        assert "logits" in names or len(names) == len(list(ours)), where
        for name in names:
            assert ours[name].shape == tuple(theirs[name].shape), f"{where}: {name}"
            assert_close(ours[name], theirs[name].numpy(), tolerance=TOLERANCE, where=f"{where}: {name}")
        in_torch = model(**{name: torch.from_numpy(array) for name, array in feeds.items()})
        assert_same(
            in_torch.to_tuple(), tuple(torch.from_numpy(ours[name]) for name in ours), tolerance=0.0, where=where
        )


def sizes_around(ladder: ShapeLadder) -> Iterator[tuple[int, int]]:
    """Yields rows and lengths below, at and above every rung; no length that no rung holds."""
    limit = ladder.limit(SEQUENCE)
    for rung in ladder.rungs:
        batch, length = rung.sizes.get(BATCH) or 2, rung.sizes.get(SEQUENCE) or 8
        for rows in sorted({1, batch - 1, batch, batch + 1, 2 * batch + 1} - {0}):
            for tokens in sorted({2, length - 1, length, length + 1}):
                if limit is None or tokens <= limit:
                    yield rows, tokens


def random_rows(
    model: Any, rows: int, length: int, *, vocabulary: int, generator: np.random.Generator
) -> dict[str, np.ndarray]:
    """Returns inputs whose rows all differ, the way a caller's batch looks: no padding, two segments."""
    names = model.contract.input_names
    shape: Sequence[int] = (
        (rows, model.contract.sizes["num_choices"], length) if "num_choices" in model.contract.sizes else (rows, length)
    )
    ids = generator.integers(5, vocabulary, shape)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    if "token_type_ids" in names:
        feeds["token_type_ids"] = np.broadcast_to((np.arange(length) > length // 2).astype(np.int64), shape).copy()
    return feeds
