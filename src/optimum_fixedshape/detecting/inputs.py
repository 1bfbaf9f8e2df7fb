"""What a graph takes: the standard name of each input, by its name, or else by rank, type, sizes and what reads it.

What a graph takes as a whole is a word of those that stand in `tasks.TASKS`: ``"tokens"``, ``"choices"`` (of texts),
``"image"``, ``"clip"``, ``"sound"``, ``"spectrogram"``, and ``"states"`` (of an encoder) or ``"boxes"`` beside others,
as in ``"image+tokens"``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from optimum_fixedshape.caches import place_of
from optimum_fixedshape.contract import SAMPLES, SEQUENCE, ShapeContract, TensorSpec
from optimum_fixedshape.graph.lookups import Lookups
from optimum_fixedshape.roles import CHANNELS, INPUT_ROLES, MEL_FRAMES

IDS: Final = ("input_ids", "inputs_embeds", "decoder_input_ids")
_OTHERS: Final = {"use_cache_branch", "cache_position", "num_logits_to_keep", "logits_to_keep"}
_KINDS_OF_TOKENS: Final = 16  # a table of fewer rows holds kinds of tokens
_CHANNELS: Final = (1, 3, 4)
_CORNERS: Final = 4

_ALIASES: Final[Mapping[str, tuple[str, tuple[int, ...], str]]] = {
    "input_ids": ("int", (2, 3), r"ids|(input_?)?(word|token|text)_?ids|inputs?_ids?|inputids|tokens|text"),
    "attention_mask": ("int", (2, 3), r"(input_?|attention_?|attn_?|token_?)?masks?|attention"),
    "token_type_ids": ("int", (2, 3), r"(input_?)?(segment|token_?type|type)s?(_?ids)?"),
    "position_ids": ("int", (2, 3), r"(input_?)?pos(ition)?s?(_?ids)?"),
    "bbox": ("int", (3,), r"(input_?)?(bbox(es)?|boxes)"),
    "pixel_values": (
        "float|uint8",
        (4, 5),
        r"(input_?)?(images?|pixels?|img|pictures?|frames|video|clip)(_?input|_?values)?",
    ),
    "input_values": ("float", (2,), r"(input_?)?(audio|wave(form)?s?|speech|samples|sound|wav)(_?input|_?values)?"),
    "input_features": ("float", (3,), r"(input_?)?((log_?)?mels?|spectrograms?|fbanks?|filter_?banks?|features)"),
    "encoder_hidden_states": ("float", (3,), r"(encoder_?)(outputs?|states|last_hidden_state|hidden)"),
}
"""Other names of standard inputs: the start of the type and the ranks they come in, and what the name is like."""

KNOWN, ALIAS, GUESSED, VAGUE, UNKNOWN = 1.0, 0.95, 0.85, 0.65, 0.7
"""How much a guess is worth, by what an input's standard name was told from; `UNKNOWN` for an input that has none."""


@dataclass(frozen=True)
class NamedInput:
    """An input by its standard name.

    Attributes:
        spec: The input.
        name: The standard name; the input's own where no other is known.
        certainty: From 0 to 1; see `KNOWN`.
        evidence: Why it has that name; empty for a standard one.
    """

    spec: TensorSpec
    name: str
    certainty: float
    evidence: str = ""


def plain_name(name: str) -> str:
    """Returns a name without folders, numbers of outputs and capitals: ``gpu_0/Input_IDs:0`` is ``input_ids``."""
    return re.sub(r"[^a-z0-9]+", "_", re.sub(r":\d+$", "", name.rpartition("/")[2]).lower()).strip("_")


def name_inputs(contract: ShapeContract, lookups: Lookups | None) -> tuple[NamedInput, ...]:
    """Returns the inputs by their standard names, no name twice, in the graph's order."""
    known = {spec.name: NamedInput(spec, spec.name, KNOWN) for spec in contract.inputs if _is_standard(spec)}
    for tell in (_by_alias, _by_rank, _by_size, _by_number):
        done = {found.spec.name for found in known.values()}
        rest = [spec for spec in contract.inputs if spec.name not in done]
        for found in tell(rest, {name: found.spec for name, found in known.items()}, lookups):
            known.setdefault(found.name, found)
    by_own_name = {found.spec.name: found for found in known.values()}
    return tuple(by_own_name.get(spec.name, NamedInput(spec, spec.name, UNKNOWN)) for spec in contract.inputs)


def what_is_taken(inputs: Iterable[NamedInput]) -> str:
    """Returns what a graph takes in a word of the table of tasks, or nothing for a graph that takes none of them."""
    ranks = {found.name: len(found.spec.axes or ()) for found in inputs if found.certainty != UNKNOWN}
    places = [place for name in ranks if (place := place_of(name))]
    ids = next((ranks[name] for name in IDS if name in ranks), 0)
    pixels = ranks.get("pixel_values") or ranks.get("pixel_values_videos") or ranks.get("flattened_patches", 0)
    parts = [
        {3: "image", 4: "image", 5: "clip"}.get(pixels),
        {2: "sound", 3: "spectrogram"}.get(ranks.get("input_values", 0)),
        "spectrogram" if "input_features" in ranks else None,
        ("choices" if ids == 3 and "input_ids" in ranks else "tokens") if ids else None,
        "boxes" if "bbox" in ranks else None,
        "states" if "encoder_hidden_states" in ranks or any(place.is_cross for place in places) else None,
    ]
    return "+".join(filter(None, parts))


