"""Generative PyTorch models: graphs of every step of a decoder, with a cache of fixed length beside new tokens.

A cache is right-aligned: its tokens lie in the last slots, the slots before them are masked, and new tokens follow. To
the model that is a batch with padding on the left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx
import torch
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput

from .decoder_modules import (
    CROSS,
    OWN,
    PAST,
    PRESENT,
    CausalStep,
    FirstStep,
    FollowingStep,
    cache_names,
    position_tables,
    takes,
)
from .torch_export import export_module, export_rung, tracing

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class CacheSizes:
    """What one layer keeps of one token.

    Attributes:
        heads: How many heads its keys and values have.
        key: Features of a key.
        value: Features of a value.
    """

    heads: int
    key: int
    value: int


@dataclass(frozen=True)
class DecoderSpec:
    """What the graphs of a decoder take besides new tokens, as one run of the model has shown.

    Attributes:
        own: The cache of the attention to the text itself, by layer.
        cross: The cache of the attention to the encoder, by layer; nothing for a model without an encoder.
        has_positions: Whether the model has to be told where tokens stand: by ``position_ids``, or by
            ``position_offset`` if it reads an encoder.
        uses_encoder_mask: Whether it takes ``encoder_attention_mask``.
        encoded_size: Features of the encoder's output, or None for a model without an encoder.
    """

    own: tuple[CacheSizes, ...]
    cross: tuple[CacheSizes, ...] = ()
    has_positions: bool = False
    uses_encoder_mask: bool = False
    encoded_size: int | None = None

    @property
    def is_encoder_decoder(self) -> bool:
        """Whether the decoder reads an encoder."""
        return self.encoded_size is not None


def decoder_spec(model: torch.nn.Module) -> DecoderSpec:
    """Returns what the graphs of a model take. The model runs once, on two tokens.

    Args:
        model: A generative transformers model, with or without an encoder.

    Raises:
        ExportError: The model does not run, or its cache does not consist of keys and values.
    """
    ids = torch.ones((1, 2), dtype=torch.int64, device=model.device)
    with tracing(model, {"input_ids": (1, 2)}):
        if not model.config.is_encoder_decoder:
            cache = model(input_ids=ids, use_cache=True, return_dict=True).past_key_values
            has_positions = bool(position_tables(model)) or takes(model, "position_ids")
            # GPTBigCode of transformers 4 makes both caches, whatever it reads.
            return DecoderSpec(_sizes(getattr(cache, "self_attention_cache", cache)), has_positions=has_positions)
        decoder, size = model.get_decoder(), model.get_encoder().config.hidden_size
        encoded = BaseModelOutput(torch.zeros((1, 2, size), dtype=model.dtype, device=model.device))
        caches = model(decoder_input_ids=ids, encoder_outputs=encoded, use_cache=True, return_dict=True).past_key_values
        return DecoderSpec(
            _sizes(caches.self_attention_cache),
            _sizes(caches.cross_attention_cache),
            has_positions=bool(position_tables(model)) or takes(decoder, "position_ids"),
            uses_encoder_mask=takes(model, "attention_mask") and takes(decoder, "encoder_attention_mask"),
            encoded_size=size,
        )


def export_decoder(model: torch.nn.Module, spec: DecoderSpec, *, batch: int, new: int, past: int) -> onnx.ModelProto:
    """Returns the graph of a model without an encoder: `new` tokens behind a cache of `past` slots.

    Its inputs are ``input_ids``, ``attention_mask`` of slots and new tokens, ``position_ids`` where the model has
    positions, and by layer ``past_key_values.0.key``, ...; its outputs ``logits`` and ``present.0.key``, ... of the new
    tokens alone.

    Args:
        model: The model. It comes back as it was.
        spec: What `decoder_spec` says of it.
        batch: Rows.
        new: New tokens of a row; fewer of them are padded on the right.
        past: Slots of the cache, which is aligned on the right.

    Raises:
        ExportError: PyTorch cannot export the model.
    """
    inputs = {"input_ids": _ones(batch, new), "attention_mask": _ones(batch, past + new)}
    if spec.has_positions:
        inputs["position_ids"] = _ones(batch, new)
    inputs |= _cache(model, spec.own, batch, past)
    outputs = ["logits", *cache_names(PRESENT, len(spec.own))]
    return export_module(CausalStep(model, inputs), _on(model, inputs), outputs, model=model)


def export_encoder(model: torch.nn.Module, *, example: Mapping[str, torch.Tensor]) -> onnx.ModelProto:
    """Returns the graph of a model's encoder; its output is ``last_hidden_state``.

    Args:
        model: The model. It comes back as it was.
        example: Inputs of the encoder, of which only shapes and dtypes matter.

    Raises:
        ExportError: PyTorch cannot export the encoder.
    """
    return export_rung(model.get_encoder(), example, ["last_hidden_state"])


def export_first(model: torch.nn.Module, spec: DecoderSpec, *, batch: int, new: int, source: int) -> onnx.ModelProto:
    """Returns the graph of the first tokens of a decoder that reads an encoder.

    Its inputs are ``input_ids``, ``decoder_attention_mask``, ``position_offset`` where the model has positions: what a
    token's slot, counted from 0, lacks to its position, ``encoder_hidden_states``, and ``encoder_attention_mask`` where
    the model uses it. Its outputs are ``logits``, and by layer ``present.0.decoder.key``, ... of the new tokens and
    ``present.0.encoder.key``, ... of the encoder's positions.

    Args:
        model: The model. It comes back as it was.
        spec: What `decoder_spec` says of it.
        batch: Rows.
        new: New tokens of a row; fewer of them are padded on the right.
        source: Positions of the encoder's output.

    Raises:
        ExportError: PyTorch cannot export the model.
    """
    encoded = torch.zeros((batch, source, spec.encoded_size), dtype=model.dtype)
    inputs = {**_tokens(spec, batch, new, 0), "encoder_hidden_states": encoded, **_mask(spec, batch, source)}
    outputs = ["logits", *cache_names(PRESENT, len(spec.own), OWN, CROSS)]
    return export_module(FirstStep(model, inputs), _on(model, inputs), outputs, model=model)


def export_following(
    model: torch.nn.Module, spec: DecoderSpec, *, batch: int, new: int, past: int, source: int
) -> onnx.ModelProto:
    """Returns the graph of further tokens of a decoder that has read the encoder: it takes both caches.

    Its inputs are ``input_ids``, ``decoder_attention_mask`` of slots and new tokens, ``position_offset`` and
    ``encoder_attention_mask`` as in `export_first`, and by layer ``past_key_values.0.decoder.key``, ... and
    ``past_key_values.0.encoder.key``, ...; its outputs ``logits`` and ``present.0.decoder.key``, ... of the new tokens.

    Args:
        model: The model. It comes back as it was.
        spec: What `decoder_spec` says of it.
        batch: Rows.
        new: New tokens of a row; fewer of them are padded on the right.
        past: Slots of the cache, which is aligned on the right: the first new token's slot is `past`.
        source: Positions of the encoder's output.

    Raises:
        ExportError: PyTorch cannot export the model.
    """
    own, cross = _cache(model, spec.own, batch, past, OWN), _cache(model, spec.cross, batch, source, CROSS)
    names = cache_names(PAST, len(spec.own), OWN, CROSS)
    inputs = {**_tokens(spec, batch, new, past), **_mask(spec, batch, source)}
    inputs |= {name: (own | cross)[name] for name in names}
    outputs = ["logits", *cache_names(PRESENT, len(spec.own), OWN)]
    step = FollowingStep(model, inputs, (batch, source, spec.encoded_size or 0))
    return export_module(step, _on(model, inputs), outputs, model=model)


def _tokens(spec: DecoderSpec, batch: int, new: int, past: int) -> Inputs:
    inputs = {"input_ids": _ones(batch, new), "decoder_attention_mask": _ones(batch, past + new)}
    return inputs | ({"position_offset": _ones(batch, 1)} if spec.has_positions else {})


def _mask(spec: DecoderSpec, batch: int, source: int) -> Inputs:
    return {"encoder_attention_mask": _ones(batch, source)} if spec.uses_encoder_mask else {}


def _ones(*shape: int) -> torch.Tensor:
    return torch.ones(shape, dtype=torch.int64)


def _cache(model: torch.nn.Module, layers: Sequence[CacheSizes], batch: int, slots: int, *part: str) -> Inputs:
    shapes = [(batch, each.heads, slots, size) for each in layers for size in (each.key, each.value)]
    names = cache_names(PAST, len(layers), *part)
    return {name: torch.zeros(shape, dtype=model.dtype) for name, shape in zip(names, shapes, strict=True)}


def _on(model: torch.nn.Module, inputs: Inputs) -> Inputs:
    return {name: tensor.to(model.device) for name, tensor in inputs.items()}


def _sizes(cache: Cache) -> tuple[CacheSizes, ...]:
    return tuple(CacheSizes(layer.keys.shape[1], layer.keys.shape[3], layer.values.shape[3]) for layer in cache.layers)
