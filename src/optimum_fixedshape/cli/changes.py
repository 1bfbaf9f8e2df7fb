"""Options of the commands that make graphs: what is done to each beside fixing its shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from .options import given


class Precision(StrEnum):
    """What weights become."""

    FP16 = "fp16"
    INT8 = "int8"


Optimize = Annotated[bool, typer.Option("--optimize", help="Fuse what onnxruntime has operators for.")]
Dtype = Annotated[Precision | None, typer.Option(help="Make the graphs smaller.")]
Calibration = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Inputs for static int8: an .npz file, or .jsonl with a line for each sample."),
]


def read_changes(optimize: bool, dtype: Precision | None, calibration: Sequence[Path] | None) -> dict[str, Any]:
    """Returns the arguments of `pin_shapes` and `export_model` that these options stand for.

    Raises:
        InvalidInputError: A file of samples holds something else.
        OSError: It cannot be read.
    """
    samples = list(read_samples(calibration)) if calibration else None
    return given(optimize=optimize, dtype=dtype.value if dtype else None, calibration=samples)


def read_samples(files: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """Yields the inputs that calibrate a graph: one sample for each ``.npz`` file and each line of other files.

    Raises:
        InvalidInputError: A file holds something else.
        OSError: A file cannot be read.
    """
    import json

    import numpy as np

    from optimum_fixedshape.errors import InvalidInputError

    for file in files:
        if file.suffix == ".npz":
            try:
                with np.load(file, allow_pickle=False) as arrays:
                    yield dict(arrays)
            except ValueError as error:
                raise InvalidInputError(f"{file} is no .npz file of plain arrays: {error}", item=str(file)) from error
            continue
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            try:
                yield {name: np.asarray(value) for name, value in json.loads(line).items()}
            except (ValueError, AttributeError) as error:
                where = f"{file}, line {number}"
                wanted = 'an object of inputs, such as {"input_ids": [[101, 102]]}'
                raise InvalidInputError(f"{where}: expected {wanted}, got {line[:60]!r}.", item=where) from error
