"""Rust tokenizers that are never changed while in use.

transformers sets padding and truncation on the one Rust tokenizer at every call, so that two threads that want
different settings meet in ``RuntimeError: Already borrowed``. Here every combination of settings has a Rust tokenizer
of its own. They share the vocabulary, so that one costs microseconds and next to no memory.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from tokenizers import Tokenizer

_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
_MOST = 16


def share(tokenizer: Tokenizer) -> Tokenizer:
    """Returns a tokenizer that shares every part of `tokenizer`, but has its own padding, truncation and added tokens."""
    twin = Tokenizer(tokenizer.model)
    for part in _PARTS:
        if (value := getattr(tokenizer, part)) is not None:
            setattr(twin, part, value)
    added = tokenizer.get_added_tokens_decoder()
    for _, token in sorted(added.items()):
        (twin.add_special_tokens if token.special else twin.add_tokens)([token])
    if twin.get_added_tokens_decoder() == added:
        return twin
    copy = Tokenizer.from_str(tokenizer.to_str())  # ids with gaps cannot be reproduced by adding in order
    copy.no_padding()
    copy.no_truncation()
    return copy


class Backends:
    """The Rust tokenizers of one fixed tokenizer, by their settings; the least used ones are dropped."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: OrderedDict[Hashable, Tokenizer] = OrderedDict()

    def get(self, settings: Hashable, make: Callable[[], Tokenizer]) -> Tokenizer:
        """Returns the tokenizer for `settings`, from `make` if it is not there yet."""
        with self._lock:
            if settings not in self._made:
                self._made[settings] = make()
                if len(self._made) > _MOST:
                    self._made.popitem(last=False)
            self._made.move_to_end(settings)
            return self._made[settings]

    def clear(self) -> None:
        """Forgets them all: the tokenizer that they share parts of has changed."""
        with self._lock:
            self._made.clear()
