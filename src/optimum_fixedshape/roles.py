"""What each axis of a graph stands for: one table of standard names, then rank and type, then shared symbols and sizes.

The names are those of transformers' model inputs and outputs.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from .caches import place_of
from .contract import (
    BATCH,
    BATCHES,
    IMAGES,
    PAST,
    SAMPLES,
    SEQUENCE,
    SOUNDS,
    SOURCE,
    TEXTS,
    TOTAL,
    Axis,
    ShapeContract,
    Steps,
    TensorSpec,
    size_after,
)
from .errors import ShapeMismatchError

Roles = tuple[str | None, ...]

CHOICES = "num_choices"
CHANNELS, HEIGHT, WIDTH, FRAMES = "num_channels", "height", "width", "num_frames"
MEL, MEL_FRAMES, PATCHES = "feature_size", "nb_max_frames", "num_patches"
BOXES = "box_coordinates"
_CHANNELS = (1, 3, 4)
_TOKENS = ("input_ids", "inputs_embeds")

_ROW = (BATCH, SEQUENCE)
_ROW_OF_CHOICES = (BATCH, CHOICES, SEQUENCE)
_IMAGE = (BATCH, CHANNELS, HEIGHT, WIDTH)
_CLIP = (BATCH, FRAMES, CHANNELS, HEIGHT, WIDTH)
_SOUND = (BATCH, SAMPLES)
_SPECTROGRAM = (BATCH, MEL, MEL_FRAMES)
_PIXELS = (_IMAGE, _CLIP, (BATCH, PATCHES, None))

INPUT_ROLES: Mapping[str, tuple[Roles, ...]] = {
    "input_ids": (_ROW, _ROW_OF_CHOICES),
    "attention_mask": (_ROW, _ROW_OF_CHOICES),
    "token_type_ids": (_ROW, _ROW_OF_CHOICES),
    "position_ids": (_ROW, _ROW_OF_CHOICES),
    "special_tokens_mask": (_ROW, _ROW_OF_CHOICES),
    "inputs_embeds": ((BATCH, SEQUENCE, None),),
    "bbox": ((BATCH, SEQUENCE, BOXES),),
    "pixel_values": _PIXELS,
    "pixel_values_videos": _PIXELS,
    "pixel_mask": ((BATCH, HEIGHT, WIDTH),),
    "pixel_attention_mask": ((BATCH, PATCHES),),
    "spatial_shapes": ((BATCH, None),),
    "flattened_patches": ((BATCH, PATCHES, None),),
    "input_values": (_SOUND, (BATCH, MEL_FRAMES, MEL)),
    "input_features": (_SPECTROGRAM, (BATCH, None, MEL_FRAMES, MEL)),
    "is_longer": ((BATCH,), (BATCH, None)),
    "decoder_input_ids": (_ROW,),
    "decoder_attention_mask": (_ROW,),
    "position_offset": ((BATCH, None),),
    "encoder_hidden_states": ((BATCH, SOURCE, None),),
    "encoder_attention_mask": ((BATCH, SOURCE),),
}
"""Standard inputs: the roles of their axes, one row for each rank they come in."""

_TOWERS: Mapping[str, str] = {
    **dict.fromkeys((SEQUENCE,), TEXTS),
    **dict.fromkeys((HEIGHT, PATCHES), IMAGES),
    **dict.fromkeys((SAMPLES, MEL_FRAMES), SOUNDS),
}
"""What the rows of an input are called in a model with two towers, by another role of the input."""

OUTPUT_ROLES: Mapping[str, tuple[Roles, ...]] = {
    "last_hidden_state": ((BATCH, SEQUENCE, None),),
    "token_embeddings": ((BATCH, SEQUENCE, None),),
    "hidden_states": ((BATCH, SEQUENCE, None),),
    "attentions": ((BATCH, None, SEQUENCE, SEQUENCE),),
    "logits": ((BATCH, CHOICES), (BATCH, SEQUENCE, None)),
    "start_logits": (_ROW,),
    "end_logits": (_ROW,),
    "pooler_output": ((BATCH, None),),
    "sentence_embedding": ((BATCH, None),),
    "logits_per_image": ((IMAGES, TEXTS),),
    "logits_per_text": ((TEXTS, IMAGES), (TEXTS, SOUNDS)),
    "logits_per_audio": ((SOUNDS, TEXTS),),
    "image_embeds": ((IMAGES, None),),
    "text_embeds": ((TEXTS, None),),
    "audio_embeds": ((SOUNDS, None),),
}
"""Standard outputs, likewise; the first row of which the inputs have all counts of rows.

``hidden_states.3`` stands under ``hidden_states``.
"""

MASKS = ("attention_mask", "decoder_attention_mask")
"""The masks of a decoder's own tokens."""
_FEWEST_SAMPLES = 400
_GUESSES: tuple[tuple[int, tuple[str, ...], Roles], ...] = (
    (2, ("int",), _ROW),
    (3, ("int",), _ROW_OF_CHOICES),
    (2, ("float",), _SOUND),
    (3, ("float",), _SPECTROGRAM),
    (4, ("float", "uint8"), _IMAGE),
    (5, ("float", "uint8"), _CLIP),
)
"""Inputs with names of their own: rank and the start of the dtype, and the roles that fit them."""


