"""How far exported graphs are from the PyTorch model that they were made of."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from optimum_fixedshape.config import FixedShapeConfig
from optimum_fixedshape.contract import BATCH
from optimum_fixedshape.distances import Distance, fidelity_text
from optimum_fixedshape.fitting import Fill, pad_id_of
from optimum_fixedshape.graph.reader import read_contract
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.runtime import Runtime

from .examples import Axes, example_of
from .pixels import PixelsInGraph
from .shapes import Combination

logger = logging.getLogger(__name__)

MEASURED_UP_TO = 2048
"""Tokens: attention takes their square in memory, and nobody may ever run the larger rungs."""
ROWS_OF_SMALLER = 16
"""Rows that graphs of lower precision are compared on: of fewer, a share of answers says little."""
_WORTH_A_WARNING = 1e-4


def measured(
    model: Any,
    axes: Axes,
    outputs: Sequence[str],
    path: Path,
    sizes: Combination,
    *,
    rows: int = 1,
    pixels: PixelsInGraph | None = None,
) -> Distance:
    """Returns how far a graph is from the original, of tokens the real ones, on rows it was not traced with.

    Args:
        model: The original.
        axes: Inputs of the graph.
        outputs: Its outputs.
        path: Its file.
        sizes: Its sizes.
        rows: How many rows to compare at least.
        pixels: What the graph does to images itself.
    """
    runtime = Runtime(ShapeLadder((read_contract(path),)), (path,), fill=Fill(pad_id_of(model.config)))
    distance = Distance()
    for seed in range(1, 1 + -(-rows // sizes.get(BATCH, 1))):
        example = given = example_of(model, axes, sizes, seed=seed)
        if pixels is not None:
            example, given = pixels.split(example)
        with torch.no_grad():
            expected = model(**example, return_dict=True)
        got = runtime.run([{name: tensor.cpu().numpy() for name, tensor in given.items()}])[0]
        real = example["attention_mask"].bool().cpu().numpy() if "attention_mask" in example else np.ones(())
        for name in outputs:
            theirs, ours = expected[name].cpu().numpy(), got[name]
            per_token = real.ndim and theirs.shape[: real.ndim] == real.shape
            distance.add(name, *((theirs[real], ours[real]) if per_token else (theirs, ours)))
    return distance


def with_measures(saved: FixedShapeConfig, distances: Mapping[str, Distance]) -> FixedShapeConfig:
    """Returns a config with what was measured of its graphs, and tells what a user should know of it.

    Graphs that were not made smaller are only as far from the original as rounding takes them, or something is wrong.
    """
    difference = {name: distance.largest for name, distance in distances.items()}
    for name, largest in difference.items():
        if saved.dtype:
            words = fidelity_text(distances[name].facts())
            logger.info("%s in %s differs from the original by %.1e: %s.", name, saved.dtype, largest, words)
        elif not largest <= _WORTH_A_WARNING:
            logger.warning("%s differs from the original by %.1e.", name, largest)
    fidelity = {name: distance.facts() for name, distance in distances.items() if saved.dtype}
    return replace(saved, difference=difference, fidelity=fidelity)
