"""Tokenizers that know the graph: the user's own class, with what comes back in the graph's shape and dtype."""

from __future__ import annotations

import copy
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count, islice
from typing import Any

from transformers import PreTrainedTokenizerBase

from optimum_fixedshape.contract import SEQUENCE, ShapeLadder
from optimum_fixedshape.errors import ProcessorError
from optimum_fixedshape.fitting import Feed, Fill, fit, prepare
from optimum_fixedshape.tasks import Overflow

from .backends import Backends, for_one_call, own_copy
from .encoding import encode, pad

_ROWS_OF_A_FREE_BATCH = 32


class FixedShapeTokenizer:
    """Mixed into the user's tokenizer class by `fix_tokenizer`; adds the graph's shapes to it.

    Calling it pads to the smallest rung that holds the longest row, where transformers would not pad at all; an
    explicit ``padding=False`` is obeyed. All else is the tokenizer's own: `encode`, `decode`, `tokenize`, ...

    Attributes:
        ladder: The graph's contracts.
        overflow: What happens to a row longer than the largest rung where the call itself does not say ``truncation``.
        exact_length: Never pad by default: rows come back as long as they are, and the model fits them. Pipelines
            use this. With ``overflow="window"`` too long rows come back whole, with their ``special_tokens_mask``.
    """

    ladder: ShapeLadder
    overflow: Overflow
    exact_length: bool
    _plain_class: type[Any]
    _told: Mapping[str, tuple[Any, Any]]
    _backends: Backends

    is_fast: bool
    model_max_length: int
    num_special_tokens_to_add: Callable[..., int]

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Returns a plain tokenizer: only `fix_tokenizer` knows a graph."""
        return cls._plain_class(*args, **kwargs)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Returns a plain tokenizer of the user's class."""
        return cls._plain_class.from_pretrained(*args, **kwargs)

    @property
    def limit(self) -> int | None:
        """The tokens of the largest rung, or None where the graph takes any number."""
        return self.ladder.limit(SEQUENCE)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a `BatchEncoding` with the rows given, each as long as a rung of the graph and in its dtype.

        Takes what the tokenizer's own class takes. ``truncation`` cuts at `max_length`, else at `model_max_length`;
        ``padding="max_length"`` pads to the rung that holds as many tokens. Neither exceeds the largest rung.

        Raises:
            InputTooLongError: A row is longer than the largest rung, and neither the call nor `overflow` allows a cut.
        """
        call = _named(self._plain_class.__call__, args, kwargs)
        return encode(self, call | (call.pop("tokenizer_kwargs", None) or {}))

    def pad(self, *args: Any, **kwargs: Any) -> Any:
        """Returns encoded rows padded to the smallest rung that holds the longest of them.

        Raises:
            InputTooLongError: A row is longer than the largest rung.
        """
        return pad(self, {"padding": True, **_named(self._plain_class.pad, args, kwargs)})

    def feeds(self, items: str | Iterable[Any], **kwargs: Any) -> Iterator[Feed]:
        """Yields feeds for a bare `InferenceSession`, exact in every dimension, in the order of `items`.

        A session cannot merge windows: ``overflow="window"`` does here what ``"error"`` does.

        Args:
            items: A text, or any number of texts or of ``(text, pair)`` tuples; also a generator, read as needed.
            **kwargs: Passed on to the tokenizer.

        Raises:
            InputTooLongError: As when called.
        """
        call = {"padding": True, "return_tensors": "np"} | ({"truncation": False} if self.overflow == "window" else {})
        remaining = iter([items] if isinstance(items, str) else items)
        rows = self.ladder.largest.batch_size or _ROWS_OF_A_FREE_BATCH
        for first in count(step=rows):
            if not (chunk := list(islice(remaining, rows))):
                return
            arrays, sizes = prepare(encode(self, {**call, **kwargs, "text": chunk}, first), self.ladder.largest)
            rung = self.ladder.rungs[self.ladder.choose(len(chunk), sizes)]
            plain = self.for_one_call({})
            yield from fit(arrays, rung, Fill(plain.pad_token_id, plain.pad_token_type_id))

    def plain(self) -> Any:
        """Returns the tokenizer as transformers made it, without the graph's shapes."""
        twin = object.__new__(self._plain_class)
        twin.__dict__.update({name: value for name, value in self.__dict__.items() if name not in _ADDED})
        for name, (told, original) in self._told.items():
            if getattr(self, name) == told:
                setattr(twin, name, original)
        return own_copy(twin)

    def for_one_call(self, call: Mapping[str, Any]) -> Any:
        """Returns a plain tokenizer to make `call` with; see `backends.for_one_call`."""
        return for_one_call(self, call, self._plain_class)

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Saves the tokenizer as transformers made it, so that stock transformers loads it."""
        return self.plain().save_pretrained(*args, **kwargs)

    def train_new_from_iterator(self, *args: Any, **kwargs: Any) -> Any:
        """Returns a plain tokenizer with the same rules and a new vocabulary."""
        return self.plain().train_new_from_iterator(*args, **kwargs)

    def _encode_plus(self, *args: Any, **kwargs: Any) -> Any:
        return self.for_one_call(kwargs)._encode_plus(*args, **kwargs)

    def _batch_encode_plus(self, *args: Any, **kwargs: Any) -> Any:
        return self.for_one_call(kwargs)._batch_encode_plus(*args, **kwargs)

    def _add_tokens(self, *args: Any, **kwargs: Any) -> Any:
        base: Any = super()
        added = base._add_tokens(*args, **kwargs)
        self._backends.clear()
        return added

    def __reduce__(self) -> tuple[Any, ...]:
        return _blank, (self._plain_class,), self.__getstate__()


_ADDED = frozenset({"ladder", "overflow", "exact_length", "_told", "_backends"})


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
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ProcessorError(
            f"A tokenizer of transformers is needed, got {type(tokenizer).__name__}.",
            expected="PreTrainedTokenizerBase",
            given=type(tokenizer).__name__,
        )
    if overflow not in ("error", "truncate", "window"):
        raise ValueError(f"overflow must be 'error', 'truncate' or 'window', got {overflow!r}.")
    plain = tokenizer.plain() if isinstance(tokenizer, FixedShapeTokenizer) else own_copy(tokenizer)
    told = _told_by(ladder, plain)
    fixed: FixedShapeTokenizer = _blank(type(plain))
    fixed.__dict__.update(plain.__dict__, ladder=ladder, overflow=overflow, exact_length=exact_length)
    fixed.__dict__.update(_backends=Backends(), _told={name: (told[name], getattr(plain, name)) for name in told})
    for name, value in told.items():
        setattr(fixed, name, copy.copy(value))
    if not exact_length and plain.special_tokens_map.get("pad_token") is None:
        instead = fixed.for_one_call({}).pad_token
        warnings.warn(f"{type(fixed).__name__} has no pad token; padding with {instead!r}.", stacklevel=3)
    return fixed


def _told_by(ladder: ShapeLadder, plain: Any) -> dict[str, Any]:
    """The attributes in which a tokenizer that knows the graph differs."""
    told = {}
    if limit := ladder.limit(SEQUENCE):
        told["model_max_length"] = min(plain.model_max_length, limit)
    if "input_ids" in (taken := ladder.largest.input_names):
        made = dict.fromkeys([*plain.model_input_names, "attention_mask"])
        told["model_input_names"] = [name for name in made if name in taken]
    return told


def _blank(plain: type) -> Any:
    return object.__new__(_fixed_class(plain))


@functools.cache
def _fixed_class(plain: type) -> type:
    facts: dict[str, Any] = {"__module__": plain.__module__, "__doc__": plain.__doc__, "_plain_class": plain}
    if hasattr(plain, "backend_tokenizer"):
        facts["backend_tokenizer"] = property(_backend_of)
    return type(plain.__name__, (FixedShapeTokenizer, plain), facts)


def _backend_of(tokenizer: Any) -> Any:
    """The Rust tokenizer, which its user may be about to change."""
    tokenizer._backends.clear()
    return tokenizer._tokenizer


@functools.cache
def _argument_names(method: Callable[..., Any]) -> tuple[str, ...]:
    return tuple(inspect.signature(method).parameters)[1:]


def _named(method: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {**dict(zip(_argument_names(method), args, strict=False)), **kwargs}
