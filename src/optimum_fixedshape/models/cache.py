"""transformers' caches, whose layers keep their tokens where a graph of fixed shape wants them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, DynamicLayer

from optimum_fixedshape.caches import Place
from optimum_fixedshape.fitting import Array


class FixedShapeLayer(DynamicLayer):  # type: ignore[misc]
    """One layer of a cache: to all of transformers the tokens and nothing else, to a graph the tokens in their slots.

    `keys` and `values` are views ``(rows, heads, tokens, features)`` of longer arrays, which the step after next
    overwrites: copy the cache (`copy.deepcopy`) to go on from it twice.

    Args:
        from_start: Whether the tokens lie in the first slots; else in the last.
    """

    def __init__(self, *, from_start: bool = False) -> None:
        super().__init__()
        self._from_start = from_start
        self._rooms: dict[str, list[Array]] = {"keys": [], "values": []}

    def __deepcopy__(self, memo: Any) -> FixedShapeLayer:
        twin = type(self)(from_start=self._from_start)
        if self.get_seq_length():
            twin.append(self.keys.clone(), self.values.clone())
        return twin

    def padded(self, name: str, slots: int) -> Array:
        """Returns ``keys`` or ``values`` with so many slots; what stands in those of no token is finite, no more."""
        tokens: Array = getattr(self, name).numpy()
        rooms = self._rooms[name]
        if not (rooms and rooms[0].shape[2] == slots and _is_same(self._seen(rooms[0], tokens.shape[2]), tokens)):
            rows, heads, length, features = tokens.shape
            self._rooms[name] = rooms = [np.zeros((rows, heads, slots, features), tokens.dtype)]
            self._show(name, rooms[0], length, tokens)
        return rooms[0]

    def append(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Puts keys and values of new tokens behind those that are there."""
        if not self.get_seq_length():
            self.dtype, self.device, self.is_initialized = keys.dtype, keys.device, True
            self.keys, self.values = keys, values
            return
        for name, new in (("keys", keys), ("values", values)):
            self._append(name, new.numpy())

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        """Puts keys and values of new tokens behind those that are there, and returns all."""
        self.append(key_states, value_states)
        return self.keys, self.values

    def keep_last(self, tokens: int) -> None:
        """Forgets all tokens but the last ones."""
        if (first := self.get_seq_length() - max(tokens, 0)) > 0:
            self.keys, self.values = self.keys[:, :, first:], self.values[:, :, first:]

    def _append(self, name: str, new: Array) -> None:
        tokens: Array = getattr(self, name).numpy()
        length = tokens.shape[2] + new.shape[2]
        rooms = self._rooms[name]
        if not rooms or self._from_start or length > rooms[0].shape[2]:
            setattr(self, name, torch.from_numpy(np.concatenate([tokens, new], axis=2)))
            return
        # Tokens move towards the start by as many slots as come; in place, NumPy would copy them twice.
        spare = rooms[1] if len(rooms) > 1 else np.zeros_like(rooms[0])
        self._rooms[name] = [spare, rooms[0]]
        self._show(name, spare, length, tokens, new)

    def _show(self, name: str, room: Array, length: int, *parts: Array) -> None:
        seen = self._seen(room, length)
        start = 0
        for part in parts:
            seen[:, :, start : start + part.shape[2]] = part
            start += part.shape[2]
        setattr(self, name, torch.from_numpy(seen))

    def _seen(self, room: Array, length: int) -> Array:
        return room[:, :, :length] if self._from_start else room[:, :, room.shape[2] - length :]


class CacheMemory:
    """A transformers cache as a decoder's memory. Layers that are not ours become ours, with the tokens they hold.

    Args:
        own: The cache of the attention to the text itself.
        cross: The cache of the attention to the encoder, or None.

    Raises:
        ValueError: The cache has a fixed length of its own.
    """

    def __init__(self, own: Cache, cross: Cache | None = None) -> None:
        self._own, self._cross = own, cross
        for cache in (own, cross):
            if cache is not None:
                _adopt(cache, from_start=cache is cross)

    @property
    def length(self) -> int:
        """How many tokens it holds."""
        return int(self._own.get_seq_length()) if self._own.layers else 0

    def padded(self, place: Place, slots: int) -> Array:
        """Returns keys or values with so many slots; see `decoding.Memory`."""
        return self._layer(place).padded("values" if place.is_value else "keys", slots)

    def add(self, new: Mapping[Place, Array]) -> None:
        """Puts keys and values behind those that are there; those of the encoder come once."""
        for place, keys, values in _pairs(new):
            layer = self._layer(place)
            if not (place.is_cross and layer.get_seq_length()):
                layer.append(torch.from_numpy(keys), torch.from_numpy(values))

    def keep_last(self, tokens: int) -> None:
        """Forgets all tokens but the last ones."""
        for layer in self._own.layers:
            layer.keep_last(tokens)

    def _layer(self, place: Place) -> FixedShapeLayer:
        cache = self._cross if place.is_cross and self._cross is not None else self._own
        layers: list[FixedShapeLayer] = cache.layers
        while len(layers) <= place.layer:
            layers.append(FixedShapeLayer(from_start=place.is_cross))
        return layers[place.layer]


def _adopt(cache: Cache, *, from_start: bool) -> None:
    if getattr(cache, "is_compileable", False):
        raise ValueError(
            f"{type(cache).__name__} has a fixed length of its own, and so has the graph. Leave past_key_values= and "
            "cache_implementation= out, or pass a DynamicCache."
        )
    for index, layer in enumerate(cache.layers):
        if not isinstance(layer, FixedShapeLayer):
            cache.layers[index] = ours = FixedShapeLayer(from_start=from_start)
            if layer.get_seq_length():
                ours.append(layer.keys.cpu(), layer.values.cpu())


def _pairs(new: Mapping[Place, Array]) -> Iterator[tuple[Place, Array, Array]]:
    for place, keys in new.items():
        if not place.is_value:
            yield place, keys, new[Place(place.is_cross, place.layer, True)]


def _is_same(one: Array, other: Array) -> bool:
    """Whether two arrays are the same memory, seen in the same way."""
    return one.__array_interface__ == other.__array_interface__
