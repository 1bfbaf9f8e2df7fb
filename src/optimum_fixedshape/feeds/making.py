"""Random numbers for an input of each kind."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np

from optimum_fixedshape.caches import place_of
from optimum_fixedshape.contract import BATCHES, PAST, SAMPLES, SEQUENCE, SOURCE, TOTAL, TensorSpec
from optimum_fixedshape.roles import CHOICES, HEIGHT, MEL_FRAMES, PATCHES, WIDTH

from .plan import Array, Plan

_UNKNOWN_VOCABULARY, _UNKNOWN_KINDS = 100, 2
_SPECIAL_TOKENS = 5  # the first rows of most vocabularies: padding, start, end and the like
_BOX_COORDINATES = 1001
_QUIET = 0.1
_WORDS: Final = ("harbour", "library", "bridge", "market", "recipe", "tram")
_ROWS: Final = BATCHES | {CHOICES}
_MASKABLE: Final = {SEQUENCE, TOTAL, SOURCE, SAMPLES, MEL_FRAMES, PATCHES, HEIGHT, WIDTH}


@dataclass(frozen=True)
class Part:
    """One input that is to be made."""

    plan: Plan
    spec: TensorSpec
    shape: tuple[int, ...]
    random: np.random.Generator

    @cached_property
    def real(self) -> Array:
        """Which places are real, as booleans that broadcast to the shape."""
        real = np.ones((1,) * len(self.shape), bool)
        roles = self.spec.roles()
        for axis, role in enumerate(roles):
            if role in _MASKABLE:
                rows = tuple(n if roles[i] in _ROWS else 1 for i, n in enumerate(self.shape[:axis]))
                lengths = self.plan.lengths(role, rows).reshape(*rows, *(1,) * (len(self.shape) - axis))
                places = np.arange(self.shape[axis]).reshape(-1, *(1,) * (len(self.shape) - axis - 1))
                real = real & (places < lengths)
        return real

    def whole(self, low: int, high: int) -> Array:
        """Returns integers from `low` up to, and without, `high`."""
        return self.random.integers(low, max(high, low + 1), self.shape)

    def normal(self, scale: float = 1.0) -> Array:
        """Returns numbers around 0 with a standard deviation of `scale`."""
        return self.random.standard_normal(self.shape) * scale


def _mask(part: Part) -> Array:
    """1 for what is real. A mask of scores, which is added to them, hides nothing if it is 0."""
    if len(part.shape) > 3 and part.spec.dtype.startswith("float"):
        return np.zeros(part.shape)
    return np.broadcast_to(part.real, part.shape)


def _ids(part: Part) -> Array:
    rows = part.plan.rows(part.spec) or _UNKNOWN_VOCABULARY
    return part.whole(_SPECIAL_TOKENS if rows > 2 * _SPECIAL_TOKENS else 0, min(rows, _most(part))) * part.real


def _kinds(part: Part) -> Array:
    """Of two texts in a row: the first half is of kind 0, the second of kind 1."""
    rows = part.plan.rows(part.spec) or _UNKNOWN_KINDS
    second = np.arange(part.shape[-1]) >= part.shape[-1] // 2 if part.shape else np.array(0)
    kinds: Array = np.minimum(second * part.real, rows - 1)
    return kinds


def _boxes(part: Part) -> Array:
    """Corners ``(x0, y0, x1, y1)`` where x0 <= x1 and y0 <= y1."""
    corners = part.whole(0, min(part.plan.rows(part.spec) or _BOX_COORDINATES, _BOX_COORDINATES))
    corners = corners.reshape(*part.shape[:-1], -1, 2) if part.shape and part.shape[-1] % 2 == 0 else corners[..., None]
    ordered: Array = np.sort(corners, axis=-2).reshape(part.shape)
    return ordered * part.real


def _positions(part: Part) -> Array:
    """Places counted along the row, behind those in the cache."""
    sizes = part.plan.sizes
    past = sizes[PAST] if PAST in part.plan.contract.sizes else 0
    places = past + np.arange(part.shape[-1] if part.shape else 1)
    last = (part.plan.rows(part.spec) or places[-1] + 1) - 1
    positions: Array = np.minimum(np.broadcast_to(places, part.shape) if part.shape else places[0], last)
    return positions * part.real


def _grids(part: Part) -> Array:
    """Rows and columns of patches, as many together as an image has."""
    patches = part.plan.sizes[PATCHES]
    rows = max(n for n in range(1, math.isqrt(patches) + 1) if patches % n == 0)
    return np.broadcast_to(np.array([rows, patches // rows]), part.shape)


def _patches(part: Part) -> Array:
    """Pixels behind the row and the column of their patch, which count from 1."""
    made = part.normal()
    made[..., :2] = 1 + np.arange(part.shape[1])[:, None] // [4, 1] % 4
    return made * part.real


def _pixels(part: Part) -> Array:
    made = part.normal() if part.spec.dtype.startswith("float") else part.whole(0, min(256, _most(part)))
    return made * part.real


def _sound(part: Part) -> Array:
    return part.normal(_QUIET) * part.real


def _spectrogram(part: Part) -> Array:
    return part.normal() * part.real


def _cache(part: Part) -> Array:
    return part.normal(_QUIET)


def _zeros(part: Part) -> Array:
    return np.zeros(part.shape)


def _ones(part: Part) -> Array:
    return np.ones(part.shape)


def _words(part: Part) -> Array:
    made: Array = np.empty(part.shape, dtype=object)
    made[...] = np.array(_WORDS, dtype=object)[part.whole(0, len(_WORDS))]
    return made


def _any(part: Part) -> Array:
    """Something small of the input's type."""
    kind = part.spec.dtype
    if kind == "string":
        return _words(part)
    if kind.startswith("float"):
        return part.normal()
    return _ids(part) if part.plan.rows(part.spec) or SEQUENCE in part.spec.roles() else part.whole(0, 2)


def _most(part: Part) -> int:
    """One more than the largest number of an input's type."""
    return int(np.iinfo(part.spec.dtype).max) + 1 if part.spec.dtype[0] in "iu" else 2**31


Maker = Callable[[Part], Array]
_BY_NAME: Final[Sequence[tuple[str, Maker]]] = (
    (r"special_tokens_mask|position_offset", _zeros),
    (r"use_cache_branch|head_mask|logits_to_keep", _ones),
    (r"token_type|input_type|segment", _kinds),
    (r"bbox", _boxes),
    (r"position", _positions),
    (r"spatial_shapes", _grids),
    (r"flattened_patches", _patches),
)
_BY_ROLE: Final[Mapping[str, Maker]] = {SAMPLES: _sound, MEL_FRAMES: _spectrogram, HEIGHT: _pixels}


def _named(name: str) -> Maker | None:
    return next((maker for pattern, maker in _BY_NAME if re.search(pattern, name)), None)


def maker_of(spec: TensorSpec, plan: Plan) -> Maker:
    """Returns what makes an input: told by its name, by whether it is a mask, by the roles of its axes, or its type."""
    if place_of(spec.name):
        return _cache
    if plan.is_mask(spec):
        return _mask
    if (made := _named(spec.name)) and spec.dtype != "string":
        return made
    return next((maker for role, maker in _BY_ROLE.items() if role in spec.roles()), _any)
