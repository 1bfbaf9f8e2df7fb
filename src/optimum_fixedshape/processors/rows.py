"""Encoded rows, one mapping each: take them apart, cut them into windows, pad them, put them together again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from transformers.utils import PaddingStrategy

from optimum_fixedshape.contract import ShapeContract
from optimum_fixedshape.windows import plan_windows

Row = dict[str, Any]


def row_lengths(ids: Any) -> list[int]:
    """Returns the tokens of each row; `ids` is one row or several, as lists, arrays or tensors."""
    nested = len(ids) and (isinstance(ids[0], (list, tuple)) or getattr(ids[0], "ndim", 0))
    return [len(row) for row in ids] if nested else [len(ids)]


def is_single(encoded: Any) -> bool:
    """Whether a `BatchEncoding` of lists is that of one text, not nested in a batch."""
    ids = encoded["input_ids"]
    return not (ids and isinstance(ids[0], (list, tuple)))


def rows_of(encoded: Any) -> list[Row]:
    """Returns the rows of a `BatchEncoding` of lists."""
    if is_single(encoded):
        length = encoded.get("length")
        return [{**encoded, "length": length[0]} if isinstance(length, list) else {**encoded}]
    count = len(encoded["input_ids"])
    columns = {name: column for name, column in encoded.items() if len(column) == count}
    return [{name: column[i] for name, column in columns.items()} for i in range(count)]


def join_rows(encoded: Any, rows: Sequence[Row], *, nested: bool) -> None:
    """Puts `rows` back where `rows_of` took them from.

    Args:
        encoded: The `BatchEncoding`.
        rows: The rows, all with the same fields.
        nested: False where there is one row, and it is not to be nested in a batch.
    """
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    # transformers returns the length of a single text as a list of one number if the tokenizer has a Rust backend.
    kept = {"length"} if encoded.is_fast else set()
    encoded.update({name: column if nested or name in kept else column[0] for name, column in columns.items()})


def size_of(row: Row) -> int:
    """Returns the tokens of a row, or of its labels where ``text_target`` made more of them."""
    labels = row.get("labels")
    return max(len(row["input_ids"]), len(labels) if isinstance(labels, list) else 0)


def cut_row(row: Row, limit: int) -> Iterator[Row]:
    """Yields the windows of a row that has a ``special_tokens_mask``; the row itself if `limit` tokens hold it.

    Raises:
        InputTooLongError: See `windows.plan_windows`.
    """
    length = len(row["input_ids"])
    if length <= limit:
        yield row
        return
    # ByT5's mask counts an end token that it does not add to a text that has one.
    for places in plan_windows(row["special_tokens_mask"][:length], limit).tokens:
        window = {
            name: [value[i] for i in places] if isinstance(value, list) and len(value) == length else value
            for name, value in row.items()
        }
        yield window | ({"length": len(places)} if "length" in row else {})


def pad_row(tokenizer: Any, row: Row, length: int, side: str) -> Row:
    """Returns a row padded to `length` tokens the way `tokenizer` pads."""
    masked = "attention_mask" in row
    to_length = {"max_length": length, "padding_strategy": PaddingStrategy.MAX_LENGTH, "padding_side": side}
    padded: Row = tokenizer._pad(row, return_attention_mask=masked, **to_length)
    for name, value in (("offset_mapping", (0, 0)), ("labels", tokenizer.pad_token_id)):
        if isinstance(given := padded.get(name), list):
            missing = [value] * (length - len(given))
            padded[name] = missing + given if side == "left" else given + missing
    return padded


def in_graph_dtypes(encoded: Any, contract: ShapeContract) -> Any:
    """Returns `encoded` with its arrays and tensors in the graph's dtypes."""
    for spec in contract.inputs:
        value = encoded.get(spec.name)
        if isinstance(value, np.ndarray) and value.dtype != object:
            encoded[spec.name] = value.astype(spec.dtype, copy=False)
        elif hasattr(value, "to"):
            import torch

            encoded[spec.name] = value.to(getattr(torch, spec.dtype))
    return encoded
