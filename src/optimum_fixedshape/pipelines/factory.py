"""`pipeline()`: transformers' function, for models whose shapes are baked in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from ..errors import ProcessorError, UnsupportedTaskError
from ..models import classes as model_classes
from ..models.base import FixedShapeMixin
from ..processors.auto import AutoTokenizer
from ..tasks import Overflow, Task, find_task
from . import classes


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
        pipeline_class: A class to use in place of the task's own.
        **kwargs: All else that transformers' `pipeline` or the task's pipeline takes (``batch_size=``, ``top_k=``, ...).

    Raises:
        ProcessorError: There is no tokenizer, or the processor is of the wrong kind for the task.
        UnsupportedTaskError: The task is unknown, or the model is for another.
    """
    hub = {"revision": revision, "token": token, "trust_remote_code": trust_remote_code}
    hub = {name: value for name, value in hub.items() if value is not None}
    if isinstance(model, transformers.PreTrainedModel):
        raise UnsupportedTaskError(
            f"{type(model).__name__} is a PyTorch model, which transformers.pipeline runs. To run it as a graph, save "
            "it to a folder and pass that folder.",
            task=task,
        )
    row = find_task(task) if task is not None else _task_of(model)
    if isinstance(model, (str, Path)):
        load = getattr(model_classes, row.model).from_pretrained
        model = load(model, config=config, **hub, **(model_kwargs or {}))
    if not isinstance(model, FixedShapeMixin):
        raise UnsupportedTaskError(
            f"model= must be a model of this package, an .onnx file, a folder or a Hub repo id, got {type(model).__name__}.",
            task=task,
        )
    processor = _tokenizer(data_processor, tokenizer, model, row, hub | {"use_fast": use_fast})
    made_by = pipeline_class or getattr(classes, row.pipeline or "", None)
    if made_by is None:
        raise UnsupportedTaskError(f"transformers has no pipeline for {row.name}; call the model itself.", task=row.name)
    for unused in ("feature_extractor", "image_processor", "processor", "framework", "device_map", "dtype", "torch_dtype"):
        kwargs.pop(unused, None)
    return made_by(model=model, tokenizer=processor, overflow=overflow, task=row.name, **kwargs)


def _task_of(model: Any) -> Task:
    if isinstance(model, FixedShapeMixin) and model.task is not None:
        return find_task(model.fixed_shape_config.task or model.task.name)
    raise UnsupportedTaskError("Pass task=, such as 'text-classification': the model does not tell it.", task=None)


def _tokenizer(data_processor: Any, tokenizer: Any, model: Any, row: Task, options: dict[str, Any]) -> Any:
    given = data_processor if tokenizer is None else tokenizer
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
