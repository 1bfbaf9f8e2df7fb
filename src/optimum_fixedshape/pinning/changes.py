"""What is done to graphs beside pinning them, and a digest of all that they depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from optimum_fixedshape.contract import ShapeContract
from optimum_fixedshape.errors import InvalidArgumentError
from optimum_fixedshape.fitting import Arrays, Fill, fit, pad_id_of, prepare
from optimum_fixedshape.graph.pin import pin_as
from optimum_fixedshape.graph.tensors import check_tensors

from .plans import Plan, Source

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Change:
    """What is done to each graph beside pinning it.

    Attributes:
        optimize: Fuse what belongs together.
        dtype: What it is made smaller to.
        calibration: Inputs that show the ranges of its numbers.
        config: The model's ``config.json``.

    Raises:
        InvalidArgumentError: There is no such dtype, or calibration without one that needs it.
    """

    optimize: bool
    dtype: Literal["fp16", "int8"] | None
    calibration: tuple[Mapping[str, Any], ...] | None
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.dtype not in (None, "fp16", "int8"):
            raise InvalidArgumentError(f'dtype must be "fp16", "int8" or None, got {self.dtype!r}.')
        if self.calibration is not None and self.dtype != "int8":
            raise InvalidArgumentError(f'calibration= is for dtype="int8", got dtype={self.dtype!r}. Leave it out.')


def key_of(source: Source, change: Change) -> str:
    """Returns a digest of all that the graphs depend on: what they are made of, what is done to them, and by what."""
    digest = hashlib.sha256()
    versions = [version(name) for name in ("optimum-fixedshape", "onnx", "onnxruntime")]
    names = dict(source.config.names), dict(source.config.roles)
    plans = [(plan.name, plan.path.name, sorted(plan.sizes.items())) for plan in source.plans]
    facts = [versions, names, plans, change.optimize, change.dtype, change.config, change.calibration is not None]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    files = {file for plan in source.plans for file in (plan.path, *_weights_of(plan))}
    for file in sorted(files, key=lambda file: file.name):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    for sample in change.calibration or ():
        for name, array in sorted((name, np.asarray(array)) for name, array in sample.items()):
            digest.update(f"{name} {array.dtype} {array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


def _weights_of(plan: Plan) -> set[Path]:
    return {place.file for place in check_tensors(plan.path)}


def prepared_model(model: onnx.ModelProto, contract: ShapeContract, change: Change) -> onnx.ModelProto:
    """Returns a model as it comes, its shapes open, with what is done before it is pinned: all rungs then share it.

    Fusions are only found while the arithmetic on sizes is there, and ranges that were found once for all rungs give a
    row the same answer in each.

    Raises:
        ShapeMismatchError: A calibration sample contradicts the graph.
        MissingInputError: There are none, or one lacks an input.
    """
    if change.optimize:
        from optimum_fixedshape.graph.optimize import optimize_graph

        model = optimize_graph(model, config=change.config)
    if change.dtype == "int8":
        from optimum_fixedshape.graph.quantize import to_int8

        model = to_int8(model, calibration=_samples_for(contract, change))
    return model


def changed_model(fixed: onnx.ModelProto, plan: Plan, change: Change) -> onnx.ModelProto:
    """Returns a fixed model with what is done to each rung, its shapes proven once more.

    Half precision comes last: whole numbers above 2048, as sizes may be, it does not hold.
    """
    if change.dtype != "fp16":
        return fixed
    from optimum_fixedshape.graph.quantize import to_float16

    return pin_as(to_float16(fixed), plan.fixed, {})


def _samples_for(contract: ShapeContract, change: Change) -> list[Arrays] | None:
    """The calibration samples as a session of the graph takes them."""
    if change.calibration is None:
        return None
    fill = Fill(pad_id_of(_Facts(change.config)))
    ready = (prepare(sample, contract)[0] for sample in change.calibration)
    return [feed.arrays for arrays in ready for feed in fit(arrays, contract, fill)]


class _Facts:
    """A configuration file as an object with attributes."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.__dict__.update(facts)
