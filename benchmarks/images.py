"""Contenders that look at images. Each function loads one, and returns its calls by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from .inputs import labels, photograph
from .workers import Calls

SINGLE = "one image"
LABELS = (10, 100, 1000)
CLASSIFICATION, ZERO_SHOT = "image-classification", "zero-shot-image-classification"
_MODELS = {CLASSIFICATION: "ModelForImageClassification", ZERO_SHOT: "ModelForZeroShotImageClassification"}


def pytorch(folder: str, task: str) -> Calls:
    """The pipeline of transformers on PyTorch."""
    import transformers

    return _calls(transformers.pipeline(task, model=str(Path(folder) / "original"), use_fast=False), task)


def stock(folder: str, task: str) -> Calls:
    """The pipeline of transformers on stock optimum-onnx."""
    import optimum.onnxruntime

    return _calls(_on_graph_of(folder, task, "stock", getattr(optimum.onnxruntime, f"ORT{_MODELS[task]}")), task)


def openvino(folder: str, task: str) -> Calls:
    """The pipeline of transformers on OpenVINO, through optimum-intel."""
    import optimum.intel

    return _calls(_on_graph_of(folder, task, "openvino", getattr(optimum.intel, f"OV{_MODELS[task]}")), task)


def ours(folder: str, task: str, dtype: str) -> Calls:
    """This package's pipeline."""
    import optimum_fixedshape

    return _calls(optimum_fixedshape.pipeline(task, model=str(Path(folder) / dtype)), task)


def with_labels(count: int) -> str:
    """Returns the name of the call with so many labels."""
    return f"{count} labels"


def _on_graph_of(folder: str, task: str, part: str, model_class: Any) -> Any:
    import transformers

    place = Path(folder) / part
    return transformers.pipeline(
        task,
        model=model_class.from_pretrained(place),
        image_processor=transformers.AutoImageProcessor.from_pretrained(place, use_fast=False),
        tokenizer=transformers.AutoTokenizer.from_pretrained(place) if task == ZERO_SHOT else None,
    )


def _calls(pipe: Any, task: str) -> Calls:
    image = photograph()
    if task == CLASSIFICATION:
        return {SINGLE: partial(pipe, image)}
    return {with_labels(count): _asking(pipe, image, labels(count)) for count in LABELS}


def _asking(pipe: Any, image: Any, names: list[str]) -> Callable[[], Any]:
    return partial(pipe, image, candidate_labels=names)
