"""One graph at one shape, ready to be run: what every line of a report works on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from optimum_fixedshape.contract import BATCHES, PAST, SAMPLES, SEQUENCE, SOURCE, TOTAL, ShapeContract, TensorSpec
from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.feeds import make_inputs
from optimum_fixedshape.fitting import Array, Arrays, Fill
from optimum_fixedshape.graph.outline import Outline
from optimum_fixedshape.roles import CHANNELS, FRAMES, HEIGHT, MEL, MEL_FRAMES, WIDTH
from optimum_fixedshape.sessions import SessionPool

from .comparing import Accuracy, Outputs, apart, as_array, scale_of

_SMALL = {**dict.fromkeys(BATCHES, 3), SEQUENCE: 8, SAMPLES: 4000, PAST: 4, SOURCE: 6, "num_choices": 2}
"""The size of an open axis where nothing says which sizes the graph was made for."""

_MOST_ELEMENTS = 2**27
_TOKENS = ("input_ids", "decoder_input_ids", "inputs_embeds")


@dataclass(frozen=True, eq=False)
class Probe:
    """One graph at one shape.

    Attributes:
        label: How it is called in evidence.
        path: The graph's file.
        stated: What the file says, with the sizes that its folder pins it to.
        contract: The same with a size for each open axis whose role is known.
        outline: What it computes.
        accuracy: How exactly it computes.
        pool: Opens its session.
        fill: What pads its inputs.
        seed: Of its random inputs.
    """

    label: str
    path: Path
    stated: ShapeContract
    contract: ShapeContract
    outline: Outline
    accuracy: Accuracy
    pool: SessionPool
    fill: Fill
    seed: int = 0

    @property
    def tolerance(self) -> float:
        """What counts as rounding, as a share of an output's largest number."""
        return self.accuracy.tolerance

    @cached_property
    def feed(self) -> Arrays:
        """Ordinary inputs: different rows, with padding where there is a mask."""
        return self.inputs()

    @cached_property
    def answer(self) -> Outputs:
        """The outputs of `feed`."""
        return self.run(self.feed)

    @cached_property
    def scales(self) -> dict[str, float]:
        """The largest number of each output of `answer`: what rounding is measured by."""
        return {name: scale_of(array) for name, array in self.answer.items()}

    def apart(self, ours: Outputs, theirs: Outputs) -> float:
        """Returns how far two answers are apart, or parts of answers; see `comparing.apart`."""
        return apart(ours, theirs, self.scales)

    def inputs(self, other: int = 0, *, padded: bool = True) -> Arrays:
        """Returns inputs of the probe's sizes; another number gives other ones."""
        return make_inputs(self.contract, self.outline, self.seed + other, padded=padded)

    def run(self, feed: Mapping[str, Array]) -> Outputs:
        """Returns the outputs by name. Errors are onnxruntime's own."""
        session = self.pool.get(self.path, self.contract)
        named = {spec.session_name: feed[spec.name] for spec in self.contract.inputs}
        outputs = session.run(None, named)
        return {spec.name: as_array(value) for spec, value in zip(self.contract.outputs, outputs, strict=True)}

    def at(self, sizes: Mapping[str, int]) -> Probe:
        """Returns the same graph with other sizes of its open axes."""
        known = {role: size for role, size in sizes.items() if role in self.stated.sizes}
        asked = {**self.open_sizes, **{role: size for role, size in known.items() if role in self.open_sizes}}
        if TOTAL in asked and (PAST in known or SEQUENCE in known):
            asked[TOTAL] = (asked.get(PAST) or self.stated.sizes.get(PAST) or 0) + (
                asked.get(SEQUENCE) or self.stated.sizes.get(SEQUENCE) or 0
            )
        return replace(self, contract=self.stated.pinned(asked))

    @property
    def open_sizes(self) -> dict[str, int]:
        """The sizes that were chosen for open axes."""
        return {role: self.contract.sizes[role] or 1 for role, size in self.stated.sizes.items() if size is None}

    @property
    def is_behind_cache(self) -> bool:
        """Whether it is a decoder that reads a cache."""
        return PAST in self.stated.sizes or any(tensor.past for tensor in self.stated.cache)

    @cached_property
    def tokens(self) -> TensorSpec | None:
        """The input that holds token ids, or None."""
        return next((spec for spec in self.contract.inputs if spec.name in _TOKENS), None)

    def masks(self) -> Iterator[TensorSpec]:
        """Yields the inputs that say which places are real."""
        return (spec for spec in self.contract.inputs if spec.name.endswith("mask") and len(spec.axes or ()) > 1)

    def mask_of(self, role: str) -> TensorSpec | None:
        """Returns the mask of the places along an axis, or None."""
        return next((spec for spec in self.masks() if role in spec.roles()), None)

    def rows(self, role: str, count: int) -> list[Arrays]:
        """Returns `count` different rows along a role: of each input that has it a slice of size 1."""
        specs = {spec.name: axis for spec in self.contract.inputs if (axis := spec.axis_of(role)) is not None}
        rows: list[Arrays] = []
        feeds = (self.inputs(other) for other in range(count))
        while len(rows) < count:
            feed = next(feeds)
            size = feed[next(iter(specs))].shape[next(iter(specs.values()))]
            rows += [{name: feed[name].take([i], axis) for name, axis in specs.items()} for i in range(size)]
        return rows[:count]

    def of_rows(self, role: str, rows: Sequence[Arrays]) -> Arrays:
        """Returns inputs that hold these rows in the slots along `role`, in order."""
        joined = {
            name: np.concatenate([row[name] for row in rows], self.contract.input(name).axis_of(role) or 0)
            for name in rows[0]
        }
        return {**self.feed, **joined}


