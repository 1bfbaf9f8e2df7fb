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
from optimum_fixedshape.processors.auto import AutoTokenizer
from optimum_fixedshape.repo import find_graphs, holds_torch_model
from optimum_fixedshape.tasks import Overflow, Task, find_task, task_of_architectures

from . import classes
from .base import FixedShapePipeline

_OF_WEIGHTS = ("framework", "device_map", "dtype", "torch_dtype")


def pipeline(
    task: str | None = None,
    model: Any = None,
    config: Any = None,
    tokenizer: Any = None,
    *,
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
        data_processor: The same as `tokenizer`, under the name that fits all kinds of processors.
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
        ProcessorError: There is no tokenizer, or the processor is of the wrong kind for the task.
        UnsupportedTaskError: The task is unknown, or the model is for another.
    """
    _check_model(model, task)
    loading = dict(model_kwargs or {})
    cached = {name: loading[name] for name in ("cache_dir", "local_files_only", "force_download") if name in loading}
    hub = HubOptions(revision, token, **cached)
    row = find_task(task) if task is not None else _task_of(model, hub)
    pipeline_class = _pipeline_class(row, pipeline_class)
    loading |= {name: kwargs.pop(name) for name in _OF_WEIGHTS if name in kwargs}
    options = hub.for_transformers() | ({} if trust_remote_code is None else {"trust_remote_code": trust_remote_code})
    if not isinstance(model, FixedShapeMixin):
        model = getattr(model_classes, row.model).from_pretrained(model, config=config, **{**loading, **options})
    given = data_processor if tokenizer is None else tokenizer
    processor = _tokenizer(given, model, row, {**options, "use_fast": use_fast})
    return pipeline_class(model=model, tokenizer=processor, overflow=overflow, task=row.name, **kwargs)


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
    folder: str | Path = source
    try:
        graphs = find_graphs(source, hub=hub)
    except GraphNotFoundError:
        if not holds_torch_model(source, hub):
            raise
    else:
        folder = graphs.folder
        for saved in (graphs.config, FixedShapeConfig.from_folder(folder)):
            if saved and saved.task:
                return find_task(saved.task)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **hub.for_transformers())
    except (OSError, ValueError):
        return None
    return task_of_architectures(config.architectures or ())


def _pipeline_class(row: Task, wanted: Any) -> Any:
    """The task's pipeline class, or the caller's own with ours before it."""
    if row.pipeline is None:
        raise UnsupportedTaskError(
            f"transformers has no pipeline for {row.name}; call the model itself.", task=row.name
        )
    ours = getattr(classes, row.pipeline)
    if wanted is None or issubclass(ours, wanted):
        return ours
    if issubclass(wanted, FixedShapePipeline):
        return wanted
    stock = stock_pipeline(row.pipeline)
    first = ours if stock and issubclass(wanted, stock) else FixedShapePipeline
    return type(wanted.__name__, (first, wanted), {"fixed_task": row.name, "__doc__": wanted.__doc__})


def _tokenizer(given: Any, model: Any, row: Task, options: Mapping[str, Any]) -> Any:
    if given is None or isinstance(given, (str, Path)):
        return AutoTokenizer.from_model(model, tokenizer=given, **options)
    if not isinstance(given, transformers.PreTrainedTokenizerBase):
        raise ProcessorError(
            f"The task {row.name} reads text and needs a tokenizer, got a {type(given).__name__}. "
            "AutoTokenizer.from_model(model) makes the right one.",
            expected="a tokenizer",
            given=type(given).__name__,
        )
    return given
