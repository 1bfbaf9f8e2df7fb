"""What a fixed tokenizer does when it is called: encode as the plain one, cut or refuse, pad to a rung.

A *call* is the arguments by name. All but `padding`, `truncation` and `overflow` is the plain tokenizer's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from transformers import BatchEncoding
from transformers.utils import PaddingStrategy

from optimum_fixedshape.contract import BATCH, SEQUENCE
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.runtime import check_length

from .rows import Row, cut_row, in_graph_dtypes, is_single, join_rows, pad_row, row_lengths, rows_of, size_of

if TYPE_CHECKING:
    from .text import FixedShapeTokenizer

Call = dict[str, Any]

_TEXTS = ("text", "text_pair", "text_target", "text_pair_target")
_UNCUT = (None, False, "do_not_truncate")
_PADDING = {None: PaddingStrategy.LONGEST, True: PaddingStrategy.LONGEST, False: PaddingStrategy.DO_NOT_PAD}


def encode(tokenizer: FixedShapeTokenizer, call: Call, first: int = 0) -> Any:
    """Returns the `BatchEncoding` of a call, in the graph's shape and dtypes.

    Args:
        tokenizer: Knows the graph.
        call: What the user asked for.
        first: The place of the call's first item among all that the user passed, for messages.

    Raises:
        InputTooLongError: A row is longer than the largest rung, and nobody allows a cut.
    """
    if _is_empty(call):
        return _no_rows(tokenizer, call)
    limit = tokenizer.limit
    if limit is None:
        encoded = tokenizer.for_one_call(call)(**call)
    elif tokenizer.exact_length:
        encoded = _encode_exact(tokenizer, call, limit, first)
    else:
        encoded = _encode_to_rung(tokenizer, call, limit, first)
    return in_graph_dtypes(encoded, tokenizer.ladder.largest)


def pad(tokenizer: FixedShapeTokenizer, call: Call) -> Any:
    """Returns encoded rows padded to the smallest rung that holds them.

    Args:
        tokenizer: Knows the graph.
        call: The arguments of the plain tokenizer's `pad`.

    Raises:
        InputTooLongError: A row is longer than the largest rung.
    """
    plain = tokenizer.for_one_call(call)
    padding = _padding(call)
    if tokenizer.limit is None or tokenizer.exact_length or padding is PaddingStrategy.DO_NOT_PAD:
        return plain.pad(**call)
    rows = call["encoded_inputs"] if isinstance(call["encoded_inputs"], (list, tuple)) else [call["encoded_inputs"]]
    lengths = [length for row in rows for length in row_lengths(row["input_ids"])]
    least = _at_most(tokenizer, call, tokenizer.limit) if padding is PaddingStrategy.MAX_LENGTH else 0
    length = _rung_length(tokenizer.ladder, lengths, range(len(lengths)), least)
    to_rung = {"padding": "max_length", "max_length": length, "pad_to_multiple_of": None}
    return in_graph_dtypes(plain.pad(**call | to_rung), tokenizer.ladder.largest)


def _encode_exact(tokenizer: FixedShapeTokenizer, call: Call, limit: int, first: int) -> Any:
    truncation = _truncation(tokenizer, call)
    keeps_long_rows = tokenizer.overflow == "window" and truncation in _UNCUT
    asked = call.get("return_special_tokens_mask", False)
    settings = {**_cut(tokenizer, call, truncation, limit), "return_special_tokens_mask": asked or keeps_long_rows}
    if call.get("padding") is None:
        settings["padding"] = False
    encoded = tokenizer.for_one_call(call)(**call | settings)
    lengths = row_lengths(encoded["input_ids"])
    if not keeps_long_rows:
        _check(tokenizer.ladder, lengths, range(first, first + len(lengths)) if len(lengths) > 1 else [None])
    elif not asked and max(lengths) <= limit:
        del encoded["special_tokens_mask"]
    return encoded


def _encode_to_rung(tokenizer: FixedShapeTokenizer, call: Call, limit: int, first: int) -> Any:
    truncation = _truncation(tokenizer, call)
    windows = tokenizer.overflow == "window" and truncation is None and call.get("text_target") is None
    settings = _windows(tokenizer, call, limit) if windows else _cut(tokenizer, call, truncation, limit)
    plain = tokenizer.for_one_call(call)
    encoded = plain(**call | settings | {"padding": False, "return_tensors": None})
    single, rows = is_single(encoded), rows_of(encoded)
    if windows and not tokenizer.is_fast:
        single, rows = False, _cut_rows(encoded, rows, call, limit)
    items = [None] if single else [first + row.get("overflow_to_sample_mapping", i) for i, row in enumerate(rows)]
    lengths, padding = list(map(size_of, rows)), _padding(call)
    if padding is PaddingStrategy.DO_NOT_PAD:
        _check(tokenizer.ladder, lengths, items)
    else:
        least = _at_most(tokenizer, call, limit) if padding is PaddingStrategy.MAX_LENGTH else 0
        length = _rung_length(tokenizer.ladder, lengths, items, least)
        rows = _pad_rows(plain, encoded, rows, length, call.get("padding_side") or plain.padding_side)
    tensors = call.get("return_tensors")
    join_rows(encoded, rows, nested=not single or tensors is not None)
    return encoded.convert_to_tensors(tensors)


def _pad_rows(plain: Any, encoded: Any, rows: Sequence[Row], length: int, side: str) -> list[Row]:
    padded = [pad_row(plain, row, length, side) for row in rows]
    # As in transformers, padding counts, except in a batch without a Rust backend.
    if "length" in padded[0] and (encoded.is_fast or is_single(encoded)):
        padded = [{**row, "length": length} for row in padded]
    pads = {"pad_id": plain.pad_token_id, "pad_type_id": plain.pad_token_type_id, "pad_token": plain.pad_token}
    for encoding in encoded.encodings or ():
        encoding.pad(length, direction=side, **pads)
    return padded


def _cut_rows(encoded: Any, rows: Sequence[Row], call: Call, limit: int) -> list[Row]:
    windows = [
        {**window, "overflow_to_sample_mapping": i} for i, row in enumerate(rows) for window in cut_row(row, limit)
    ]
    if not call.get("return_special_tokens_mask"):
        for row in (encoded, *windows):
            del row["special_tokens_mask"]
    return windows


def _truncation(tokenizer: FixedShapeTokenizer, call: Call) -> Any:
    """What the call says about truncation, else what `overflow` does; None where neither allows or forbids it."""
    if (said := call.get("truncation")) is not None:
        return said
    if call.get("max_length") is not None and not call.get("padding"):
        return "longest_first"  # transformers takes a max_length alone for a wish to cut
    return True if tokenizer.overflow == "truncate" else None


def _cut(tokenizer: FixedShapeTokenizer, call: Call, truncation: Any, limit: int) -> Call:
    if truncation in _UNCUT:
        return {"truncation": False, "verbose": False}  # what transformers warns of is an error here
    return {"truncation": truncation, "max_length": _at_most(tokenizer, call, limit)}


def _windows(tokenizer: FixedShapeTokenizer, call: Call, limit: int) -> Call:
    """The settings for overlapping windows; without a Rust backend, for rows that `cut_row` can cut."""
    if not tokenizer.is_fast:
        return {"truncation": False, "verbose": False, "return_special_tokens_mask": True}
    pairs = _may_hold_pairs(call)
    room = limit - tokenizer.num_special_tokens_to_add(pair=pairs)
    # Rust panics unless every window advances; of a pair it may give half of the room to each text.
    most = (room // 2 if pairs else room) - 1
    stride = max(min(call.get("stride") or limit // 4, most), 0)
    return {"truncation": "longest_first", "max_length": limit, "stride": stride, "return_overflowing_tokens": True}


def _may_hold_pairs(call: Call) -> bool:
    text = call.get("text")
    return call.get("text_pair") is not None or (isinstance(text, (list, tuple)) and isinstance(text[0], (list, tuple)))


def _padding(call: Call) -> PaddingStrategy:
    """What the call says about padding; a call that says nothing is padded."""
    said = call.get("padding")
    return PaddingStrategy(_PADDING.get(said, said))


def _at_most(tokenizer: FixedShapeTokenizer, call: Call, limit: int) -> int:
    said = call.get("max_length")
    return min(tokenizer.model_max_length if said is None else said, limit)


def _check(ladder: ShapeLadder, lengths: Iterable[int], items: Iterable[int | None]) -> None:
    for length, item in zip(lengths, items, strict=True):
        check_length({SEQUENCE: length}, ladder, item)


def _rung_length(ladder: ShapeLadder, lengths: Sequence[int], items: Iterable[int | None], least: int) -> int:
    """The tokens of the rung that takes these rows, and `least` tokens."""
    _check(ladder, lengths, items)
    size = max([*lengths, least])
    return ladder.rungs[ladder.choose({BATCH: len(lengths), SEQUENCE: size})].sequence_length or size


def _is_empty(call: Call) -> bool:
    text = call.get("text_target") if call.get("text") is None else call["text"]
    return isinstance(text, (list, tuple)) and not text and not call.get("is_split_into_words")


def _no_rows(tokenizer: FixedShapeTokenizer, call: Call) -> Any:
    one = encode(tokenizer, call | {name: [""] for name in _TEXTS if call.get(name) is not None})
    return BatchEncoding({name: rows[:0] for name, rows in one.items()}, [] if one.is_fast else None)