def usual_sizes(contract: ShapeContract, outline: Outline, config: Mapping[str, Any]) -> dict[str, int]:
    """Returns a size for each open axis whose role is known: what the config says, else a small one.

    Args:
        contract: What the file says.
        outline: What the graph computes.
        config: ``config.json``.

    Raises:
        InvalidModelError: The inputs are too large to be tried.
        MissingInputError: An input is of a type that no array has.
    """
    told = _told(config)
    sizes = {}
    for role in (role for role, size in contract.sizes.items() if size is None):
        if size := told.get(role) or _SMALL.get(role):
            sizes[role] = size
    if PAST in contract.sizes and SEQUENCE in sizes:
        # Stock decoders behind an encoder are traced with one new token, and some have lost the causal mask on the way.
        sizes[SEQUENCE] = 1 if SOURCE in contract.sizes else 3
    if TOTAL in sizes or TOTAL in contract.sizes:
        total = sum(sizes.get(role) or contract.sizes.get(role) or 0 for role in (PAST, SEQUENCE))
        sizes |= {TOTAL: total} if contract.sizes[TOTAL] is None else {}
    shown = contract.pinned(sizes)
    _check_room(shown)
    for name, array in make_inputs(shown, outline).items():  # what is still open gets the size that its weights show
        roles = shown.input(name).roles()
        sizes |= {r: n for r, n in zip(roles, array.shape, strict=False) if r and contract.sizes.get(r, 0) is None}
    return sizes


def _check_room(contract: ShapeContract) -> None:
    """Raises an error if the inputs are larger than any that a graph is tried on."""
    elements = sum(math.prod(axis.size or 1 for axis in spec.axes or ()) for spec in contract.inputs)
    if elements > _MOST_ELEMENTS:
        raise InvalidModelError(
            f"{contract.path or 'The graph'} takes {elements} numbers at once, and at most {_MOST_ELEMENTS} are tried "
            "here. If that is what it should take, it cannot be checked.",
            path=str(contract.path) if contract.path else None,
        )


def _told(config: Mapping[str, Any]) -> dict[str, int]:
    own = {**config, **_part(config, "vision_config"), **_part(config, "encoder")}
    image = own.get("image_size", own.get("input_size"))
    if isinstance(image, Mapping):
        image = [image.get("height"), image.get("width")]
    height, width = image if isinstance(image, list) and len(image) == 2 else (image, image)
    positions = own.get("max_source_positions")
    found = {
        HEIGHT: height,
        WIDTH: width,
        CHANNELS: own.get("num_channels"),
        FRAMES: own.get("num_frames"),
        MEL: own.get("num_mel_bins"),
        MEL_FRAMES: 2 * positions if isinstance(positions, int) else own.get("max_length"),
    }
    return {role: size for role, size in found.items() if isinstance(size, int) and size > 0}


def _part(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = config.get(name)
    return part if isinstance(part, Mapping) else {}
