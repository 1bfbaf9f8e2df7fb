"""ONNX graphs with baked-in shapes that behave, inside Hugging Face code, like the PyTorch models they came from."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AutoModel": "models.classes:ORTModelForFeatureExtraction",
    "AutoModelForMaskedLM": "models.classes:ORTModelForMaskedLM",
    "AutoModelForMultipleChoice": "models.classes:ORTModelForMultipleChoice",
    "AutoModelForQuestionAnswering": "models.classes:ORTModelForQuestionAnswering",
    "AutoModelForSequenceClassification": "models.classes:ORTModelForSequenceClassification",
    "AutoModelForTokenClassification": "models.classes:ORTModelForTokenClassification",
    "AutoProcessor": "processors.auto:AutoProcessor",
    "AutoTokenizer": "processors.auto:AutoTokenizer",
    "FixedShapeConfig": "config:FixedShapeConfig",
    "FixedShapeError": "errors:FixedShapeError",
    "InputTooLongError": "errors:InputTooLongError",
    "InvalidModelError": "errors:InvalidModelError",
    "ONNXAutoProcessor": "processors.auto:ONNXAutoProcessor",
    "ORTModelForCustomTasks": "models.classes:ORTModelForCustomTasks",
    "ORTModelForFeatureExtraction": "models.classes:ORTModelForFeatureExtraction",
    "ORTModelForMaskedLM": "models.classes:ORTModelForMaskedLM",
    "ORTModelForMultipleChoice": "models.classes:ORTModelForMultipleChoice",
    "ORTModelForQuestionAnswering": "models.classes:ORTModelForQuestionAnswering",
    "ORTModelForSequenceClassification": "models.classes:ORTModelForSequenceClassification",
    "ORTModelForTokenClassification": "models.classes:ORTModelForTokenClassification",
    "ShapeContract": "contract:ShapeContract",
    "ShapeLadder": "contract:ShapeLadder",
    "export_model": "export.folder:export_model",
    "pipeline": "pipelines.factory:pipeline",
    "read_contract": "graph.reader:read_contract",
    "register_pipelines": "pipelines.registry:register_pipelines",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _HOMES[name].partition(":")
    value = getattr(importlib.import_module(f".{module}", __name__), attribute)
    if module.startswith(("models.", "pipelines.")):
        importlib.import_module(".pipelines.registry", __name__).register_pipelines()
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
