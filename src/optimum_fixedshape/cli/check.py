"""``check``: whether a graph is safe to use."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from . import console
from .options import (
    AsJson,
    CacheDir,
    FileName,
    InputNames,
    LocalFilesOnly,
    Model,
    Original,
    Provider,
    ProviderOptions,
    Revision,
    Subfolder,
    Token,
    Variant,
    check_provider,
    given,
    read_names,
    read_provider_options,
)

if TYPE_CHECKING:
    from optimum_fixedshape.checking.report import Line


def check(
    model: Model,
    original: Original = None,
    provider: Provider = "CPUExecutionProvider",
    provider_option: ProviderOptions = None,
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
    """Check that every slot and every padding gives the same answer, and what else goes wrong in exports.

    Exits with 1 where a line fails.
    """
    options = given(
        **{"original": original, "input_names": read_names(input_name) or None, "file_name": file_name},
        **{"variant": variant, "subfolder": subfolder, "revision": revision, "token": token},
        **{"cache_dir": cache_dir, "local_files_only": local_files_only},
        provider_options=read_provider_options(provider_option) or None,
    )
    provider = check_provider(provider)
    from optimum_fixedshape.checking.check import check_model

    report = check_model(model, provider, progress=console.shows_progress(), **options)
    if as_json:
        console.emit_json(report.to_dict())
    else:
        rows = [(line.verdict.value, line.name, _said(line)) for line in report.lines]
        title = f"{report.source} on {report.provider}: {report.verdict.value}"
        console.emit_tables(console.table(title, ("verdict", "line", "what was seen"), rows))
    if report.exit_code:
        raise typer.Exit(report.exit_code)


def _said(line: Line) -> tuple[str, ...]:
    """What a line says, with its evidence where somebody will want to see it."""
    shown = line.evidence if line.verdict.value in ("warning", "fail") else ()
    return (line.summary, *shown)
