"""``pin``: a dynamic graph as graphs of fixed shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console
from .changes import Calibration, Dtype, Optimize, read_changes
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


def pin(
    model: Model,
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The folder to write.")],
    shape: Shapes = None,
    optimize: Optimize = False,
    dtype: Dtype = None,
    calibration: Calibration = None,
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
        **{"input_names": read_names(input_name) or None, "file_name": file_name, "variant": variant},
        **{"subfolder": subfolder, "revision": revision, "token": token},
        **{"cache_dir": cache_dir, "local_files_only": local_files_only},
    )
    from optimum_fixedshape.pinning import pin_shapes

    changes = read_changes(optimize, dtype, calibration)
    folder = pin_shapes(model, output, read_shapes(shape), progress=console.shows_progress(), **changes, **options)
    report_folder(folder, as_json)
