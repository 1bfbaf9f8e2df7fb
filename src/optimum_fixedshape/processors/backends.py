"""Rust tokenizers that are never changed while in use.

transformers sets padding and truncation on the one Rust tokenizer at every call, so that two threads that want
different settings meet in ``RuntimeError: Already borrowed``. Here every combination of settings has a Rust tokenizer
of its own. They share the vocabulary, so that one costs microseconds and next to no memory.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any, NamedTuple

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_USED_ONLY_AT_CONSTRUCTION = ("_vocab", "_merges", "_vocab_scores")
_MOST = 16


def share(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a tokenizer that shares every part of `tokenizer`, but has its own settings and added tokens."""
    twin = Tokenizer(tokenizer.model)
    for part in _PARTS:
        if (value := getattr(tokenizer, part)) is not None:
            setattr(twin, part, value)
    twin.add_tokens([token for _, token in sorted(tokenizer.get_added_tokens_decoder().items())])
    twin.encode_special_tokens = tokenizer.encode_special_tokens
    if tokenizer.truncation is not None:
        twin.enable_truncation(**tokenizer.truncation)
    if tokenizer.padding is not None:
        twin.enable_padding(**tokenizer.padding)
    return twin


class Cut(NamedTuple):
    """Where Rust cuts: the most tokens, of which text of a pair, and from which end."""

    most: int
    strategy: str
    direction: str


def rust_alone(tokenizer: Any, cut: Cut | None) -> Tokenizer:
    """Returns a Rust tokenizer that pads nothing, to call directly.

    Args:
        tokenizer: A fixed tokenizer that `is_rust_alone`.
        cut: Where it cuts; None for nowhere.
    """
    rust = tokenizer._tokenizer

    def make() -> Tokenizer:
        twin = share(rust)
        twin.no_padding()
        twin.no_truncation()
        twin.encode_special_tokens = tokenizer.split_special_tokens
        if cut is not None:
            twin.enable_truncation(cut.most, strategy=cut.strategy, direction=cut.direction)
        return twin

    template = rust.post_processor and rust.post_processor.__getstate__()
    backends: Backends = tokenizer._backends
    return backends.get((rust, template, tokenizer.split_special_tokens, cut), make)


def is_rust_alone(plain: type) -> bool:
    """Whether a tokenizer class encodes as Rust's tokenizer does, and does nothing before or after it."""
    homes = {getattr(plain, name, PreTrainedTokenizerBase).__module__ for name in ENCODING} - _CHECKING
    return all(home.startswith("transformers.tokenization_") for home in homes) and not _changes_template(plain)


ENCODING = ("__call__", "_encode_plus", "_batch_encode_plus", "_call_one", "set_truncation_and_padding")


_CHECKING = frozenset(
    f"transformers.models.{name}.tokenization_{name}_fast"
    for name in ("bart", "deberta", "gpt2", "longformer", "roberta")
)
"""Where transformers 4.57 looks at words that are split already, and leaves whole texts to Rust."""


def own_copy(tokenizer: Any) -> Any:
    """Returns a deep copy of a transformers tokenizer; with a Rust backend, all but its vocabulary, which is large."""
    rust = tokenizer.__dict__.get("_tokenizer")
    if not isinstance(rust, Tokenizer):
        return copy.deepcopy(tokenizer)
    twin = share(rust)
    for part in _PARTS:
        with contextlib.suppress(Exception):  # parts written in Python cannot be copied
            setattr(twin, part, copy.deepcopy(getattr(rust, part)))
    shared = [tokenizer.__dict__.get(name) for name in _USED_ONLY_AT_CONSTRUCTION]
    return copy.deepcopy(tokenizer, {id(rust): twin} | {id(value): value for value in shared})


class Backends:
    """The Rust tokenizers of one fixed tokenizer, by their settings; the least used ones are dropped.

    A pickled one comes back empty.

    Attributes:
        alone: Those that are called directly, by the arguments of the call; none once a user holds what they share.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: OrderedDict[Hashable, Tokenizer] = OrderedDict()
        self._is_exposed = False
        self.alone: dict[Hashable, Tokenizer] = {}

    def __reduce__(self) -> tuple[type[Backends], tuple[()]]:
        return Backends, ()

    def get(self, settings: Hashable, make: Callable[[], Tokenizer]) -> Tokenizer:
        """Returns the tokenizer for `settings`, from `make` if it is not there yet."""
        with self._lock:
            if settings not in self._made:
                self._made[settings] = make()
                if len(self._made) > _MOST:
                    self._made.popitem(last=False)
            self._made.move_to_end(settings)
            return self._made[settings]

    def keep(self, call: Hashable, rust: Tokenizer) -> None:
        """Adds to `alone`."""
        with self._lock:
            if not self._is_exposed and len(self.alone) < _MOST:
                self.alone[call] = rust

    def clear(self, *, exposed: bool = False) -> None:
        """Forgets them all: the tokenizer that they share parts of has changed.

        Args:
            exposed: A user holds it now, and may change it at any time.
        """
        with self._lock:
            self._made.clear()
            self.alone.clear()
            self._is_exposed |= exposed


class OneCall:
    """Mixed into the user's tokenizer class: a tokenizer that lives for one call, so that no thread sees another's."""

    _tokenizer: Any
    _backends: Backends
    padding_side: str
    truncation_side: str
    pad_token: str
    pad_token_type_id: int

    def set_truncation_and_padding(self, **settings: Any) -> None:
        """Takes the Rust tokenizer that has these settings."""
        base: Any = super()
        rust = self._tokenizer

        def make() -> Any:
            self._tokenizer = share(rust)
            base.set_truncation_and_padding(**settings)
            return self._tokenizer

        template = rust.post_processor and rust.post_processor.__getstate__()
        attributes = (self.padding_side, self.truncation_side, self.pad_token, self.pad_token_type_id)
        self._tokenizer = self._backends.get((rust, template, *attributes, *settings.items()), make)


def for_one_call(tokenizer: Any, call: Mapping[str, Any], plain: type) -> Any:
    """Returns a plain tokenizer with the state of `tokenizer`, to make one call with and then drop.

    It has a pad token: where the tokenizer has none its end token, else the one with id 0.

    Args:
        tokenizer: A fixed tokenizer.
        call: The arguments of the call.
        plain: The class that the fixed tokenizer was made from.
    """
    twin: Any = object.__new__(_one_call_class(plain))
    twin.__dict__.update(tokenizer.__dict__)
    tokens = tokenizer._special_tokens_map
    if tokens.get("pad_token") is None:
        instead = str(tokens.get("eos_token") or tokenizer.convert_ids_to_tokens(0))
        twin.__dict__["_special_tokens_map"] = {**tokens, "pad_token": instead}
    rust = tokenizer.__dict__.get("_tokenizer")
    if isinstance(rust, Tokenizer):
        splits = call.get("split_special_tokens", tokenizer.split_special_tokens) != rust.encode_special_tokens
        if splits or _changes_template(plain):
            twin.__dict__.update(_tokenizer=share(rust), _backends=Backends())
    return twin


@functools.cache
def _one_call_class(plain: type) -> type:
    return type(plain.__name__, (OneCall, plain), {"__module__": plain.__module__})


def _changes_template(plain: type) -> bool:
    """Whether calls change the Rust tokenizer beyond its settings: some classes set languages in every call."""
    name = "_switch_to_input_mode"
    return getattr(plain, name, None) is not getattr(PreTrainedTokenizerBase, name, None)
