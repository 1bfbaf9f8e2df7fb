"""What the random inputs of a graph have in common: sizes, vocabularies, and how much of each row is real."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final, TypeAlias

import numpy as np

from optimum_fixedshape.contract import (
    BATCH,
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
    TensorSpec,
)
from optimum_fixedshape.errors import ShapeMismatchError
from optimum_fixedshape.graph.lookups import Lookups
from optimum_fixedshape.graph.outline import Outline
from optimum_fixedshape.roles import BOXES, CHANNELS, CHOICES, FRAMES, HEIGHT, MEL, MEL_FRAMES, PATCHES, WIDTH

Array: TypeAlias = np.ndarray[Any, Any]

_SIZES: Final[Mapping[str, int]] = {
    **{BATCH: 2, IMAGES: 2, TEXTS: 3, SOUNDS: 2, CHOICES: 2, SEQUENCE: 8, PAST: 5, SOURCE: 6},
    **{CHANNELS: 3, HEIGHT: 224, WIDTH: 224, FRAMES: 16, BOXES: 4, PATCHES: 16},
    **{SAMPLES: 3200, MEL: 80, MEL_FRAMES: 3000},
}
"""Sizes of dynamic axes, by role: small ones, but for images and spectrograms, whose models often take but one."""
_OTHER_ROWS, _OTHER_SIZE = 2, 3

_SHORTEST: Final = {SAMPLES: 0.5, MEL_FRAMES: 0.5, HEIGHT: 0.5, WIDTH: 0.5}
"""The least share that is real along these axes, as convolutions would leave nothing of less; else it is one place."""
_NO_MASK: Final = r"special_tokens|head_mask|token_type|segment|position|bbox|(?<!mask_)ids"
"""What no mask is called, though some of these are masks of other things."""


@dataclass
class Plan:
    """What the inputs of a graph have in common: their sizes, and how much of each row is real.

    Attributes:
        contract: The graph.
        outline: Its operators and tables, or None where its file is not at hand.
        given: Sizes that the caller asks for, by role or symbol.
        seed: What lengths of rows are drawn from.
        padded: Whether rows may end before the arrays do.
    """

    contract: ShapeContract
    outline: Outline | None
    given: dict[str, int]
    seed: int
    padded: bool

    def shape(self, spec: TensorSpec) -> tuple[int, ...]:
        """Returns the sizes of an input; one that does not even state a rank gets one axis."""
        if spec.axes is None:
            return (_OTHER_ROWS,)
        return tuple(self._size(axis, first=place == 0) for place, axis in enumerate(spec.axes))

    def _size(self, axis: Axis, *, first: bool) -> int:
        if axis.size is not None:
            return axis.size
        for key in (axis.role, axis.symbol):
            if key and key in self.sizes:
                return self.sizes[key]
        return _OTHER_ROWS if first else _OTHER_SIZE

    @cached_property
    def sizes(self) -> dict[str, int]:
        """The size of each role and symbol."""
        axes = [axis for spec in self.contract.inputs for axis in spec.axes or ()]
        symbols = {axis.symbol for axis in axes if axis.symbol}
        baked = {role: size for role, size in self.contract.sizes.items() if size is not None}
        self._check(symbols)
        sizes: dict[str, int] = {**_SIZES, **self._shown_sizes(), **baked, **self.given}
        known = {*baked, *self.given}
        for axis in axes:
            if axis.symbol in self.given and axis.role not in known and axis.role:
                sizes[axis.role] = self.given[axis.symbol]
        if PAST in self.contract.sizes and SOURCE in self.contract.sizes and SEQUENCE not in known:
            sizes[SEQUENCE] = 1  # stock decoders behind an encoder and a cache are made for one new token
        if TOTAL not in known:
            sizes[TOTAL] = sizes[PAST] + sizes[SEQUENCE]
        elif PAST not in known:
            sizes[PAST] = max(sizes[TOTAL] - sizes[SEQUENCE], 0)
        for axis in axes:  # what shares a symbol with an axis of known size has the same
            if axis.symbol and axis.role:
                sizes.setdefault(axis.symbol, sizes[axis.role])
        return sizes

    def _check(self, symbols: set[str]) -> None:
        roles = {key: size for key, size in self.given.items() if key in self.contract.sizes}
        self.contract.pinned(roles)
        known = sorted({*self.contract.sizes, *symbols})
        for key, size in self.given.items():
            if key not in known or size < 1:
                raise ShapeMismatchError(
                    f"sizes= expects sizes of 1 or more for {', '.join(known) or 'no axis at all'}, got {key}={size!r}."
                )

    def _shown_sizes(self) -> dict[str, int]:
        """Sizes that weights tell: an image is as many patches wide as there are positions for."""
        pixels = next((spec for spec in self.contract.inputs if HEIGHT in spec.roles()), None)
        if self.outline is None or pixels is None:
            return {}
        weights = self.outline.weights
        for kernel in (
            weights.get(name) for node in self.outline.nodes if node.op_type == "Conv" for name in node.inputs
        ):
            if kernel is None or len(kernel.shape) != 4:
                continue
            width, _, *patch = kernel.shape
            for table in weights.values():
                places = math.isqrt(table.shape[-2]) if len(table.shape) in (2, 3) else 0
                if places > 1 and table.shape[-1] == width and 0 < table.shape[-2] - places**2 <= 2:
                    return {HEIGHT: places * patch[0], WIDTH: places * patch[1]}
            break
        return {}

    def rows(self, spec: TensorSpec) -> int | None:
        """Returns the rows of the smallest table that the input's numbers choose from, or None if none is known."""
        return self._rows.get(spec.name)

    @cached_property
    def _rows(self) -> dict[str, int | None]:
        lookups = Lookups(self.outline) if self.outline else None
        return {spec.name: lookups.rows(spec.session_name) for spec in self.contract.inputs} if lookups else {}

    @cached_property
    def _rows_of_ids(self) -> set[tuple[str | None, ...]]:
        """The roles of the inputs that choose rows of tables."""
        return {spec.roles() for spec in self.contract.inputs if self.rows(spec)}

    def is_mask(self, spec: TensorSpec) -> bool:
        """Whether an input says what is real: by its name, or as integers beside ids, which look nothing up."""
        if re.search(_NO_MASK, spec.name):
            return False
        if "mask" in spec.name:
            return True
        is_row = spec.dtype.startswith("int") and SEQUENCE in spec.roles()
        return is_row and not self.rows(spec) and spec.roles() in self._rows_of_ids

    @cached_property
    def masked(self) -> set[str | None]:
        """The roles of the axes that masks cover."""
        roles = {role for spec in self.contract.inputs if self.is_mask(spec) for role in spec.roles()}
        return roles | ({SEQUENCE} if TOTAL in roles else set())

    def lengths(self, role: str, rows: tuple[int, ...]) -> Array:
        """Returns how many places along an axis are real, for each row: different ones, and one row is full."""
        if role == TOTAL:
            return self.sizes[PAST] + self.lengths(SEQUENCE, rows)
        size, count = self.sizes[role], math.prod(rows)
        if not self.padded or role not in self.masked:
            return np.full(rows, size)
        shortest = max(1, math.ceil(size * _SHORTEST.get(role, 0)))
        random = np.random.default_rng([self.seed, *role.encode()])
        full = [size] if count > 1 else []
        shorter = np.arange(shortest, max(size, shortest + 1))
        others = random.choice(shorter, count - len(full), replace=count - len(full) > len(shorter))
        return random.permutation(np.array([*full, *others], dtype=np.int64)).reshape(rows)
