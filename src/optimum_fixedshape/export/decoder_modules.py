"""What is traced of a decoder: modules that take a cache as plain tensors, and return what they add to it."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

PAST, PRESENT = "past_key_values", "present"
OWN, CROSS = "decoder", "encoder"
"""The two caches of a decoder that reads an encoder."""

Tensors = tuple[torch.Tensor, ...]


class SlotLayer(DynamicLayer):  # type: ignore[misc]  # mypy sees transformers as Any
    """One layer of a cache that keeps what is new apart from what was there, so that no graph has to slice it off.

    Args:
        keys: ``(batch, heads, slots, features)``, or None for a layer that starts empty.
        values: The same.
    """

    def __init__(self, keys: torch.Tensor | None = None, values: torch.Tensor | None = None) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.is_initialized = keys is not None
        self.new: Tensors = ()

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Tensors:
        """Returns the keys and values of all slots, and of the new tokens behind them."""
        self.new = key_states, value_states
        if self.is_initialized:
            key_states = torch.cat([self.keys, key_states], dim=-2)
            value_states = torch.cat([self.values, value_states], dim=-2)
        self.keys, self.values, self.is_initialized = key_states, value_states, True
        return key_states, value_states


class _NamedInputs(torch.nn.Module):  # type: ignore[misc]
    """A module that takes its tensors by position, as the exporter wants them, and runs with them by name."""

    def __init__(self, model: torch.nn.Module, names: Iterable[str]) -> None:
        super().__init__()
        self.model = model
        self.names = tuple(names)
        self.training = False

    def forward(self, *tensors: torch.Tensor) -> Tensors:
        return self._run(dict(zip(self.names, tensors, strict=True)))

    @abstractmethod
    def _run(self, given: dict[str, torch.Tensor]) -> Tensors:
        """Returns what the model gives for tensors by name."""


class CausalStep(_NamedInputs):
    """New tokens behind the slots of a cache. Returns their logits, and by layer their keys and values."""

    def _run(self, given: dict[str, torch.Tensor]) -> Tensors:
        cache = _taken(given)
        tables = position_tables(self.model)
        with _placed(tables, given.pop("position_ids") if tables else None):
            outputs = self.model(**given, past_key_values=cache, use_cache=True, return_dict=True)
        return outputs.logits, *_added(cache)


class FirstStep(_NamedInputs):
    """The first tokens of a decoder that reads an encoder, where both caches start.

    Returns their logits, and by layer their keys and values and those of the attention to the encoder.
    """

    def _run(self, given: dict[str, torch.Tensor]) -> Tensors:
        own, cross = Cache(layer_class_to_replicate=SlotLayer), Cache(layer_class_to_replicate=SlotLayer)
        logits = _decoded(self.model, given, EncoderDecoderCache(own, cross), given["encoder_hidden_states"])
        return logits, *_added(own, cross)


class FollowingStep(_NamedInputs):
    """New tokens of a decoder that has read the encoder. Returns their logits, and by layer their keys and values.

    Args:
        model: The model.
        names: Names of the tensors, in their order.
        source: Shape of the encoder's output, of which the model asks for no more than that.
    """

    def __init__(self, model: torch.nn.Module, names: Iterable[str], source: tuple[int, int, int]) -> None:
        super().__init__(model, names)
        self.source = source

    def _run(self, given: dict[str, torch.Tensor]) -> Tensors:
        own, cross = _taken(given, OWN), _taken(given, CROSS)
        unread = torch.zeros(self.source, dtype=self.model.dtype, device=self.model.device)
        logits = _decoded(self.model, given, EncoderDecoderCache(own, cross), unread)
        return logits, *_added(own)


def cache_names(prefix: str, layers: int, *parts: str) -> list[str]:
    """Returns the names of a cache's tensors, layer by layer and as optimum has them: ``present.0.decoder.key``, ...

    Args:
        prefix: ``past_key_values`` or ``present``.
        layers: How many layers the cache has.
        *parts: ``decoder``, ``encoder`` or both, of a decoder that reads an encoder.
    """
    stems = [f"{prefix}.{layer}" for layer in range(layers)]
    if parts:
        stems = [f"{stem}.{part}" for stem in stems for part in parts]
    return [f"{stem}.{kind}" for stem in stems for kind in ("key", "value")]


def takes(module: torch.nn.Module, name: str) -> bool:
    """Whether a module's ``forward`` has an argument called `name`."""
    return name in inspect.signature(module.forward).parameters


def position_tables(model: torch.nn.Module) -> list[torch.nn.Module]:
    """Returns the modules of a decoder that look up where tokens stand, and count slots to know it."""
    modules = model.get_decoder().modules()
    return [module for module in modules if type(module).__name__.endswith("PositionalEmbedding")]


def _decoded(
    model: torch.nn.Module, given: dict[str, torch.Tensor], cache: EncoderDecoderCache, encoded: torch.Tensor
) -> torch.Tensor:
    slots, new = cache.get_seq_length(), given["input_ids"].shape[1]
    arguments = {
        "decoder_input_ids": given["input_ids"],
        "decoder_attention_mask": given["decoder_attention_mask"],
        "encoder_outputs": BaseModelOutput(last_hidden_state=encoded),
        "past_key_values": cache,
    }
    if "encoder_attention_mask" in given:
        arguments["attention_mask"] = given["encoder_attention_mask"]
    positions, tables = None, position_tables(model)
    if "position_offset" in given:
        positions = torch.arange(slots, slots + new, device=encoded.device) + given["position_offset"]
        positions = positions * given["decoder_attention_mask"][:, -new:]  # padding may stand beyond the last position
        if not tables:
            arguments["decoder_position_ids"] = positions.clamp(min=0)
    with _placed(tables, positions):
        logits: torch.Tensor = model(**arguments, use_cache=True, return_dict=True).logits
    return logits


@contextmanager
def _placed(tables: Iterable[torch.nn.Module], positions: torch.Tensor | None) -> Iterator[None]:
    """Lets the tables look up `positions`, ``(batch, new)``, whatever the model calls them with."""
    before = {table: vars(table).get("forward") for table in tables}
    try:
        for table in before:
            table.forward = partial(_looked_up, table, positions)
        yield
    finally:
        for table, forward in before.items():
            del table.forward
            if forward is not None:
                table.forward = forward


def _looked_up(table: Any, positions: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
    rows = table.weights if hasattr(table, "weights") else table.weight
    after_padding = any(name.startswith("create_position_ids") for name in dir(table))  # as fairseq had it
    first = table.padding_idx + 1 if after_padding else getattr(table, "offset", 0)
    # Padding may stand before the first row. What stands behind the last one is an error of the caller's.
    return torch.nn.functional.embedding(positions.clamp(min=0) + first, rows)


def _taken(given: dict[str, torch.Tensor], *part: str) -> Cache:
    """The tensors of a cache, taken out of `given`, which has them in the order of its layers."""
    names = [name for name in given if name.startswith(PAST) and all(f".{each}." in name for each in part)]
    tensors = [given.pop(name) for name in names]
    return Cache(layers=[SlotLayer(*pair) for pair in zip(tensors[::2], tensors[1::2], strict=True)])


def _added(*caches: Cache) -> Tensors:
    layers = zip(*(cache.layers for cache in caches), strict=True)
    return tuple(tensor for each in layers for layer in each for tensor in layer.new)
