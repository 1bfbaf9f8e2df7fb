"""``bench``: how long a model takes here."""

from __future__ import annotations

from typing import Annotated

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
    Revision,
    Shapes,
    Subfolder,
    Token,
    Variant,
    check_provider,
    given,
    read_names,
    read_shapes,
)


def bench(
    model: Model,
    original: Original = None,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="How often each call is timed.")] = 20,
    shape: Shapes = None,
    input_name: InputNames = None,
    provider: Provider = "CPUExecutionProvider",
    as_json: AsJson = False,
    file_name: FileName = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Time every rung against the bare session, and against PyTorch with --original. All take turns in one run."""
    options = given(
        **{"shapes": read_shapes(shape) or None, "input_names": read_names(input_name) or None},
        **{"file_name": file_name, "variant": variant, "subfolder": subfolder, "revision": revision, "token": token},
        **{"cache_dir": cache_dir, "local_files_only": local_files_only},
    )
    provider = check_provider(provider)
    from optimum_fixedshape.bench import bench_model

    with console.progress("Timing", "rounds", rounds) as advance:
        report = bench_model(model, provider, original=original, rounds=rounds, progress=advance, **options)
    if as_json:
        console.emit_json(report.to_dict())
        return
    columns = ["graph", "shape", "rows", "ours, ms", "bare session, ms", "ours ÷ bare", "rows/s", "waste"]
    rows = [
        [
            *(line.graph, console.sizes_text(line.sizes), line.rows, f"{line.ours:.2f}", f"{line.bare:.2f}"),
            *(f"{line.to_bare:.3f}", f"{line.rows_per_second:.1f}", f"{line.waste:.0%}"),
        ]
        for line in report.lines
    ]
    if original:
        columns += ["PyTorch, ms", "PyTorch ÷ ours"]
        rows = [
            [*row, f"{line.original:.2f}", f"{line.to_original:.2f}"]
            for row, line in zip(rows, report.lines, strict=True)
        ]
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    title = f"{report.source} on {report.provider}: medians of {report.rounds} rounds"
    console.emit_tables(console.table(title, columns, rows, right=columns[2:]), machine)