def with_roles(contract: ShapeContract, overrides: Mapping[str, Sequence[str | None]]) -> ShapeContract:
    """Returns `contract` with a role and its evidence on each axis that could be told.

    An output axis only has the role of an input axis of the same size.

    Args:
        contract: The graph's inputs and outputs as it states them.
        overrides: The roles that the caller knows, by name of an input or output. Where names are mapped, either will
            do: a key is the name in use, else the graph's own.

    Raises:
        ShapeMismatchError: `overrides` names more or fewer axes than the graph has.
    """
    in_use = {*contract.input_names, *contract.output_names}
    overrides = {name if name in in_use else contract.names.get(name, name): roles for name, roles in overrides.items()}
    inputs = _with_input_roles(contract, overrides)
    return replace(
        contract, inputs=tuple(inputs), outputs=tuple(_with_output_roles(contract.outputs, inputs, overrides))
    )


def with_names(
    contract: ShapeContract, names: Mapping[str, str], overrides: Mapping[str, Sequence[str | None]]
) -> ShapeContract:
    """Returns `contract` with its inputs and outputs under other names, and the roles that these tell.

    Args:
        contract: A graph, with roles or without.
        names: The graph's name to the standard one; see `ShapeContract.renamed`.
        overrides: As in `with_roles`.

    Raises:
        ShapeMismatchError: As in `ShapeContract.renamed` and `with_roles`.
    """

    def plain(spec: TensorSpec) -> TensorSpec:
        return replace(spec, axes=spec.axes and tuple(Axis(axis.size, axis.symbol) for axis in spec.axes))

    bare = replace(contract, inputs=tuple(map(plain, contract.inputs)), outputs=tuple(map(plain, contract.outputs)))
    return with_roles(bare.renamed(names), overrides)


def tower_of(roles: Iterable[str | None]) -> str:
    """Returns what the rows of an input with these roles are called in a model with two towers."""
    return next((_TOWERS[role] for role in roles if role and role in _TOWERS), BATCH)


def with_frames(contract: ShapeContract, steps: Steps) -> ShapeContract:
    """Returns `contract` with roles on the output axes that hold a waveform's frames.

    Args:
        contract: A graph that takes waveforms; others come back as they are.
        steps: The convolutions that make frames of samples.
    """
    samples = contract.sizes.get(SAMPLES)
    if SAMPLES not in contract.sizes or not steps:
        return contract
    frames = None if samples is None else size_after(samples, steps)

    def follow(axis: Axis, role: str | None) -> Axis:
        if role != SEQUENCE or axis.role or axis.size != frames:
            return axis
        return replace(axis, role=SAMPLES, evidence="frames of the waveform", steps=steps)

    def told(spec: TensorSpec) -> TensorSpec:
        row, _ = _output_row(spec, contract.sizes)
        return replace(spec, axes=spec.axes and tuple(map(follow, spec.axes, row)))

    return replace(contract, outputs=tuple(map(told, contract.outputs)))


def with_shown_outputs(contract: ShapeContract, feed: Mapping[str, Any], outputs: Sequence[Any]) -> ShapeContract:
    """Returns `contract` with a role on each output axis that only a run could tell.

    These are the axes of which the graph states neither a size nor a symbol that it shares with an input.

    Args:
        contract: The graph that ran.
        feed: The arrays that it ran on, under the graph's own names.
        outputs: What came out, in the graph's order.
    """
    if all(spec.axes is not None and not any(map(_is_open, spec.axes)) for spec in contract.outputs):
        return contract
    inputs = [_shown(spec, feed[spec.session_name]) for spec in contract.inputs]
    shown = _with_output_roles(map(_shown, contract.outputs, outputs), inputs, {})
    return replace(contract, outputs=tuple(map(_told, contract.outputs, shown)))


def _with_input_roles(contract: ShapeContract, overrides: Mapping[str, Sequence[str | None]]) -> list[TensorSpec]:
    inputs = [_with_roles(spec, *_input_roles(spec, overrides)) for spec in contract.inputs]
    other: dict[str, dict[str, str]] = {}
    if (sound := _sound_of(inputs)) and not any(spec.name in _TOKENS for spec in inputs):
        other["attention_mask"] = {SEQUENCE: sound}
    if any(PAST in spec.roles() for spec in inputs):
        other |= {name: {SEQUENCE: TOTAL} for name in MASKS}
    if any(name.startswith("logits_per_") for name in contract.output_names):
        for spec in inputs:
            other[spec.name] = {BATCH: tower_of(spec.roles())}
    return [spec if spec.name in overrides else _renamed(spec, other.get(spec.name, {})) for spec in inputs]


