"""Tokenizers that know the graph: the user's own class, with what comes back in the graph's shape and dtype."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase
from transformers.tokenization_utils_base import LARGE_INTEGER

from optimum_fixedshape.contract import BATCH, SEQUENCE
from optimum_fixedshape.errors import warn
from optimum_fixedshape.fitting import Feed, Fill
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.tasks import Overflow

from .backends import ENCODING, Backends, Cut, for_one_call, is_rust_alone, own_copy, rust_alone
from .encoding import encode, pad
from .fixed import FixedShapeProcessor, check_kind, check_overflow, feeds_of, fix, named_arguments


class FixedShapeTokenizer(FixedShapeProcessor):
    """Mixed into the user's tokenizer class by `fix_tokenizer`; adds the graph's shapes to it.

    Calling it pads to the smallest rung that holds the longest row, where transformers would not pad at all; an
    explicit ``padding=False`` is obeyed. All else is the tokenizer's own: `encode`, `decode`, `tokenize`, ...

    Attributes:
        ladder: The graph's contracts.
        overflow: What happens to a row longer than the largest rung where the call itself does not say ``truncation``.
        exact_length: Never pad by default: rows come back as long as they are, and the model fits them. Pipelines
            use this. With ``overflow="window"`` too long rows come back whole, with their ``special_tokens_mask``.
    """

    overflow: Overflow
    exact_length: bool
    _backends: Backends
    _added = FixedShapeProcessor._added | {"overflow", "exact_length", "_backends"}

    is_fast: bool
    model_max_length: int
    num_special_tokens_to_add: Callable[..., int]
    truncation_side: str

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
        call = named_arguments(self._plain_class.__call__, args, kwargs)
        return encode(self, call | (call.pop("tokenizer_kwargs", None) or {}))

    def pad(self, *args: Any, **kwargs: Any) -> Any:
        """Returns encoded rows padded to the smallest rung that holds the longest of them.

        Raises:
            InputTooLongError: A row is longer than the largest rung.
        """
        return pad(self, {"padding": True, **named_arguments(self._plain_class.pad, args, kwargs)})

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

        def make(chunk: list[Any], first: int) -> Any:
            return encode(self, {**call, **kwargs, "text": chunk}, first)

        def fill() -> Fill:
            plain = self.for_one_call({})
            return Fill(plain.pad_token_id, plain.pad_token_type_id)

        yield from feeds_of([items] if isinstance(items, str) else items, make, self.ladder, BATCH, fill)

    @staticmethod
    def facts_of(plain: type) -> dict[str, Any]:
        """The Rust tokenizer of a class that has one is read through a property."""
        return {"backend_tokenizer": property(_backend_of)} if hasattr(plain, "backend_tokenizer") else {}

    def _own_copy(self, plain: Any) -> Any:
        return own_copy(plain)

    def for_one_call(self, call: Mapping[str, Any]) -> Any:
        """Returns a plain tokenizer to make `call` with; see `backends.for_one_call`."""
        return for_one_call(self, call, self._plain_class)

    @property
    def is_rust_alone(self) -> bool:
        """Whether encoding is all Rust's, so that `rust` gives what a call does."""
        is_patched = any(name in self.__dict__ for name in ENCODING)
        has_rust = isinstance(self.__dict__.get("_tokenizer"), Tokenizer)
        return has_rust and not is_patched and is_rust_alone(self._plain_class)

    def rust(self, truncation: bool | str | None = None, max_length: int | None = None) -> Tokenizer:
        """Returns the Rust tokenizer that encodes as a call with these arguments, without padding.

        Args:
            truncation: As in a call; None does what `overflow` says.
            max_length: As in a call that states a truncation.
        """
        call = (truncation, max_length)
        if (known := self._backends.alone.get(call)) is None:
            known = rust_alone(self, self._cut(truncation, max_length))
            self._backends.keep(call, known)
        return known

    def _cut(self, truncation: bool | str | None, max_length: int | None) -> Cut | None:
        limit = self.limit
        if truncation is None:
            truncation = limit is not None and self.overflow == "truncate"
        most = self.model_max_length if max_length is None else max_length
        most = most if limit is None else min(most, limit)
        if not truncation or truncation == "do_not_truncate" or most > LARGE_INTEGER:
            return None
        return Cut(most, "longest_first" if truncation is True else truncation, self.truncation_side)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        self._backends.clear()

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
    check_kind(tokenizer, PreTrainedTokenizerBase, "A tokenizer")
    check_overflow(overflow)
    plain = tokenizer.plain() if isinstance(tokenizer, FixedShapeTokenizer) else own_copy(tokenizer)
    facts = {"overflow": overflow, "exact_length": exact_length, "_backends": Backends()}
    fixed: FixedShapeTokenizer = fix(FixedShapeTokenizer, plain, ladder, _told_by(ladder, plain), **facts)
    if not exact_length and plain.special_tokens_map.get("pad_token") is None:
        instead = fixed.for_one_call({}).pad_token
        warn(f"{type(fixed).__name__} has no pad token; padding with {instead!r}.")
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


def _backend_of(tokenizer: Any) -> Any:
    """The Rust tokenizer, which its user may be about to change."""
    tokenizer._backends.clear(exposed=True)
    return tokenizer._tokenizer