def _is_standard(spec: TensorSpec) -> bool:
    rows = INPUT_ROLES.get(spec.name, ())
    return any(len(row) == len(spec.axes or ()) for row in rows) or spec.name in _OTHERS or bool(place_of(spec.name))


_Specs = Sequence[TensorSpec]
_Known = Mapping[str, TensorSpec]
_Found = Iterable[NamedInput]


def _by_alias(specs: _Specs, _: _Known, __: Lookups | None) -> _Found:
    for spec in specs:
        plain = plain_name(spec.name)
        for name, (kinds, ranks, pattern) in _ALIASES.items():
            fits = len(spec.axes or ()) in ranks and spec.dtype.startswith(tuple(kinds.split("|")))
            if fits and (plain == name or re.fullmatch(pattern, plain)):
                yield NamedInput(spec, name, ALIAS, f"{spec.name} is another name of {name}")
                break


def _by_rank(specs: _Specs, known: _Known, lookups: Lookups | None) -> _Found:
    """Numbers that are no integers, or bytes of pixels: by rank and sizes, or by the convolution that reads them."""
    has_texts = "input_ids" in known or any(spec.dtype.startswith("int") and SEQUENCE in spec.roles() for spec in specs)
    for spec in specs:
        rank, roles = len(spec.axes or ()), spec.roles()
        is_read = spec.dtype.startswith("float") and lookups is not None and lookups.is_convolved(spec.session_name)
        if CHANNELS in roles:
            channels = (spec.axes or ())[roles.index(CHANNELS)].size
            if channels == 1 and has_texts:  # where texts and images meet, images have colours
                said = f"{spec.name} has {rank} axes and 1 channel, as spectrograms beside texts have"
                yield NamedInput(spec, "input_features", VAGUE, said)
            elif channels is None or channels in _CHANNELS:
                said = f"{spec.name} has {rank} axes" + (
                    f" and {channels} channel{'s' * (channels > 1)}" if channels else ""
                )
                yield NamedInput(spec, "pixel_values", GUESSED if (channels or 1) > 1 else VAGUE, said)
        elif SAMPLES in roles or (is_read and rank == 2):
            yield NamedInput(spec, "input_values", GUESSED, f"{spec.name} holds rows of numbers, as samples are")
        elif MEL_FRAMES in roles or (is_read and rank == 3):
            frames_first = rank == 3 and spec.axes and (spec.axes[1].size or 0) > (spec.axes[2].size or math.inf)
            name = "input_values" if frames_first else "input_features"  # so do the models that take these names
            yield NamedInput(spec, name, GUESSED, f"{spec.name} has 3 axes of numbers, as spectrograms have")


def _by_size(specs: _Specs, known: _Known, _: Lookups | None) -> _Found:
    """Integers as large as something else: masks of pixels and of sounds, and boxes of tokens."""
    ids = known.get("input_ids") or next((spec for spec in specs if len(spec.axes or ()) == 2), None)
    for spec in specs:
        shape = spec.shape or ()
        if not spec.dtype.startswith(("int", "bool")):
            continue
        if len(shape) == 3 and _ends_alike(shape, known.get("pixel_values"), 2):
            yield NamedInput(spec, "pixel_mask", GUESSED, f"{spec.name} is as large as the image")
        elif len(shape) == 2 and _ends_alike(shape, known.get("input_values") or known.get("input_features"), 1):
            yield NamedInput(spec, "attention_mask", GUESSED, f"{spec.name} is as long as the sound")
        elif len(shape) == 3 and shape[-1] == _CORNERS and _ends_alike(shape[:-1], ids, 1):
            yield NamedInput(spec, "bbox", GUESSED, f"{spec.name} has {_CORNERS} numbers for each token")


def _ends_alike(shape: Sequence[int | str | None], other: TensorSpec | None, axes: int) -> bool:
    end = (other.shape or ())[-axes:] if other else ()
    return None not in end and tuple(shape[-axes:]) == end


def _by_number(specs: _Specs, known: _Known, lookups: Lookups | None) -> _Found:
    """Integers in rows: what they look up tells ids, kinds and positions apart, and masks look nothing up."""
    numbers = [spec for spec in specs if spec.dtype.startswith("int") and SEQUENCE in spec.roles()]
    tables = {spec.name: lookups.rows(spec.session_name) or 0 if lookups else 0 for spec in numbers}
    if not any(tables.values()):
        yield from _by_order(numbers, known)
        return
    has_ids = "input_ids" in known
    for spec in sorted(numbers, key=lambda spec: -tables[spec.name]):
        rows = tables[spec.name]
        said = f"{spec.name} looks up a table of {rows} rows"
        if not rows:
            yield NamedInput(spec, "attention_mask", GUESSED, f"{spec.name} holds integers, and looks up no table")
        elif rows <= _KINDS_OF_TOKENS and has_ids:
            yield NamedInput(spec, "token_type_ids", GUESSED, said)
        else:
            yield NamedInput(spec, "position_ids" if has_ids else "input_ids", GUESSED, said)
            has_ids = True


def _by_order(numbers: _Specs, known: _Known) -> _Found:
    free = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name not in known]
    for spec, name in zip(numbers, free, strict=False):
        certainty = GUESSED if name == "input_ids" and len(numbers) == 1 else VAGUE
        yield NamedInput(spec, name, certainty, f"{spec.name} holds integers in rows, and {name} is the next of these")
