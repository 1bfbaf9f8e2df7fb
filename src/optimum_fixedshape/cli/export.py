"""``export``: a PyTorch model as a folder of graphs whose shapes are baked in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .changes import Calibration, Dtype, Optimize, read_changes
from .options import (
    AsJson,
    CacheDir,
    LocalFilesOnly,
    Revision,
    Settings,
    Shapes,
    Subfolder,
    Task,
    Token,
    given,
    read_settings,
    read_shapes,
)

if TYPE_CHECKING:
    from optimum_fixedshape.config import FixedShapeConfig


def export(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A PyTorch model: a folder or a Hub repo id.")],
    output: Annotated[Path, typer.Argument(metavar="OUTPUT", help="The folder to write.")],
    task: Task = None,
    shape: Shapes = None,
    optimize: Optimize = False,
    dtype: Dtype = None,
    calibration: Calibration = None,
    preprocess_in_graph: Annotated[
        bool, typer.Option("--preprocess-in-graph", help="Rescale and normalize images in the graph: bytes go in.")
    ] = False,
    with_inference: Annotated[
        bool, typer.Option("--with-inference", help="Save what a pipeline needs, and try that it loads.")
    ] = False,
    settings: Settings = None,
    as_json: AsJson = False,
    subfolder: Subfolder = None,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Export a PyTorch model: one graph for each shape, and one file of weights.

    --with-inference also writes the arguments of its pipeline, those of --set among them, to fixedshape_config.json.
    """
    shapes, arguments = read_shapes(shape), read_settings(settings)
    if arguments and not with_inference:
        raise typer.BadParameter("Settings are saved with --with-inference alone.", param_hint="--set")
    from optimum_fixedshape._compat import imported

    for package in ("torch", "onnxscript"):
        imported(package, "export", "Exporting")
    from optimum_fixedshape.export.folder import export_model

    options = given(
        **{"subfolder": subfolder, "revision": revision, "token": token},
        **{"cache_dir": cache_dir, "local_files_only": local_files_only},
    )
    changes = read_changes(optimize, dtype, calibration) | given(preprocess_in_graph=preprocess_in_graph)
    progress = console.shows_progress()
    export_model(model, output, task=task, shapes=shapes or None, progress=progress, **changes, **options)
    if with_inference:
        save_settings(output, arguments)
    report_folder(output, as_json)


def save_settings(folder: Path, settings: Mapping[str, Any]) -> None:
    """Writes the arguments of a folder's pipeline beside its graphs, once the pipeline has loaded with them.

    Raises:
        ProcessorError: A processor is missing.
        UnsupportedTaskError: There is no pipeline for the task.
    """
    from optimum_fixedshape.config import FixedShapeConfig
    from optimum_fixedshape.pipelines.factory import pipeline

    pipeline(model=folder, **settings)
    saved = FixedShapeConfig.from_folder(folder)
    assert saved is not None  # an export writes it
    replace(saved, pipeline=settings).save_pretrained(folder)


def report_folder(folder: Path, as_json: bool) -> None:
    """Prints which graphs were written, and how far they are from the original."""
    from optimum_fixedshape.config import FixedShapeConfig
    from optimum_fixedshape.graph.reader import read_contract

    saved = FixedShapeConfig.from_folder(folder)
    assert saved is not None
    contracts = {name: read_contract(folder / name) for name in saved.graphs}
    weights = {file for contract in contracts.values() for file in contract.external_data}
    sizes = {name: (folder / name).stat().st_size for name in sorted({*contracts, *weights})}
    if as_json:
        graphs = [
            {
                "name": name,
                "sizes": contract.sizes,
                "difference": saved.difference.get(name),
                **({"fidelity": saved.fidelity[name]} if name in saved.fidelity else {}),
            }
            for name, contract in contracts.items()
        ]
        facts = {"folder": folder, "task": saved.task, "graphs": graphs, "files": sizes, "pipeline": saved.pipeline}
        console.emit_json(facts)
        return
    rows = [
        (name, console.sizes_text(contract.sizes), console.bytes_text(sizes[name]), _difference(saved, name))
        for name, contract in contracts.items()
    ]
    rows += [(name, "weights", console.bytes_text(sizes[name]), "") for name in sorted(weights)]
    columns = ("file", "shape", "size", "difference from the original")
    console.emit_tables(console.table(f"{folder}: {saved.task or 'no task'}", columns, rows, right=columns[2:]))


def _difference(saved: FixedShapeConfig, name: str) -> str | tuple[str, ...]:
    """What was measured of a graph, a line each."""
    from optimum_fixedshape.distances import fidelity_text

    if name not in saved.difference:
        return "not measured"
    facts = saved.fidelity.get(name)
    return (f"{saved.difference[name]:.1e}", *(fidelity_text(facts).split(", ") if facts else ()))
