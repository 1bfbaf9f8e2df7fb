"""What the name of a graph says: which part of a model it is, and which of several variants."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

WITH_PAST, MERGED = "decoder_with_past_model", "decoder_model_merged"
_STEMS = (WITH_PAST, MERGED, "decoder_model", "encoder_model", "model")
"""The names that optimum gives to graphs; ``decoder_model_merged`` before what it would be taken for a variant of."""


def stem_of(name: str) -> str | None:
    """Returns which part of a model a graph is by its name, such as ``encoder_model``, in whatever variant."""
    stem = PurePosixPath(name).stem
    return next((part for part in _STEMS if stem == part or stem.startswith(f"{part}_")), None)


def variant_of(name: str) -> str:
    """Returns which variant of its part a graph is by its name, such as ``quantized``; empty for the plain one."""
    return PurePosixPath(name).stem.removeprefix(stem_of(name) or "").removeprefix("_")


def is_variant(name: str, variant: str) -> bool:
    """Whether a graph is that variant of any part, by its name."""
    return PurePosixPath(name).stem.endswith(f"_{variant}")


def variants_among(names: Iterable[str]) -> list[str]:
    """Returns the variants that there are; ``model_2x16.onnx`` is none, but a rung."""
    found = {variant_of(name) for name in names if stem_of(name)}
    return sorted(variant for variant in found if variant.strip("0123456789x"))
