"""``pin``: a dynamic graph as graphs of fixed shapes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from . import console
from .export import report_folder
from .options import (
    AsJson,
    CacheDir,
    FileName,
    InputNames,
    LocalFilesOnly,
    Model,
    Revision,
    Shapes,
    Subfolder,
    Token,
    Variant,
    given,
    read_names,
    read_shapes,
)


class Dtype(StrEnum):
    """What weights become."""

    FP16 = "fp16"
    INT8 = "int8"


def pin(
    model: Model,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The folder to write.")],
    shape: Shapes = None,
    optimize: Annotated[bool, typer.Option("--optimize", help="Fuse what onnxruntime can fuse.")] = False,
    dtype: Annotated[Dtype | None, typer.Option(help="Make the graphs smaller.")] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Inputs for static int8: an .npz file, or .jsonl with a line for each sample."
        ),
    ] = None,
    input_name: InputNames = None,
    as_json: AsJson = False,
    file_name: FileName = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Fix the dynamic sizes of a graph: one graph for each shape, and one file of weights. The input stays as it is."""
    options = given(
        **{"optimize": optimize, "dtype": dtype.value if dtype else None},
        **{"calibration": list(read_samples(calibration)) if calibration else None},
        **{"input_names": read_names(input_name) or None, "file_name": file_name, "variant": variant},
        **{"subfolder": subfolder, "revision": revision, "token": token},
        **{"cache_dir": cache_dir, "local_files_only": local_files_only},
    )
    from optimum_fixedshape.pinning import pin_shapes

    folder = pin_shapes(model, output, read_shapes(shape), progress=console.shows_progress(), **options)
    report_folder(folder, as_json)


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
