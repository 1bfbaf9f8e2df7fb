"""Which inputs and outputs of a decoder are its cache: told by their names, paired by layer and part."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import InvalidModelError

if TYPE_CHECKING:
    from .contract import ShapeContract, TensorSpec

ENCODER, FIRST, FOLLOWING, MERGED = "encoder", "first", "following", "merged"
"""The graphs of a model that writes: `MERGED` is a decoder that is `FIRST` and `FOLLOWING` in one."""

_CACHES = frozenset({"past", "present", "cache", "kv"})
_KEYS, _VALUES = frozenset({"key", "keys", "k"}), frozenset({"value", "values", "v"})
_CROSS = frozenset({"encoder", "cross"})


@dataclass(frozen=True, order=True)
class Place:
    """Where a tensor belongs in a cache.

    Attributes:
        is_cross: Whether it is of the attention to the encoder.
        layer: The layer, counted from 0.
        is_value: Whether it holds values; else keys.
    """

    is_cross: bool
    layer: int
    is_value: bool


@dataclass(frozen=True)
class CacheTensor:
    """One tensor of a cache, as a graph names it.

    Attributes:
        place: Where it belongs.
        past: The input that takes it, or None in a graph that starts a cache.
        present: The output that gives it, or None in a graph that only reads it.
    """

    place: Place
    past: str | None
    present: str | None


def place_of(name: str) -> Place | None:
    """Returns where an input or output belongs in a cache, by its name; None for one that is no cache.

    Understood are names such as ``past_key_values.0.key``, ``present.0.decoder.value``, ``past_key_0``,
    ``past_0_value``, ``k_cache_3`` and ``present_key_values.1.encoder.key``.
    """
    words = re.findall(r"[a-z]+|\d+", name.lower().replace("key_values", ""))
    numbers = [int(word) for word in words if word.isdigit()]
    is_key, is_value = not _KEYS.isdisjoint(words), not _VALUES.isdisjoint(words)
    if len(numbers) != 1 or is_key == is_value or _CACHES.isdisjoint(words):
        return None
    return Place(not _CROSS.isdisjoint(words), numbers[0], is_value)


def kind_of(contract: ShapeContract) -> str:
    """Returns which part of a model a graph is, by what it takes and gives."""
    if "use_cache_branch" in contract.input_names:
        return MERGED
    if "logits" not in contract.output_names:
        return ENCODER
    return FOLLOWING if any(tensor.past for tensor in contract.cache) else FIRST


def cache_of(contract: ShapeContract) -> tuple[CacheTensor, ...]:
    """Returns the tensors of a graph's cache, in the order of layers; nothing for a graph without one.

    Raises:
        InvalidModelError: A cache goes in and does not come out, or two tensors belong in one place.
    """
    pasts, presents = _places(contract.inputs, contract), _places(contract.outputs, contract)
    if lost := [name for place, name in pasts.items() if place not in presents and not place.is_cross]:
        raise InvalidModelError(
            f"{contract.path or 'The graph'} takes the cache {', '.join(lost)} and gives none back. Its outputs are: "
            f"{', '.join(contract.output_names)}.",
            path=str(contract.path) if contract.path else None,
        )
    return tuple(CacheTensor(place, pasts.get(place), presents.get(place)) for place in sorted({*pasts, *presents}))


def _places(specs: Iterable[TensorSpec], contract: ShapeContract) -> dict[Place, str]:
    found: dict[Place, str] = {}
    for spec in specs:
        if (place := place_of(spec.name)) is None:
            continue
        if place in found:
            raise InvalidModelError(
                f"{contract.path or 'The graph'} names two tensors for one place of its cache: {found[place]} and "
                f"{spec.name}.",
                path=str(contract.path) if contract.path else None,
            )
        found[place] = spec.name
    return found
