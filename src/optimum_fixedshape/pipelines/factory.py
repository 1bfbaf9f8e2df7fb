"""`pipeline()`: transformers' function, for models whose shapes are baked in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import transformers

from optimum_fixedshape._compat import stock_pipeline
from optimum_fixedshape.config import CONFIG_NAME
from optimum_fixedshape.errors import InvalidModelError, ProcessorError, UnsupportedTaskError
from optimum_fixedshape.hub import HubOptions, hub_among
from optimum_fixedshape.models.auto import Identity, identify_model
from optimum_fixedshape.models.base import FixedShapeMixin
from optimum_fixedshape.processors.auto import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoTokenizer,
    AutoVideoProcessor,
)
from optimum_fixedshape.processors.combined import is_of_kind, parts_of
from optimum_fixedshape.tasks import Overflow, Task, find_task

from . import classes
from .base import FixedShapePipeline
from .processors import KINDS, needed_processors, overflow_of, with_article

_OF_MODELS = {
    *("framework", "device_map", "dtype", "torch_dtype"),
    *("cache_dir", "force_download", "local_files_only", "subfolder", "file_name", "variant"),
}
_PARTS = {*("model", "task", "processor", "args_parser", "device", "modelcard", "binary_output"), *KINDS}
"""Arguments of pipeline classes that make the pipeline."""


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
        task: transformers' name of the task, or an alias; by default the one that the model is for, by what is saved
            with it, or by its graph as `AutoModelForONNX` reads it.
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
        model_kwargs: Arguments of the model's `from_pretrained`. Those that say where it is may as well be given
            directly: ``subfolder=``, ``file_name=``, ``variant=``, ``cache_dir=``, ``local_files_only=``.
        pipeline_class: A pipeline class to use in place of the task's own.
        **kwargs: All else that transformers' `pipeline` or the task's pipeline takes (``batch_size=``, ``top_k=``).
            By default what is saved with the graphs, as by ``optimum-fixedshape export --with-inference``.

    Raises:
        GraphNotFoundError: There is no graph.
        ProcessorError: A processor that the task needs is missing, or one is of the wrong kind for the task.
        UnsupportedTaskError: The task is unknown, or the model is for another.
    """
    _check_model(model, task)
    loading = dict(model_kwargs or {}) | {name: kwargs.pop(name) for name in _OF_MODELS & kwargs.keys()}
    hub = hub_among({**loading, "revision": revision, "token": token})
    identity = _identity_of(model, task, config, hub, loading.get("file_name"))
    row = identity.task
    if row is None:
        raise UnsupportedTaskError("Pass task=, such as 'text-classification': the model does not tell it.", task=None)
    pipeline_class = _pipeline_class(row, pipeline_class)
    options = hub.for_transformers() | ({} if trust_remote_code is None else {"trust_remote_code": trust_remote_code})
    if not isinstance(model, FixedShapeMixin):
        model = identity.load(model, config=config, **{**loading, **options})
    apart = zip(KINDS, (tokenizer, image_processor, feature_extractor, video_processor), strict=True)
    given = {kind: each for kind, each in apart if each is not None}
    combined = data_processor if processor is None else processor
    processors = _processors(given, combined, model, row, options, use_fast)
    name = task if task and row.name == "translation" else row.name  # which may name the languages
    settings = {**_saved_settings(model, row), **kwargs}
    if asked := overflow or overflow_of(processors):
        settings["overflow"] = asked
    return pipeline_class(model=model, **processors, task=name, **settings)


def _saved_settings(model: FixedShapeMixin, row: Task) -> Mapping[str, Any]:
    """The arguments that are saved with the graphs, where they were for this task.

    Raises:
        InvalidModelError: One is no setting, but what a pipeline is made of: that is the caller's to choose.
    """
    saved = model.fixed_shape_config
    if not saved.pipeline or saved.task != row.name:
        return {}
    if wrong := sorted(_PARTS & saved.pipeline.keys()):
        raise InvalidModelError(
            f"{CONFIG_NAME} of {model.home} sets {', '.join(wrong)} of the pipeline, which only the caller may.",
            path=str(model.home / CONFIG_NAME),
        )
    return saved.pipeline


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


def _identity_of(model: Any, task: str | None, config: Any, hub: HubOptions, file_name: str | None) -> Identity:
    """What the model is for, or is to be used for."""
    if not isinstance(model, FixedShapeMixin):
        return identify_model(model, task=task, config=config, file_name=file_name, hub=hub)
    name = task or model.fixed_shape_config.task or (model.task and model.task.name)
    # Where models of several kinds have the task, the row is that of the model's kind.
    return Identity(find_task(name, model=model.task.model if model.task else None) if name else None)


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
