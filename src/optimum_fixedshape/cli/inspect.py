"""``inspect``: what graphs are and take."""

from __future__ import annotations

from typing import Annotated

import typer

from .looking import show
from .options import (
    AsJson,
    CacheDir,
    FileName,
    LocalFilesOnly,
    Revision,
    Subfolder,
    Token,
    Variant,
    given,
)


def inspect(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help=".onnx files, folders or Hub repo ids.")],
    as_json: AsJson = False,
    file_name: FileName = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Show what graphs take and give, their rungs, and what they may be for. No weight is read.

    With --json, each path is one line. Where one of several cannot be read, the others are shown all the same.
    """
    from optimum_fixedshape.hub import HubOptions

    hub = HubOptions(
        **given(
            **{"variant": variant, "subfolder": subfolder, "revision": revision, "token": token},
            **{"cache_dir": cache_dir, "local_files_only": local_files_only},
        )
    )
    show(paths, as_json=as_json, file_name=file_name, hub=hub)
