"""`pipeline()`: transformers' function, for models whose shapes are baked in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from optimum_fixedshape._compat import stock_pipeline
from optimum_fixedshape.config import FixedShapeConfig
from optimum_fixedshape.errors import GraphNotFoundError, ProcessorError, UnsupportedTaskError
from optimum_fixedshape.hub import HubOptions
from optimum_fixedshape.models import classes as model_classes
from optimum_fixedshape.models.base import FixedShapeMixin
from optimum_fixedshape.processors.auto import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
)
from optimum_fixedshape.processors.combined import is_of_kind, parts_of
from optimum_fixedshape.repo import fetch_graphs, holds_torch_model
from optimum_fixedshape.tasks import Overflow, Task, find_task, task_of_architectures, tasks_called

from . import classes
from .base import FixedShapePipeline
from .processors import KINDS, needed_processors, with_article

_OF_WEIGHTS = ("framework", "device_map", "dtype", "torch_dtype")


def pipeline(
    task: str | None = None,
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    feature_extractor: Any = None,
    image_processor: Any = None,
    *,
    video_processor: Any = None,
    processor: Any = None,
    data_processor: Any = None,
    overflow: Overflow | None = None,
    revision: str | None = None,
    use_fast: bool = True,
    token: bool | str | None = None,
    trust_remote_code: bool | None = None,
    model_kwargs: Mapping[str, Any] | None = None,
    pipeline_class: Any = None,
    **kwargs: Any,
) -> Any:
    """Returns transformers' pipeline for the task, on a graph of any shape.

    Args:
        task: transformers' name of the task, or an alias; by default the one that the model is for.
        model: A model of this package, or the ``.onnx`` file, folder or Hub repo to load it from.
        config: The model's configuration, where it is not beside the model.
        tokenizer: A tokenizer, or the folder or Hub repo to load it from. By default the one beside the model.
        feature_extractor: A feature extractor, likewise.
        image_processor: An image processor, likewise.
        video_processor: A video processor, or an image processor that takes clips, likewise.
        processor: Any of them, or a combination such as `CLIPProcessor`.
        data_processor: The same as `processor`, under optimum's name for it.
        overflow: What happens to items longer than the graph: ``"error"``, ``"truncate"`` or ``"window"``.
        revision: Branch, tag or commit on the Hub.
        use_fast: As in transformers.
        token: For private repos.
        trust_remote_code: As in transformers.
        model_kwargs: Arguments of the model's `from_pretrained`.
        pipeline_class: A pipeline class to use in place of the task's own.
        **kwargs: All else that transformers' `pipeline` or the task's pipeline takes (``batch_size=``, ``top_k=``).

    Raises:
        GraphNotFoundError: There is no graph.
        ProcessorError: A processor that the task needs is missing, or one is of the wrong kind for the task.
        UnsupportedTaskError: The task is unknown, or the model is for another.
    """
    _check_model(model, task)
    loading = dict(model_kwargs or {})
    cached = {name: loading[name] for name in ("cache_dir", "local_files_only", "force_download") if name in loading}
    hub = HubOptions(revision, token, **cached)
    row = _row_of(task, model, hub)
    pipeline_class = _pipeline_class(row, pipeline_class)
    loading |= {name: kwargs.pop(name) for name in _OF_WEIGHTS if name in kwargs}
    options = hub.for_transformers() | ({} if trust_remote_code is None else {"trust_remote_code": trust_remote_code})
    if not isinstance(model, FixedShapeMixin):
        model = getattr(model_classes, row.model).from_pretrained(model, config=config, **{**loading, **options})
    apart = zip(KINDS, (tokenizer, image_processor, feature_extractor, video_processor), strict=True)
    given = {kind: each for kind, each in apart if each is not None}
    combined = data_processor if processor is None else processor
    processors = _processors(given, combined, model, row, options, use_fast)
    name = task if task and row.name == "translation" else row.name  # which may name the languages
    return pipeline_class(model=model, **processors, overflow=overflow, task=name, **kwargs)


def _check_model(model: Any, task: str | None) -> None:
    if isinstance(model, transformers.PreTrainedModel):
        raise UnsupportedTaskError(
            f"{type(model).__name__} is a PyTorch model, which transformers.pipeline runs. To run it as a graph, save "
            "it to a folder and pass that folder.",
            task=task,
        )
    if not isinstance(model, (FixedShapeMixin, str, Path)):
        given = "nothing" if model is None else type(model).__name__
        raise UnsupportedTaskError(
            f"model= must be a model of this package, an .onnx file, a folder or a Hub repo id, got {given}.", task=task
        )


def _row_of(task: str | None, model: Any, hub: HubOptions) -> Task:
    """The row of the task; where models of several kinds have it, that of the model's kind."""
    if task is None:
        return _task_of(model, hub)
    if len(tasks_called(task)) < 2:
        return find_task(task)
    told = model.task if isinstance(model, FixedShapeMixin) else _task_of_architectures(model, hub)
    return find_task(task, model=told.model if told else None)


