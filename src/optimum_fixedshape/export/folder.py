"""From a transformers model to a folder of fixed graphs: one a rung, one file of weights, processors and configs."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from tqdm.auto import tqdm

from optimum_fixedshape.changes import Change, changed_model
from optimum_fixedshape.choosing import MAIN_GRAPH
from optimum_fixedshape.config import FixedShapeConfig, free_folder
from optimum_fixedshape.contract import BATCH, SEQUENCE
from optimum_fixedshape.distances import Distance
from optimum_fixedshape.errors import InvalidArgumentError, InvalidModelError, UnsupportedTaskError
from optimum_fixedshape.graph.weights import save_rungs
from optimum_fixedshape.hub import HubOptions, is_repo_id
from optimum_fixedshape.models.remote_code import write_remote_code
from optimum_fixedshape.paths import path_of
from optimum_fixedshape.repo import Sizes
from optimum_fixedshape.sentence_config import copy_sentence_config
from optimum_fixedshape.tasks import Task, find_task, task_of_architectures, tasks_called

from .examples import Axes, axes_of, example_of, keys_of
from .measuring import MEASURED_UP_TO, ROWS_OF_SMALLER, measured, with_measures
from .pixels import PixelsInGraph, giving_bytes, pixels_of
from .shapes import Combination, combinations_of
from .steps import Step, stepped
from .torch_export import export_rung
from .writers import export_writer, writer_distance

logger = logging.getLogger(__name__)


def export_model(
    model_or_id: Any,
    output: str | Path,
    *,
    task: str | None = None,
    shapes: Sizes | None = None,
    processor: Any = None,
    optimize: bool = False,
    dtype: Literal["fp16", "int8"] | None = None,
    calibration: Iterable[Mapping[str, Any]] | None = None,
    preprocess_in_graph: bool = False,
    progress: bool = True,
    **hub_options: Any,
) -> Path:
    """Returns the folder `output`, with the model as graphs whose shapes are baked in.

    The largest graph is ``model.onnx``, which stock optimum loads. Each graph of up to 2048 tokens is compared with the
    original on random rows with padding; the largest difference is saved in ``fixedshape_config.json``, and for smaller
    graphs how many answers it changed.

    Args:
        model_or_id: A PyTorch model of transformers, or the folder or Hub repo to load it from.
        output: The folder to write; created if need be. Graphs of an earlier export are replaced.
        task: transformers' name of the task. By default what the model's class or its config says.
        shapes: Sizes by shape key; a list makes a ladder, two lists one graph for each combination. By default
            8 rows of 16, 32, 64 and 128 tokens for texts; else one row of the size that the model or its processor was
            made for, and 10 seconds at 16 kHz for waveforms. Models that write take ``context_length`` and
            ``prefill_length`` (by default one row of 256 and of 1024 tokens, as far as the model has positions, in runs
            of 64), and are written as a graph for each part and size: stock optimum cannot run those.
        processor: Saved beside the graphs: a tokenizer, an image processor, a combination, ... By default that of
            `model_or_id`, where that is a folder or repo.
        optimize: Fuse attention, norms and activations. Such graphs run in onnxruntime alone.
        dtype: ``"fp16"`` for half precision, ``"int8"`` for quantized weights. By default graphs compute in float32.
        calibration: Inputs of the model as a processor makes them, for the ranges of static ``"int8"`` graphs. By
            default such graphs find their ranges when they run, and convolutions stay as they are.
        preprocess_in_graph: Rescale and normalize images inside the graphs, which then take bytes, ``uint8``. The
            processor is saved such that it gives them.
        progress: Show a progress bar.
        **hub_options: Passed on to transformers' `from_pretrained` (``revision=``, ``token=``, ...).

    Raises:
        ProcessorError: `preprocess_in_graph` needs a processor that rescales or normalizes.
        InvalidArgumentError: There is no such `dtype`, or `calibration` without one that needs it, or of a model that
            writes; or `model_or_id` or `output` is nothing of the kind.
        UnsupportedTaskError: The task is unknown, cannot be told, or is not the model's.
        ShapeMismatchError: A key of `shapes` is unknown, or a size is none that the model has.
        ExportError: PyTorch cannot export the model.
        MissingExtraError: The ``export`` extra is not installed.
        FileExistsError: `output` is a file.
        NotADirectoryError: `model_or_id` is a file, such as a graph.
    """
    folder = free_folder(output)
    row = _task_of(model_or_id, task, hub_options)
    model = model_or_id
    if isinstance(model_or_id, (str, Path)):
        model = getattr(transformers, row.auto).from_pretrained(model_or_id, dtype=torch.float32, **hub_options)
        processor = _processor_of(model_or_id, hub_options) if processor is None else processor
    if row.name == "feature-extraction" and model.main_input_name == "pixel_values":
        row = find_task("image-feature-extraction")
    samples = None if calibration is None else tuple(calibration)
    if samples is not None and row.writes:
        raise InvalidArgumentError(
            f"calibration= is not for models that write, such as one for {row.name}. Leave it out."
        )
    change = Change(optimize, dtype, samples, model.config.to_dict())
    stale = _graphs_in(folder)
    pixels = pixels_of(processor, axes_of(model, row)) if preprocess_in_graph else None
    with _evaluated(model):
        rows = ROWS_OF_SMALLER if dtype else 1
        steps: list[Step] = [partial(changed_model, change=change), *([pixels.put_into] if pixels else [])]
        job = _Job(model, row, folder, shapes, processor, rows, steps=tuple(steps), pixels=pixels)
        names, distances = (_export_writer if row.writes else _export_plain)(job, progress=progress)
        saved = FixedShapeConfig(names, task=row.name, dtype=dtype, optimized=optimize, original=_repo_of(model))
        _save_configs(model, folder, saved)
        write_remote_code(folder, row)
        if row.writes:
            distances = dict.fromkeys(names, writer_distance(model, row, folder))
        with_measures(saved, distances).save_pretrained(folder)
    for name in stale - set(names):
        (folder / name).unlink(missing_ok=True)
    if processor is not None:
        (giving_bytes(processor) if pixels else processor).save_pretrained(folder)
    if row.name == "feature-extraction" and isinstance(model_or_id, (str, Path)):
        known = {each.name for each in fields(HubOptions)}
        asked = {name: value for name, value in hub_options.items() if name in known}
        copy_sentence_config(model_or_id, folder, HubOptions(**asked))
    return folder


def _repo_of(model: Any) -> str | None:
    """The Hub repo that a model was loaded from."""
    name = getattr(model.config, "_name_or_path", None) or ""
    return name if is_repo_id(name) and not Path(name).exists() else None


def _save_configs(model: Any, folder: Path, fixed_shape_config: FixedShapeConfig) -> None:
    fixed_shape_config.save_pretrained(folder)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if (generation_config := getattr(model, "generation_config", None)) is not None:
        generation_config.save_pretrained(folder)


@dataclass(frozen=True)
class _Job:
    """What is exported, and what is done to each of its graphs.

    Attributes:
        model: The PyTorch model.
        row: Its task.
        folder: Where the graphs go.
        shapes: The sizes that were asked for.
        processor: The model's processor.
        rows: How many rows each graph is compared on at least.
        steps: Each takes a graph as it was exported, or as the step before left it, and returns what becomes of it.
        pixels: What the graphs do to images themselves.
    """

    model: Any
    row: Task
    folder: Path
    shapes: Sizes | None
    processor: Any
    rows: int
    steps: tuple[Step, ...]
    pixels: PixelsInGraph | None


def _export_plain(job: _Job, *, progress: bool) -> tuple[tuple[str, ...], dict[str, Distance]]:
    """The names of the graphs, and how far each is from the original."""
    model, row, folder = job.model, job.row, job.folder
    axes = axes_of(model, row)
    combinations = combinations_of(job.shapes, row, model.config, keys_of(axes), job.processor)
    names = [MAIN_GRAPH, *("model_" + "x".join(map(str, sizes.values())) + ".onnx" for sizes in combinations[1:])]
    bar = tqdm(combinations, desc=f"Exporting {type(model).__name__}", unit="graph", disable=not progress)
    outputs = _outputs_of(model, row, axes, combinations[-1])
    graphs = (export_rung(model, example_of(model, axes, sizes), outputs) for sizes in bar)
    save_rungs(zip(names, stepped(graphs, job.steps), strict=True), folder=folder)
    return tuple(names), {
        name: measured(model, axes, outputs, folder / name, sizes, rows=job.rows, pixels=job.pixels)
        for name, sizes in zip(names, combinations, strict=True)
        if sizes.get(SEQUENCE, 0) <= MEASURED_UP_TO
    }


def _export_writer(job: _Job, *, progress: bool) -> tuple[tuple[str, ...], dict[str, Distance]]:
    """The names of the graphs; how far they are from the original shows once the folder is whole."""
    given = {"shapes": job.shapes, "processor": job.processor, "steps": job.steps}
    return export_writer(job.model, job.row, job.folder, **given, progress=progress), {}


def _task_of(model_or_id: Any, asked: str | None, hub_options: Mapping[str, Any]) -> Task:
    if isinstance(model_or_id, (str, Path)):
        if path_of(model_or_id).is_file():
            raise NotADirectoryError(
                f"{model_or_id} is a file, and a PyTorch model is a folder or a Hub repo. For a graph there is "
                "pin_shapes, or `optimum-fixedshape pin`."
            )
        if asked and len(tasks_called(asked)) < 2:
            return find_task(asked)
        architectures = transformers.AutoConfig.from_pretrained(model_or_id, **hub_options).architectures or []
    elif hasattr(model_or_id, "config"):
        architectures = [type(model_or_id).__name__]
    else:
        raise InvalidArgumentError(
            f"A PyTorch model of transformers, a folder or a Hub repo id is needed, got {model_or_id!r:.80}."
        )
    told = task_of_architectures(architectures)
    wanted = find_task(asked, model=told.model if told else None) if asked else told
    name = ", ".join(architectures) or "a model without architectures"
    if wanted is None:
        raise UnsupportedTaskError(f"The task of {name} cannot be told. Pass task=.", task=None)
    if told is not None and told.auto != wanted.auto:
        raise UnsupportedTaskError(
            f"{name} is a model for {told.name}; for {wanted.name} load it with {wanted.auto}.", task=wanted.name
        )
    return wanted


def _processor_of(model_id: str | Path, hub_options: Mapping[str, Any]) -> Any:
    """The processor of a model: a combination where there is one, else what there is."""
    reasons = []
    for auto in ("AutoProcessor", "AutoTokenizer", "AutoImageProcessor", "AutoFeatureExtractor"):
        try:
            return getattr(transformers, auto).from_pretrained(model_id, **hub_options)
        except Exception as error:  # transformers raises anything where files are missing
            reasons.append(f"{auto}: {error}")
    logger.warning("%s has no processor that could be saved with the graphs: %s", model_id, reasons[0])
    return None


def _graphs_in(folder: Path) -> set[str]:
    try:
        saved = FixedShapeConfig.from_folder(folder)
    except InvalidModelError:
        return set()
    return set(saved.graphs) if saved else set()


@contextmanager
def _evaluated(model: Any) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _outputs_of(model: Any, row: Task, axes: Axes, sizes: Combination) -> tuple[str, ...]:
    small = {**sizes, BATCH: 1, **({SEQUENCE: 4} if SEQUENCE in sizes else {})}
    with torch.no_grad():
        output = model(**example_of(model, axes, small), return_dict=True)
    if found := tuple(name for name in row.outputs if output.get(name) is not None):
        return found
    given = f"{type(model).__name__} gives {', '.join(output)}"
    raise UnsupportedTaskError(f"{given}, and {row.name} needs {', '.join(row.outputs)}.", task=row.name)
