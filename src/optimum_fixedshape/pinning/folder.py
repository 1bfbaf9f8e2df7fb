"""A folder of fixed graphs: one for each combination of sizes, one file of weights.

Work that was cut off goes on where it stopped: graphs that are done wait in a folder of their own inside the output,
and take their place once all of them are there.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal

from tqdm.auto import tqdm

from optimum_fixedshape.changes import Change, prepared_model
from optimum_fixedshape.config import CONFIG_NAME, FixedShapeConfig, Names, free_folder
from optimum_fixedshape.errors import ExistingFilesError, FixedShapeError, InvalidModelError
from optimum_fixedshape.graph.loading import load_model
from optimum_fixedshape.graph.pin import pin_as
from optimum_fixedshape.graph.staging import Staging
from optimum_fixedshape.graph.weights import WEIGHTS_NAME, save_rungs
from optimum_fixedshape.hub import HubOptions
from optimum_fixedshape.models.remote_code import write_remote_code
from optimum_fixedshape.paths import path_of
from optimum_fixedshape.processors.files import copy_files
from optimum_fixedshape.repo import BESIDE_GRAPHS, Roles, Sizes
from optimum_fixedshape.sessions import SessionPool
from optimum_fixedshape.tasks import Task, task_of_architectures, tasks_called

from .changes import fixed_model, key_of
from .measures import check_rows, measured_facts
from .plans import Plan, Source, source_of

logger = logging.getLogger(__name__)

STAGING_NAME = ".pinning"
_CONFIGS: Final = ("config.json", "tokenizer_config.json", "preprocessor_config.json", "processor_config.json")
_OF_OTHER_WEIGHTS: Final = (".safetensors.index.json", ".bin.index.json")


def pin_shapes(
    model: str | Path,
    output: str | Path,
    shapes: Sizes,
    *,
    optimize: bool = False,
    dtype: Literal["fp16", "int8"] | None = None,
    calibration: Iterable[Mapping[str, Any]] | None = None,
    roles: Roles | None = None,
    input_names: Names | None = None,
    file_name: str | None = None,
    subfolder: str = "",
    revision: str | None = None,
    token: bool | str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    variant: str | None = None,
    progress: bool = True,
) -> Path:
    """Returns the folder `output`, with the graphs of `model` at fixed sizes and one file of weights for all of them.

    Every graph is proven to have no open axis left anywhere, and compared with the original on random inputs; the
    largest difference is saved in ``fixedshape_config.json``. Configuration and processors come along. Nothing of
    `model` is changed, and nothing in `output` that does not belong to a model that was there before. Called again
    after it was cut off, it goes on where it stopped.

    Args:
        model: An ``.onnx`` file, a folder or a Hub repo id.
        output: The folder to write; created if need be.
        shapes: Sizes by shape key, or by the graph's own name of an axis; a list makes a ladder, two lists one graph
            for each combination. What is baked in already need not be named. Models that write take
            ``context_length`` and ``prefill_length``, and are written as a graph for each part and size.
        optimize: Fuse what onnxruntime's optimizer for transformers knows. Such graphs run in onnxruntime alone.
        dtype: ``"fp16"`` for half precision, ``"int8"`` for quantized weights. By default graphs compute as before.
        calibration: Inputs of the model as a processor makes them, for the ranges of static ``"int8"`` graphs. By
            default such graphs find their ranges when they run.
        roles: Roles of axes, where the guessed ones are wrong.
        input_names: Standard names of inputs and outputs that are called otherwise in the graph, such as
            ``{"data_0": "pixel_values"}``.
        file_name: Which graph, where there are several.
        subfolder: Folder of the repo that holds the graphs.
        revision: Branch, tag or commit on the Hub.
        token: For private repos.
        cache_dir: Where downloads are kept.
        local_files_only: Never ask the Hub, only its cache.
        variant: Which graphs, of a repo that keeps several kinds, such as ``"fp16"``.
        progress: Show a progress bar.

    Raises:
        GraphNotFoundError: There is no graph, or several to choose from.
        ShapeMismatchError: An axis is left open, or a size contradicts the graph: the message names the node that has
            another one baked in, and sizes that would work.
        InvalidModelError: A file is broken, or a shape in the graph depends on the data.
        InvalidArgumentError: There is no such `dtype`, or `calibration` without one that needs it.
        ExistingFilesError: `output` is a file, or the folder that the graphs come from.
    """
    hub = HubOptions(
        revision=revision,
        token=token,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
        subfolder=subfolder,
        variant=variant,
    )
    source = source_of(model, file_name, hub, shapes, roles, input_names)
    _check_apart(source, path_of(output, "An output folder"))
    samples = None if calibration is None else tuple(calibration)
    change = Change(optimize, dtype, samples, _json_of(source.folder / "config.json"))
    folder = free_folder(output)
    was_there = folder.exists()
    staging = Staging(folder / STAGING_NAME, key_of(source, change))
    try:
        _make_all(source, staging, change, progress=progress)
    except FixedShapeError:
        staging.close()  # it would fail again
        if not was_there:
            folder.rmdir()
        raise
    _move_in(folder, source, staging, change)
    return folder


def _make_all(source: Source, staging: Staging, change: Change, *, progress: bool) -> None:
    """Makes every graph that is not done, and does not keep more than one source in memory."""
    bar = tqdm(source.plans, desc="Pinning", unit="graph", disable=not progress)
    todo = (plan for plan in bar if not _is_done(staging, plan))
    for path, plans in groupby(todo, key=lambda plan: plan.path):
        original, pool, ready = load_model(path), SessionPool(), None
        for plan in plans:
            if ready is None:
                ready = prepared_model(original, plan.contract, change)
            if ready is not original:
                pin_as(original, plan.contract, plan.sizes)  # what is baked in has the names of its own graph here
            made = fixed_model(ready, plan, change)
            check_rows(plan, original, pool)
            measured = measured_facts(plan, staging.put(plan.name, made), pool)
            staging.finish(plan.name, measured)
            del made
        del original, ready, pool


def _is_done(staging: Staging, plan: Plan) -> bool:
    if not staging.has(plan.name):
        return False
    logger.info("%s was done before.", plan.name)
    return True


def _check_apart(source: Source, output: Path) -> None:
    """Raises an error if the output is where the graphs come from, which stay as they are."""
    homes = {source.folder.resolve(), *(plan.path.parent.resolve() for plan in source.plans)}
    if output.resolve() in homes:
        raise ExistingFilesError(
            f"{output} is the folder that the graphs come from, and they are left as they are. Choose another output.",
            files=(str(output),),
        )


def _json_of(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidModelError(f"{path} is not a valid configuration: {error}", path=str(path)) from error
    return found if isinstance(found, dict) else {}


def _move_in(folder: Path, source: Source, staging: Staging, change: Change) -> None:
    """Puts all graphs in their place at once: until the last step the folder holds the old model, or none."""
    names = tuple(plan.name for plan in source.plans)
    ready = staging.folder / "ready"
    shutil.rmtree(ready, ignore_errors=True)
    made = ((f"{name}.graph", model) for name, model in staging.models(names))
    saved = save_rungs(made, folder=ready)
    row = _row_of(source.config, change)
    facts = {name: staging.facts(name) for name in names}
    config = replace(
        source.config,
        graphs=names,
        task=row.name if row else source.config.task,
        shapes={},
        difference={name: each["difference"] for name, each in facts.items() if "difference" in each},
        fidelity={name: each["fidelity"] for name, each in facts.items() if change.dtype and "fidelity" in each},
        dtype=change.dtype or source.config.dtype,
        optimized=change.optimize or source.config.optimized,
        original=source.config.original or source.repo,
    )
    config.save_pretrained(ready)
    for name in {*_graphs_in(folder), *names}:
        (folder / name).unlink(missing_ok=True)
    if saved.weights:
        os.replace(saved.weights, folder / WEIGHTS_NAME)
    _copy_processors(source.folder, folder)
    if row and (folder / "config.json").is_file():
        write_remote_code(folder, row)
    os.replace(ready / CONFIG_NAME, folder / CONFIG_NAME)
    for name in reversed(names):
        os.replace(ready / f"{name}.graph", folder / name)
    staging.close()


def _row_of(config: FixedShapeConfig, change: Change) -> Task | None:
    """The row of the task that was saved with the graphs, or that the original's class tells."""
    told = task_of_architectures(change.config.get("architectures") or [])
    rows = tasks_called(config.task)
    return next((row for row in rows if told and row.model == told.model), rows[0] if rows else told)


def _graphs_in(folder: Path) -> tuple[str, ...]:
    try:
        saved = FixedShapeConfig.from_folder(folder)
    except InvalidModelError:
        return ()
    return saved.graphs if saved else ()


def _copy_processors(source: Path, folder: Path) -> None:
    """Copies what stands beside the graphs of a model; beside a bare graph, anything may."""
    if not any((source / name).is_file() for name in _CONFIGS):
        return
    copy_files(source, folder, _is_copied)


def _is_copied(name: str) -> bool:
    return name.endswith(BESIDE_GRAPHS) and not name.endswith(_OF_OTHER_WEIGHTS) and name != CONFIG_NAME
