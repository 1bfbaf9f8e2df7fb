"""``bench``: how long a model takes here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
    Shapes,
    Subfolder,
    Token,
    Variant,
    check_provider,
    given,
    read_names,
    read_provider_options,
    read_shapes,
)

if TYPE_CHECKING:
    from optimum_fixedshape.bench import BenchReport


def bench(
    model: Model,
    original: Original = None,
    rounds: Annotated[int, typer.Option(metavar="N", min=1, help="How often each call is timed.")] = 20,
    suggest: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Time nothing: suggest the best ladder for these texts.")
    ] = None,
    max_rungs: Annotated[int, typer.Option(metavar="N", min=1, help="With --suggest: the most rungs.")] = 8,
    shape: Shapes = None,
    input_name: InputNames = None,
    provider: Provider = "CPUExecutionProvider",
    provider_option: ProviderOptions = None,
    as_json: AsJson = False,
    file_name: FileName = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Time every rung against the bare session, and against PyTorch with --original. All take turns in one run.

    With --suggest the texts of a file, read as `run` reads them, are counted in tokens instead: which ladder would
    compute the fewest for them, and how much of what is computed now is padding.
    """
    hub = given(
        **{"file_name": file_name, "variant": variant, "subfolder": subfolder, "revision": revision, "token": token},
        **{"cache_dir": cache_dir, "local_files_only": local_files_only},
    )
    if suggest:
        _suggest(model, suggest, max_rungs, as_json, hub)
        return
    options = hub | given(
        **{"shapes": read_shapes(shape) or None, "input_names": read_names(input_name) or None},
        provider_options=read_provider_options(provider_option) or None,
    )
    provider = check_provider(provider)
    from optimum_fixedshape.bench import bench_model

    with console.progress("Timing", "rounds", rounds) as advance:
        report = bench_model(model, provider, original=original, rounds=rounds, progress=advance, **options)
    if as_json:
        console.emit_json(report.to_dict())
    else:
        _show_times(report, with_original=original is not None)


def _show_times(report: BenchReport, *, with_original: bool) -> None:
    columns = ["graph", "shape", "rows", "ours, ms", "bare session, ms", "ours ÷ bare", "rows/s", "waste"]
    rows = [
        [
            *(line.graph, console.sizes_text(line.sizes), line.rows, f"{line.ours:.2f}", f"{line.bare:.2f}"),
            *(f"{line.to_bare:.3f}", f"{line.rows_per_second:.1f}", f"{line.waste:.0%}"),
        ]
        for line in report.lines
    ]
    if with_original:
        columns += ["PyTorch, ms", "PyTorch ÷ ours"]
        rows = [
            [*row, f"{line.original:.2f}", f"{line.to_original:.2f}"]
            for row, line in zip(rows, report.lines, strict=True)
        ]
    machine = ", ".join(f"{name} {value}" for name, value in report.machine.items())
    title = f"{report.source} on {report.provider}: medians of {report.rounds} rounds"
    console.emit_tables(console.table(title, columns, rows, right=columns[2:]), machine)


def _suggest(model: str, file: Path, max_rungs: int, as_json: bool, hub: Mapping[str, Any]) -> None:
    from optimum_fixedshape.ladder_report import report_ladder

    from .items import check_files, texts_of

    check_files([str(file)])
    report = report_ladder(model, texts_of(str(file)), max_rungs=max_rungs, **hub)
    if as_json:
        console.emit_json(report.to_dict())
        return
    best = report.suggestion
    largest = best.rungs[-1]
    ladders = [
        ("present", _listed(report.present), report.present_real),
        ("suggested", _listed(best.rungs), best.real),
        ("one rung", str(largest), best.real_with_one),
        ("powers of two", f"1, 2, 4, ... {largest}", best.real_with_doubling),
    ]
    rows = [[name, rungs, f"{1 - real:.0%}"] for name, rungs, real in ladders if rungs]
    columns = ["ladder", "tokens of its rungs", "waste"]
    title = f"{best.texts} texts of {file} on ladders for {model}"
    cut = [
        f"{count} of the texts are longer than {_listed(place)} tokens and count as cut: {why}."
        for count, place, why in (
            (report.present_too_long, report.present[-1:], "the present ladder holds no more"),
            (best.too_long, [largest], "the model holds no more"),
        )
        if count
    ]
    console.emit_tables(console.table(title, columns, rows, right=columns[2:]), *cut, report.shape_option)


def _listed(sizes: Sequence[int]) -> str:
    return ", ".join(map(str, sizes))
