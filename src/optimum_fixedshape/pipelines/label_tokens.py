"""The tokens of labels: the same for image after image, so that they are made once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

_MOST_SETS = 16
_FACTS = (
    *("padding_side", "truncation_side", "model_max_length", "model_input_names", "pad_token"),
    *("exact_length", "overflow"),
)
"""What of a tokenizer may change between two calls, and with it what it makes of the same texts."""


def tokenize_labels(tokenizer: Any, texts: list[str], **params: Any) -> Any:
    """Returns what a tokenizer makes of texts: where it was asked the same lately, what it returned then.

    Args:
        tokenizer: The tokenizer.
        texts: The labels, in the words of the template.
        **params: Of the tokenizer's call.
    """
    facts = (repr([getattr(tokenizer, name, None) for name in _FACTS]), len(tokenizer), repr(sorted(params.items())))
    key = (tuple(texts), facts)
    with _lock:
        sets = _known.setdefault(tokenizer, OrderedDict())
        if key in sets:
            sets.move_to_end(key)
            return sets[key]
    made = tokenizer(texts, **params)
    with _lock:
        sets[key] = made
        while len(sets) > _MOST_SETS:
            sets.popitem(last=False)
    return made


_known: WeakKeyDictionary[Any, OrderedDict[Any, Any]] = WeakKeyDictionary()
_lock = threading.Lock()
