"""What each axis of a graph stands for: one table of standard names, then rank and type, then shared symbols and sizes.

The names are those of transformers' model inputs and outputs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .contract import BATCH, SEQUENCE, Axis, ShapeContract, TensorSpec
from .errors import ShapeMismatchError

Roles = tuple[str | None, ...]

_ROW = (BATCH, SEQUENCE)
_CHOICES = (BATCH, "num_choices", SEQUENCE)

INPUT_ROLES: Mapping[str, tuple[Roles, ...]] = {
    "input_ids": (_ROW, _CHOICES),
    "attention_mask": (_ROW, _CHOICES),
    "token_type_ids": (_ROW, _CHOICES),
    "position_ids": (_ROW, _CHOICES),
    "special_tokens_mask": (_ROW, _CHOICES),
    "inputs_embeds": ((BATCH, SEQUENCE, None),),
    "bbox": ((BATCH, SEQUENCE, None),),
    "pixel_values": ((BATCH, "num_channels", "height", "width"),),
    "pixel_mask": ((BATCH, "height", "width"),),
    "input_values": ((BATCH, "audio_sequence_length"),),
    "input_features": ((BATCH, "feature_size", "nb_max_frames"),),
}
"""Standard inputs: the roles of their axes, one row for each rank they come in."""

OUTPUT_ROLES: Mapping[str, tuple[Roles, ...]] = {
    "last_hidden_state": ((BATCH, SEQUENCE, None),),
    "token_embeddings": ((BATCH, SEQUENCE, None),),
    "hidden_states": ((BATCH, SEQUENCE, None),),
    "attentions": ((BATCH, None, SEQUENCE, SEQUENCE),),
    "logits": ((BATCH, "num_choices"), (BATCH, SEQUENCE, None)),
    "start_logits": (_ROW,),
    "end_logits": (_ROW,),
    "pooler_output": ((BATCH, None),),
    "sentence_embedding": ((BATCH, None),),
}
"""Standard outputs, likewise. ``hidden_states.3`` stands under ``hidden_states``."""

_GUESSES: tuple[tuple[int, str, Roles], ...] = (
    (2, "int", _ROW),
    (3, "int", _CHOICES),
    (4, "float", (BATCH, "num_channels", "height", "width")),
    (4, "uint8", (BATCH, "num_channels", "height", "width")),
)
"""Inputs with names of their own: rank and the start of the dtype, and the roles that fit them."""


def with_input_roles(specs: Iterable[TensorSpec], overrides: Mapping[str, Sequence[str | None]]) -> list[TensorSpec]:
    """Returns the inputs with a role and its evidence on each axis that could be told."""
    return [_with_roles(spec, *_input_roles(spec, overrides)) for spec in specs]


def with_output_roles(
    specs: Iterable[TensorSpec], inputs: Sequence[TensorSpec], overrides: Mapping[str, Sequence[str | None]]
) -> list[TensorSpec]:
    """Returns the outputs with a role on each axis that follows an axis of `inputs`.

    A role is only given where the sizes agree: an output axis of another size than the input's does not follow it.
    """
    symbols: dict[str, str] = {}
    sizes: dict[str, int | None] = {}
    for axis in (axis for spec in inputs for axis in spec.axes or () if axis.role):
        sizes.setdefault(axis.role or "", axis.size)
        if axis.symbol and axis.role:
            symbols.setdefault(axis.symbol, axis.role)
    return [_output(spec, symbols, sizes, overrides) for spec in specs]


def with_shown_outputs(contract: ShapeContract, feed: Mapping[str, Any], outputs: Sequence[Any]) -> ShapeContract:
    """Returns `contract` with a role on each output axis that only a run could tell.

    These are the axes of which the graph states neither a size nor a symbol that it shares with an input.

    Args:
        contract: The graph that ran.
        feed: The arrays that it ran on.
        outputs: What came out, in the graph's order.
    """
    if all(spec.axes is not None and not any(map(_is_open, spec.axes)) for spec in contract.outputs):
        return contract
    inputs = [_shown(spec, feed[spec.name]) for spec in contract.inputs]
    shown = with_output_roles(map(_shown, contract.outputs, outputs), inputs, {})
    return replace(contract, outputs=tuple(map(_told, contract.outputs, shown)))


def _is_open(axis: Axis) -> bool:
    return axis.size is None and axis.role is None


def _shown(spec: TensorSpec, array: Any) -> TensorSpec:
    shape = getattr(array, "shape", None)
    if shape is None:  # a sequence or a map
        return spec
    roles = spec.roles() or (None,) * len(shape)
    return replace(spec, axes=tuple(Axis(size, role=role) for size, role in zip(shape, roles, strict=True)))


def _told(stated: TensorSpec, shown: TensorSpec) -> TensorSpec:
    if stated.axes is None or shown.axes is None:
        return shown
    axes = zip(stated.axes, shown.axes, strict=True)
    return replace(stated, axes=tuple(new if _is_open(old) else old for old, new in axes))


def _with_roles(spec: TensorSpec, roles: Sequence[str | None], evidence: str) -> TensorSpec:
    if spec.axes is None:
        return spec
    axes = tuple(
        replace(axis, role=role, evidence=evidence) if role else axis
        for axis, role in zip(spec.axes, roles, strict=True)
    )
    return replace(spec, axes=axes)


def _of_rank(rows: Iterable[Roles], rank: int) -> Roles | None:
    return next((row for row in rows if len(row) == rank), None)


def _checked_override(spec: TensorSpec, roles: Sequence[str | None]) -> Roles:
    if spec.axes is not None and len(roles) != len(spec.axes):
        raise ShapeMismatchError(f"roles={{{spec.name!r}: ...}} names {len(roles)} axes, but the graph has {spec}.")
    return tuple(roles)


def _input_roles(spec: TensorSpec, overrides: Mapping[str, Sequence[str | None]]) -> tuple[Roles, str]:
    rank = len(spec.axes or ())
    if spec.name in overrides:
        return _checked_override(spec, overrides[spec.name]), "set by the caller"
    if row := _of_rank(INPUT_ROLES.get(spec.name, ()), rank):
        return row, "standard name"
    for guessed_rank, dtype, row in _GUESSES:
        if rank == guessed_rank and spec.dtype.startswith(dtype):
            return row, f"guessed from rank {rank} and {spec.dtype}"
    return (None,) * rank, ""


def _output(
    spec: TensorSpec,
    symbols: Mapping[str, str],
    sizes: Mapping[str, int | None],
    overrides: Mapping[str, Sequence[str | None]],
) -> TensorSpec:
    if spec.axes is None:
        return spec
    if spec.name in overrides:
        return _with_roles(spec, _checked_override(spec, overrides[spec.name]), "set by the caller")
    rank = len(spec.axes)
    row, evidence = _of_rank(OUTPUT_ROLES.get(re.sub(r"\.\d+$", "", spec.name), ()), rank), "standard name"
    if row is None:
        guess = (BATCH, SEQUENCE, *[None] * (rank - 2)) if rank > 2 else (BATCH, None)[:rank]
        row, evidence = guess, "same size as the input's"

    def follow(axis: Axis, role: str | None) -> Axis:
        if axis.symbol and axis.symbol in symbols:
            return replace(axis, role=symbols[axis.symbol], evidence=f"shares the symbol {axis.symbol!r} with an input")
        # A symbol that no input shares is a size of its own, unless the output's name says what it is.
        free = axis.size is None and evidence == "standard name"
        if role and role in sizes and (free or (axis.symbol is None and axis.size == sizes[role])):
            return replace(axis, role=role, evidence=evidence)
        return axis

    return replace(spec, axes=tuple(map(follow, spec.axes, row)))
