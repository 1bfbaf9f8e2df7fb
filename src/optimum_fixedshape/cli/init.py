"""``init``: a bare graph as a complete folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import console
from .options import (
    AsJson,
    CacheDir,
    FileName,
    InputNames,
    LocalFilesOnly,
    Revision,
    Subfolder,
    Task,
    Token,
    Variant,
    given,
    read_names,
)


def init(
    graph: Annotated[str, typer.Argument(metavar="GRAPH", help="An .onnx file, a folder or a Hub repo id.")],
    output: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The folder to write; by default that of the graph.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Where config and processors are copied from: a folder or a Hub repo id."),
    ] = None,
    task: Task = None,
    labels: Annotated[
        str | None, typer.Option(metavar="LABELS", help="A file with a label a line, or labels: cat,dog,bird.")
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
    """Write config.json and processor files for a bare graph, so that it loads here, in transformers and in optimum."""
    options = given(
        **{"output": output, "source": source, "task": task, "labels": read_labels(labels) if labels else None},
        **{"input_names": read_names(input_name) or None, "file_name": file_name, "variant": variant},
        **{"subfolder": subfolder, "revision": revision, "token": token},
        **{"cache_dir": cache_dir, "local_files_only": local_files_only},
    )
    from optimum_fixedshape.bare import write_config

    folder = write_config(graph, **options)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    if as_json:
        console.emit_json({"folder": folder, "files": files})
    else:
        console.emit_tables(console.table(str(folder), ["file"], [[name] for name in files]))


def read_labels(text: str) -> Path | list[str]:
    """Returns the file of that name, else the labels that are spelled out."""
    return Path(text) if Path(text).is_file() else [label.strip() for label in text.split(",")]
