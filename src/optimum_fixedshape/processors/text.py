"""Tokenizers that know the graph: the user's own class, with what comes back in the graph's shape and dtype."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np

from ..contract import SEQUENCE, ShapeLadder
from ..errors import ProcessorError
from ..fitting import Feed, Fill, fit, pad_id_of, prepare
from ..runtime import check_length
from ..tasks import Overflow
from .backends import Backends, share

_UNPADDED = (False, "do_not_pad")
_UNCUT = (None, False, "do_not_truncate")
_MADE_BY_TOKENIZERS = ("input_ids", "token_type_ids", "attention_mask")
_ROWS_OF_A_FREE_BATCH = 32


class FixedShapeTokenizer:
    """Mixed into the user's tokenizer class by `fix_tokenizer`; adds the graph's shapes to it.

    Calling it pads to the smallest rung that holds the longest row, where transformers would not pad at all; an
    explicit ``padding=False`` is obeyed. All else is the tokenizer's own: `encode`, `decode`, `apply_chat_template`, ...

    Attributes:
        ladder: The graph's contracts.
        overflow: What happens to a row longer than the largest rung where the call itself does not say ``truncation``.
        exact_length: Never pad by default: rows come back as long as they are, and the model fits them. Pipelines
            use this. With ``overflow="window"`` too long rows come back whole, with their ``special_tokens_mask``.
    """

    ladder: ShapeLadder
    overflow: Overflow
    exact_length: bool
    _plain_class: type
    _plain_facts: dict[str, Any]
    _backends: Backends

    @property
    def limit(self) -> int | None:
        """The tokens of the largest rung, or None where the graph takes any number."""
        return self.ladder.limit(SEQUENCE)

    @property
    def fill(self) -> Fill:
        """What stands in the padded places."""
        return Fill(pad_id_of(self), self.pad_token_type_id)  # type: ignore[attr-defined]

    def __call__(
        self,
        text: Any = None,
        text_pair: Any = None,
        text_target: Any = None,
        text_pair_target: Any = None,
        add_special_tokens: bool = True,
        padding: Any = None,
        truncation: Any = None,
        max_length: int | None = None,
        stride: int = 0,
        **kwargs: Any,
    ) -> Any:
        """Returns a `BatchEncoding` with the rows given, each as long as a rung of the graph and in its dtype.

        Takes what the tokenizer's own class takes. ``truncation`` cuts at `max_length` or at the largest rung,
        whichever is less; ``padding="max_length"`` pads to the rung that holds `max_length`, else to the largest.

        Raises:
            InputTooLongError: A row is longer than the largest rung, and neither the call nor `overflow` allows a cut.
        """
        if isinstance(text, (list, tuple)) and not text:
            return self._no_rows(kwargs.get("return_tensors"))
        call = {"padding": padding or False, "truncation": truncation, "max_length": max_length, "stride": stride}
        call |= kwargs | {"add_special_tokens": add_special_tokens}
        if self.limit is not None:
            call |= self._cut(self.limit, padding, call, pair=text_pair is not None)
        pads = self.limit is not None and not self.exact_length and (padding is None or padding not in _UNPADDED)
        tensors = call.get("return_tensors")
        if pads:
            call |= {"padding": False, "return_tensors": None}
        encoded = super().__call__(text, text_pair, text_target, text_pair_target, **call)  # type: ignore[misc]
        if self._keeps_long_rows(call):
            self._mark_special_tokens(encoded, text, text_pair, text_target, text_pair_target, call)
        else:
            self._check(encoded)
        if pads:
            batched = _is_batch(text if text is not None else text_target, kwargs.get("is_split_into_words", False))
            nested = batched or bool(call.get("return_overflowing_tokens"))
            least = min(max_length or self.limit, self.limit) if padding == "max_length" else 0  # type: ignore[type-var]
            self._pad_rows(encoded, nested or tensors is not None, nested, least or 0, kwargs.get("padding_side"))
            encoded = encoded.convert_to_tensors(tensors)
        return self._in_graph_dtypes(encoded)

    def pad(self, encoded_inputs: Any, padding: Any = True, max_length: int | None = None, **kwargs: Any) -> Any:
        """Returns encoded rows padded to the smallest rung that holds the longest of them.

        Raises:
            InputTooLongError: A row is longer than the largest rung.
        """
        base: Any = super()
        if self.limit is None or self.exact_length or padding in _UNPADDED:
            return base.pad(encoded_inputs, padding=padding, max_length=max_length, **kwargs)
        rows = encoded_inputs if isinstance(encoded_inputs, (list, tuple)) else [encoded_inputs]
        lengths = [n for row in rows for n in _lengths(row["input_ids"])]
        least = max_length or self.limit if padding == "max_length" else 0
        target = self._rung_length(lengths, min(least, self.limit))
        padded = base.pad(encoded_inputs, padding="max_length", max_length=target, **kwargs)
        return self._in_graph_dtypes(padded)

    def feeds(self, items: str | Iterable[Any], **kwargs: Any) -> Iterator[Feed]:
        """Yields feeds for a bare `InferenceSession`, exact in every dimension, in the order of `items`.

        Args:
            items: A text, or any number of texts or of ``(text, pair)`` tuples; also a generator, read as needed.
            **kwargs: Passed on to the tokenizer.

        Raises:
            InputTooLongError: As when called.
        """
        remaining = iter([items] if isinstance(items, str) else items)
        rows = self.ladder.largest.batch_size or _ROWS_OF_A_FREE_BATCH
        while chunk := list(islice(remaining, rows)):
            encoded = self(chunk, padding=True, return_tensors="np", **kwargs)
            arrays, sizes = prepare(encoded, self.ladder.largest)
            rung = self.ladder.rungs[self.ladder.choose(len(chunk), sizes)]
            yield from fit(arrays, rung, self.fill)

    def plain(self) -> Any:
        """Returns the tokenizer as transformers made it, without the graph's shapes."""
        twin = object.__new__(self._plain_class)
        twin.__dict__.update(_without(self.__dict__, _ADDED), **self._plain_facts)
        return copy.deepcopy(twin)

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """Saves the tokenizer as transformers made it, so that stock transformers loads it."""
        return self.plain().save_pretrained(save_directory, *args, **kwargs)

    def train_new_from_iterator(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a plain tokenizer with the same rules and a new vocabulary."""
        return self.plain().train_new_from_iterator(*args, **kwargs)

    def _cut(self, limit: int, padding: Any, call: Mapping[str, Any], *, pair: bool) -> dict[str, Any]:
        """The truncation arguments that keep the caller's wishes and the graph's limit."""
        truncation, max_length = call["truncation"], call["max_length"]
        if truncation is None and max_length is not None and not padding:
            truncation = "longest_first"  # what transformers makes of a max_length without a truncation
        if truncation is None and self.overflow == "truncate":
            truncation = True
        if truncation is None and self.overflow == "window" and not self.exact_length:
            stride = call["stride"] or limit // 4
            which = "only_second" if pair else "longest_first"
            return {"truncation": which, "max_length": limit, "stride": stride, "return_overflowing_tokens": True}
        if truncation in _UNCUT:
            return {"verbose": False}  # transformers warns of rows longer than the model; here they are an error
        return {"truncation": truncation, "max_length": min(max_length or limit, limit)}

    def _keeps_long_rows(self, call: Mapping[str, Any]) -> bool:
        return self.exact_length and self.overflow == "window" and call["truncation"] in _UNCUT

    def _mark_special_tokens(self, encoded: Any, *texts_and_call: Any) -> None:
        """Windows repeat the special tokens, so a row that will be cut into windows says which they are."""
        *texts, call = texts_and_call
        longest = max(_lengths(encoded["input_ids"]), default=0)
        if self.limit is not None and longest > self.limit and "special_tokens_mask" not in encoded:
            again = super().__call__(*texts, **{**call, "return_special_tokens_mask": True})  # type: ignore[misc]
            encoded["special_tokens_mask"] = again["special_tokens_mask"]

    def _check(self, encoded: Any) -> None:
        owners = encoded.get("overflow_to_sample_mapping")
        lengths = _lengths(encoded["input_ids"])
        for row, length in enumerate(lengths):
            index = row if owners is None else int(owners[row])
            check_length({SEQUENCE: length}, self.ladder, index if len(lengths) > 1 else None)

    def _rung_length(self, lengths: list[int], least: int = 0) -> int:
        longest = max([*lengths, least])
        check_length({SEQUENCE: longest}, self.ladder, lengths.index(longest) if len(lengths) > 1 else None)
        rung = self.ladder.rungs[self.ladder.choose(len(lengths), {SEQUENCE: longest})]
        return rung.sequence_length or longest

    def _pad_rows(self, encoded: Any, nest: bool, nested: bool, least: int, side: str | None) -> None:
        side = side or self.padding_side  # type: ignore[attr-defined]
        fill = self.fill
        values = {"special_tokens_mask": 1, "offset_mapping": (0, 0), "labels": fill.pad_token_id}
        length = self._rung_length(_lengths(encoded["input_ids"]), least)
        for name, rows in encoded.items():
            if name in ("length", "overflow_to_sample_mapping"):
                continue
            value = values.get(name, fill.value(name))
            padded = [_padded(row, length, value, side) for row in (rows if nested else [rows])]
            encoded[name] = padded if nest else padded[0]
        for encoding in encoded.encodings or ():
            encoding.pad(
                length,
                direction=side,
                pad_id=fill.pad_token_id,
                pad_type_id=fill.pad_token_type_id,
                pad_token=self.convert_ids_to_tokens(fill.pad_token_id),  # type: ignore[attr-defined]
            )

    def _no_rows(self, return_tensors: Any) -> Any:
        from transformers import BatchEncoding

        shape = (0, self._rung_length([]) if self.limit is not None and not self.exact_length else 0)
        names = [name for name in self.model_input_names if name in _MADE_BY_TOKENIZERS]  # type: ignore[attr-defined]
        empty: dict[str, Any] = {name: np.zeros(shape, np.int64) if return_tensors else [] for name in names}
        encoded = BatchEncoding(empty)
        if return_tensors == "pt":
            encoded = encoded.convert_to_tensors("pt")
        return self._in_graph_dtypes(encoded)

    def _in_graph_dtypes(self, encoded: Any) -> Any:
        for spec in self.ladder.largest.inputs:
            value = encoded.get(spec.name)
            if isinstance(value, np.ndarray):
                encoded[spec.name] = value.astype(spec.dtype, copy=False)
            elif hasattr(value, "to") and hasattr(value, "dtype"):
                import torch

                encoded[spec.name] = value.to(getattr(torch, spec.dtype))
        return encoded

    def set_truncation_and_padding(self, *args: Any, **settings: Any) -> None:
        """Chooses the Rust tokenizer that has these settings; none is ever changed while another thread uses it."""
        base: Any = super()
        if not self.__dict__.get("_is_view"):
            base.set_truncation_and_padding(*args, **settings)
        elif settings["padding_strategy"] != "do_not_pad" or settings["truncation_strategy"] != "do_not_truncate":
            view: Any = self

            def make() -> Any:
                view._tokenizer = share(view._tokenizer)
                base.set_truncation_and_padding(*args, **settings)
                return view._tokenizer

            sides = (view.padding_side, view.truncation_side, view.pad_token_id, view.pad_token_type_id)
            view._tokenizer = self._backends.get((args, *sides, *sorted(settings.items())), make)

    def _encode_plus(self, *args: Any, **kwargs: Any) -> Any:
        base: Any = super(FixedShapeTokenizer, self._view())
        return base._encode_plus(*args, **kwargs)

    def _batch_encode_plus(self, *args: Any, **kwargs: Any) -> Any:
        base: Any = super(FixedShapeTokenizer, self._view())
        return base._batch_encode_plus(*args, **kwargs)

    def _view(self) -> FixedShapeTokenizer:
        """This tokenizer for one call: it may choose another Rust tokenizer, and no other thread sees it."""
        view = object.__new__(type(self))
        view.__dict__.update(self.__dict__, _is_view=True)
        return view

    def _add_tokens(self, *args: Any, **kwargs: Any) -> Any:
        base: Any = super()
        self._backends.clear()
        return base._add_tokens(*args, **kwargs)

    def update_post_processor(self) -> None:
        """Rebuilds the special tokens' template after a setting has changed."""
        base: Any = super()
        self._backends.clear()
        base.update_post_processor()

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (self._plain_class, _without(self.__dict__, {"_backends", "_is_view"}))


_ADDED = frozenset({"ladder", "overflow", "exact_length", "_plain_facts", "_backends", "_is_view"})


def fix_tokenizer(
    tokenizer: Any, ladder: ShapeLadder, *, overflow: Overflow = "error", exact_length: bool = False
) -> FixedShapeTokenizer:
    """Returns a tokenizer of the same class, told what the graph takes. The one given stays as it was.

    Args:
        tokenizer: Any transformers tokenizer, with a Rust backend or not, fixed already or not.
        ladder: The graph's contracts.
        overflow: See `FixedShapeTokenizer`.
        exact_length: See `FixedShapeTokenizer`.

    Raises:
        ProcessorError: `tokenizer` is not one of transformers'.
        ValueError: `overflow` is unknown.
    """
    from transformers import PreTrainedTokenizerBase

    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ProcessorError(
            f"A tokenizer of transformers is needed, got {type(tokenizer).__name__}.",
            expected="PreTrainedTokenizerBase",
            given=type(tokenizer).__name__,
        )
    if overflow not in ("error", "truncate", "window"):
        raise ValueError(f"overflow must be 'error', 'truncate' or 'window', got {overflow!r}.")
    fixed: Any = object.__new__(_fixed_class(getattr(tokenizer, "_plain_class", type(tokenizer))))
    fixed.__dict__.update({name: _own(value) for name, value in tokenizer.__dict__.items()})
    fixed.__dict__.update(ladder=ladder, overflow=overflow, exact_length=exact_length, _backends=Backends())
    if isinstance(tokenizer, FixedShapeTokenizer):
        return fixed  # type: ignore[no-any-return]
    if rust := getattr(tokenizer, "_tokenizer", None):
        fixed.__dict__["_tokenizer"] = share(rust)
    facts = ("model_max_length", "model_input_names")
    fixed.__dict__["_plain_facts"] = {name: _own(getattr(tokenizer, name)) for name in facts}
    if limit := ladder.limit(SEQUENCE):
        fixed.model_max_length = min(fixed.model_max_length, limit)
    if "input_ids" in (taken := ladder.largest.input_names):
        own = [name for name in tokenizer.model_input_names if name in taken]
        needed = ["attention_mask"] if "attention_mask" in taken and "attention_mask" not in own else []
        fixed.model_input_names = own + needed
    if fixed.pad_token_id is None and not exact_length:
        instead = f"its end token {fixed.eos_token!r}" if fixed.eos_token_id is not None else "token id 0"
        warnings.warn(f"{type(fixed).__name__} has no pad token; padding with {instead}.", stacklevel=3)
    return fixed  # type: ignore[no-any-return]


@functools.cache
def _fixed_class(plain: type) -> type:
    facts = {"__module__": plain.__module__, "__doc__": plain.__doc__, "_plain_class": plain}
    return type(plain.__name__, (FixedShapeTokenizer, plain), facts)


def _restore(plain: type, state: dict[str, Any]) -> Any:
    tokenizer: Any = object.__new__(_fixed_class(plain))
    tokenizer.__dict__.update(state, _backends=Backends())
    return tokenizer


def _without(state: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in state.items() if name not in set(names)}


def _own(value: Any) -> Any:
    """A copy of a container, so that changing the fixed tokenizer never changes the one it was made from."""
    return copy.copy(value) if isinstance(value, (dict, list, set)) else value


def _is_batch(text: Any, split_into_words: bool) -> bool:
    first = text[0] if isinstance(text, (list, tuple)) and text else None
    return isinstance(first if split_into_words else text, (list, tuple))


def _lengths(ids: Any) -> list[int]:
    if hasattr(ids, "shape"):
        return [int(ids.shape[-1])] * (int(ids.shape[0]) if len(ids.shape) > 1 else 1)
    return [len(row) for row in ids] if ids and isinstance(ids[0], (list, tuple)) or hasattr(ids[0], "shape") else [len(ids)]


def _padded(row: list[Any], length: int, value: Any, side: str) -> list[Any]:
    missing = [value] * (length - len(row))
    return [*missing, *row] if side == "left" else [*row, *missing]
