"""A digest of all that pinned graphs depend on, and what is done to each of them in the end."""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from optimum_fixedshape.changes import Change, finished_model
from optimum_fixedshape.graph.pin import pin_as
from optimum_fixedshape.graph.tensors import check_tensors

from .plans import Plan, Source

if TYPE_CHECKING:
    import onnx


def key_of(source: Source, change: Change) -> str:
    """Returns a digest of all that the graphs depend on: what they are made of, what is done to them, and by what."""
    import onnxruntime  # asked itself, as it comes in packages of several names

    digest = hashlib.sha256()
    versions = [version("optimum-fixedshape"), version("onnx"), onnxruntime.__version__]
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


def fixed_model(ready: onnx.ModelProto, plan: Plan, change: Change) -> onnx.ModelProto:
    """Returns a prepared model at the sizes of a plan, changed where that comes last, and all its shapes proven."""
    fixed = pin_as(ready, plan.contract, plan.sizes)
    finished = finished_model(fixed, change)
    return fixed if finished is fixed else pin_as(finished, plan.fixed, {})