def _with_output_roles(
    specs: Iterable[TensorSpec], inputs: Sequence[TensorSpec], overrides: Mapping[str, Sequence[str | None]]
) -> list[TensorSpec]:
    symbols: dict[str, str] = {}
    sizes: dict[str, int | None] = {}
    for axis in (axis for spec in inputs for axis in spec.axes or () if axis.role):
        sizes.setdefault(axis.role or "", axis.size)
        if axis.symbol and axis.role:
            symbols.setdefault(axis.symbol, axis.role)
    return [_output(spec, symbols, sizes, overrides) for spec in specs]


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


def _renamed(spec: TensorSpec, names: Mapping[str, str]) -> TensorSpec:
    return replace(spec, axes=spec.axes and tuple(replace(a, role=names.get(a.role or "", a.role)) for a in spec.axes))


def _sound_of(inputs: Iterable[TensorSpec]) -> str | None:
    """The role along which a graph of sounds may be masked, or None."""
    roles = (spec.roles() for spec in inputs)
    return next((row[1] for row in roles if len(row) > 1 and row[1] in (SAMPLES, MEL_FRAMES)), None)


def _of_rank(rows: Iterable[Roles], rank: int) -> Roles | None:
    return next((row for row in rows if len(row) == rank), None)


def _laid_out(row: Roles, spec: TensorSpec) -> Roles:
    """The row in the order that the sizes show: channels are few, and filters fewer than frames."""
    sizes = [axis.size for axis in spec.axes or ()]
    if row == _SPECTROGRAM and (sizes[1] or 0) > (sizes[2] or math.inf):
        return BATCH, MEL_FRAMES, MEL
    if CHANNELS not in row or sizes[row.index(CHANNELS)] in _CHANNELS:
        return row
    rest = [role for role in row if role != CHANNELS]
    place = next((place for place in (len(row) - 1, 1) if sizes[place] in _CHANNELS), row.index(CHANNELS))
    return (*rest[:place], CHANNELS, *rest[place:])


def _checked_override(spec: TensorSpec, roles: Sequence[str | None]) -> Roles:
    if spec.axes is not None and len(roles) != len(spec.axes):
        raise ShapeMismatchError(f"roles={{{spec.name!r}: ...}} names {len(roles)} axes, but the graph has {spec}.")
    return tuple(roles)


def _input_roles(spec: TensorSpec, overrides: Mapping[str, Sequence[str | None]]) -> tuple[Roles, str]:
    rank = len(spec.axes or ())
    if spec.name in overrides:
        return _checked_override(spec, overrides[spec.name]), "set by the caller"
    if row := _of_rank(INPUT_ROLES.get(spec.name, ()), rank):
        return _laid_out(row, spec), "standard name"
    if (place := place_of(spec.name)) and rank == 4:
        return (BATCH, None, SOURCE if place.is_cross else PAST, None), "named as a cache"
    for guessed_rank, dtypes, row in _GUESSES:
        if rank == guessed_rank and spec.dtype.startswith(dtypes) and _is_likely(row, spec):
            return _laid_out(row, spec), f"guessed from rank {rank} and {spec.dtype}"
    return (None,) * rank, ""


def _is_likely(row: Roles, spec: TensorSpec) -> bool:
    """Whether the sizes do not speak against the roles: short rows of numbers are features of any kind, no sounds."""
    longest = max((axis.size or 0 for axis in spec.axes or ()), default=0)
    return row not in (_SOUND, _SPECTROGRAM) or longest >= _FEWEST_SAMPLES


def _output_row(spec: TensorSpec, sizes: Mapping[str, int | None]) -> tuple[Roles, str]:
    rank = len(spec.axes or ())
    if place_of(spec.name):
        return (BATCH, *[None] * (rank - 1)), "named as a cache"
    standard = OUTPUT_ROLES.get(re.sub(r"\.\d+$", "", spec.name), ())
    known = [row for row in standard if BATCHES.intersection(row) <= sizes.keys()]
    if row := _of_rank((*known, *standard), rank):
        return row, "standard name"
    return ((BATCH, SEQUENCE, *[None] * (rank - 2)) if rank > 2 else (BATCH, None)[:rank]), "same size as the input's"


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
    row, evidence = _output_row(spec, sizes)
    tokens = sizes.get(SEQUENCE)

    def follow(axis: Axis, role: str | None) -> Axis:
        if axis.symbol and axis.symbol in symbols:
            return replace(axis, role=symbols[axis.symbol], evidence=f"shares the symbol {axis.symbol!r} with an input")
        # A symbol that no input shares is a size of its own, unless the output's name says what it is.
        free = axis.size is None and evidence == "standard name"
        if role and role in sizes and (free or (axis.symbol is None and axis.size == sizes[role])):
            return replace(axis, role=role, evidence=evidence)
        # Document models put the patches of the page behind its tokens.
        if role == SEQUENCE and tokens and axis.size and axis.size > tokens and sizes.keys() >= {BOXES, HEIGHT}:
            return replace(axis, role=role, evidence=evidence, extra=axis.size - tokens)
        return axis

    return replace(spec, axes=tuple(map(follow, spec.axes, row)))
