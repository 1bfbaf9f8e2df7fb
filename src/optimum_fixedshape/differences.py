"""How far the answers of two graphs are apart, on inputs made for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .contract import BATCH, PAST, SEQUENCE, TOTAL, ShapeContract
from .distances import Distance
from .errors import ShapeMismatchError
from .feeds import make_inputs
from .fitting import Array
from .graph.outline import outline_of
from .graph.reader import read_contract
from .roles import with_shown_outputs
from .sessions import SessionPool
from .unfitting import cut

_SEEDS = (0, 1, 2)


def measure_difference(
    original: Path,
    changed: Path,
    *,
    contract: ShapeContract,
    seeds: Sequence[int] = _SEEDS,
    pool: SessionPool | None = None,
) -> float:
    """Returns the largest absolute difference between what two graphs answer; see `measure_distance`."""
    return measure_distance(original, changed, contract=contract, seeds=seeds, pool=pool).largest


def measure_distance(
    original: Path,
    changed: Path,
    *,
    contract: ShapeContract,
    seeds: Sequence[int] = _SEEDS,
    pool: SessionPool | None = None,
) -> Distance:
    """Returns how far apart two graphs answer, on the CPU, in the outputs' own units.

    Both get the same generated inputs, rows of different lengths with a mask where they take one. Of outputs that
    follow the tokens only the real places count: what stands at padding is nobody's answer. NaN in one of the two
    counts as infinite, and so does another text.

    Args:
        original: The file of a graph, with open or fixed shapes.
        changed: That of the other: pinned, optimized or quantized, with inputs and outputs of the same names.
        contract: Of `changed`; its shapes are those that are compared.
        seeds: Of the inputs. One more is one more run of each.
        pool: Keeps the session of `original`, for whoever compares it with several.

    Raises:
        ShapeMismatchError: The outputs of the two differ in number or shape.
        MissingInputError: An input is none that can be generated.
        GraphNotFoundError, InvalidModelError: A file is missing, or onnxruntime refuses it.
    """
    sessions = [(pool or SessionPool()).get(original, read_contract(original)), SessionPool().get(changed, contract)]
    outline, distance = outline_of(contract), Distance()
    for seed in seeds:
        feeds = make_inputs(contract, outline, seed)
        named = {spec.session_name: feeds[spec.name] for spec in contract.inputs}
        expected, got = (session.run(None, named) for session in sessions)
        if [np.shape(output) for output in expected] != [np.shape(output) for output in got]:
            raise ShapeMismatchError(
                f"{original} and {changed} answer with different shapes: {', '.join(map(_shape, expected))} and "
                f"{', '.join(map(_shape, got))}. Only graphs of the same model can be compared."
            )
        rung = with_shown_outputs(contract, feeds, got)
        for start, sizes in _rows(feeds, rung):
            real = [cut(outputs, rung, start, sizes) for outputs in (expected, got)]
            for spec, exact, found in zip(rung.outputs, *real, strict=True):
                distance.add(spec.name, exact, found)
    return distance


def _rows(feeds: Mapping[str, Array], contract: ShapeContract) -> Iterator[tuple[int, dict[str, int]]]:
    """Each row's place and its own sizes; all rows at once where nothing says which places are real."""
    mask = next(
        (
            spec
            for spec in contract.inputs
            if "mask" in spec.name and spec.roles() in ((BATCH, SEQUENCE), (BATCH, TOTAL))
        ),
        None,
    )
    if mask is None:
        yield 0, {}
        return
    past = (contract.sizes.get(PAST) or 0) if TOTAL in mask.roles() else 0
    for row, places in enumerate(feeds[mask.name]):
        yield row, {BATCH: 1, SEQUENCE: int((places != 0).sum()) - past}


def _shape(output: Any) -> str:
    return str(list(np.shape(output)))