def _task_of(model: Any, hub: HubOptions) -> Task:
    """The task that the model was made for, by what is saved with it."""
    if isinstance(model, FixedShapeMixin):
        name = model.fixed_shape_config.task or (model.task and model.task.name)
        row = find_task(name) if name else None
    else:
        row = _saved_task(model, hub)
    if row is None:
        raise UnsupportedTaskError("Pass task=, such as 'text-classification': the model does not tell it.", task=None)
    return row


def _saved_task(source: str | Path, hub: HubOptions) -> Task | None:
    folder, beside = _folder_of(source, hub)
    told = _task_of_architectures(source, hub)
    for saved in (beside, FixedShapeConfig.from_folder(folder)):
        if saved and saved.task:
            return find_task(saved.task, model=told.model if told else None)
    return told


def _folder_of(source: str | Path, hub: HubOptions) -> tuple[str | Path, FixedShapeConfig | None]:
    """The folder of a model's config, and what is saved beside its graphs; of a PyTorch model the source itself."""
    try:
        folder, _, saved = fetch_graphs(source, None, hub)
    except GraphNotFoundError:
        if not holds_torch_model(source, hub):
            raise
        return source, None
    return folder, saved


def _task_of_architectures(source: str | Path, hub: HubOptions) -> Task | None:
    try:
        config = transformers.AutoConfig.from_pretrained(_folder_of(source, hub)[0], **hub.for_transformers())
    except (OSError, ValueError):
        return None
    return task_of_architectures(config.architectures or ())


def _pipeline_class(row: Task, wanted: Any) -> Any:
    """The task's pipeline class, or the caller's own with ours before it."""
    if row.pipeline is None:
        raise UnsupportedTaskError(
            f"transformers has no pipeline for {row.name}; call the model itself.", task=row.name
        )
    ours = getattr(classes, row.pipeline, None)
    if ours is None:
        raise UnsupportedTaskError(
            f"transformers {transformers.__version__} has no pipeline for {row.name}; call the model itself.",
            task=row.name,
        )
    if wanted is None or issubclass(ours, wanted):
        return ours
    if issubclass(wanted, FixedShapePipeline):
        return wanted
    stock = stock_pipeline(row.pipeline)
    first = ours if stock and issubclass(wanted, stock) else FixedShapePipeline
    return type(wanted.__name__, (first, wanted), {"fixed_task": row.name, "__doc__": wanted.__doc__})


def _processors(
    given: Mapping[str, Any], combined: Any, model: Any, row: Task, options: Mapping[str, Any], use_fast: bool
) -> dict[str, Any]:
    """The processors that the task needs: those that were given, and the others from where the user said."""
    is_place = combined is None or isinstance(combined, (str, Path))
    parts = {} if is_place else parts_of(combined)
    needed, found = needed_processors(row, model.contract), {}
    if parts and not any(is_of_kind(part, kind) for part in parts.values() for kind in needed):
        raise _wrong_kind(row, needed[0], combined)
    for kind in needed:
        known = {**parts, **given}
        processor = known.get(kind, known.get("image_processor") if kind == "video_processor" else None)
        if processor is None or isinstance(processor, (str, Path)):
            extra = {"use_fast": use_fast} if kind == "tokenizer" else {}
            place = processor or (combined if is_place else None)
            processor = _AUTO[kind].from_model(model, **{kind: place}, **options, **extra)
        elif not is_of_kind(processor, kind):
            raise _wrong_kind(row, kind, processor)
        found[kind] = processor
    return found


def _wrong_kind(row: Task, kind: str, processor: Any) -> ProcessorError:
    wanted, auto = with_article(kind), _AUTO[kind].__name__
    return ProcessorError(
        f"The task {row.name} needs {wanted}, got a {type(processor).__name__}. "
        f"{auto}.from_model(model) makes the right one.",
        expected=wanted,
        given=type(processor).__name__,
    )


_AUTO: Mapping[str, Any] = {
    "tokenizer": AutoTokenizer,
    "image_processor": AutoImageProcessor,
    "feature_extractor": AutoFeatureExtractor,
    "video_processor": AutoVideoProcessor,
}
