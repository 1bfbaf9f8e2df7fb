"""ONNX graphs with baked-in shapes that behave, inside Hugging Face code, like the PyTorch models they came from."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AutoFeatureExtractor": "processors.auto:AutoFeatureExtractor",
    "AutoImageProcessor": "processors.auto:AutoImageProcessor",
    "AutoModel": "models.classes:ORTModelForFeatureExtraction",
    "AutoModelForAudioClassification": "models.classes:ORTModelForAudioClassification",
    "AutoModelForAudioFrameClassification": "models.classes:ORTModelForAudioFrameClassification",
    "AutoModelForAudioXVector": "models.classes:ORTModelForAudioXVector",
    "AutoModelForCTC": "models.classes:ORTModelForCTC",
    "AutoModelForCausalLM": "models.classes:ORTModelForCausalLM",
    "AutoModelForDepthEstimation": "models.classes:ORTModelForDepthEstimation",
    "AutoModelForDocumentQuestionAnswering": "models.classes:ORTModelForDocumentQuestionAnswering",
    "AutoModelForImageClassification": "models.classes:ORTModelForImageClassification",
    "AutoModelForMaskedLM": "models.classes:ORTModelForMaskedLM",
    "AutoModelForMultipleChoice": "models.classes:ORTModelForMultipleChoice",
    "AutoModelForONNX": "models.auto:AutoModelForONNX",
    "AutoModelForObjectDetection": "models.classes:ORTModelForObjectDetection",
    "AutoModelForQuestionAnswering": "models.classes:ORTModelForQuestionAnswering",
    "AutoModelForSemanticSegmentation": "models.classes:ORTModelForSemanticSegmentation",
    "AutoModelForSeq2SeqLM": "models.classes:ORTModelForSeq2SeqLM",
    "AutoModelForSequenceClassification": "models.classes:ORTModelForSequenceClassification",
    "AutoModelForSpeechSeq2Seq": "models.classes:ORTModelForSpeechSeq2Seq",
    "AutoModelForTokenClassification": "models.classes:ORTModelForTokenClassification",
    "AutoModelForVideoClassification": "models.classes:ORTModelForVideoClassification",
    "AutoModelForVision2Seq": "models.classes:ORTModelForVision2Seq",
    "AutoModelForZeroShotImageClassification": "models.classes:ORTModelForZeroShotImageClassification",
    "AutoProcessor": "processors.auto:AutoProcessor",
    "AutoTokenizer": "processors.auto:AutoTokenizer",
    "AutoVideoProcessor": "processors.auto:AutoVideoProcessor",
    "Batcher": "batching:Batcher",
    "FixedShapeConfig": "config:FixedShapeConfig",
    "FixedShapeError": "errors:FixedShapeError",
    "InputTooLongError": "errors:InputTooLongError",
    "InvalidModelError": "errors:InvalidModelError",
    "ONNXAutoProcessor": "processors.auto:ONNXAutoProcessor",
    "ORTModelForAudioClassification": "models.classes:ORTModelForAudioClassification",
    "ORTModelForAudioFrameClassification": "models.classes:ORTModelForAudioFrameClassification",
    "ORTModelForAudioXVector": "models.classes:ORTModelForAudioXVector",
    "ORTModelForCTC": "models.classes:ORTModelForCTC",
    "ORTModelForCausalLM": "models.classes:ORTModelForCausalLM",
    "ORTModelForCustomTasks": "models.classes:ORTModelForCustomTasks",
    "ORTModelForDepthEstimation": "models.classes:ORTModelForDepthEstimation",
    "ORTModelForDocumentQuestionAnswering": "models.classes:ORTModelForDocumentQuestionAnswering",
    "ORTModelForFeatureExtraction": "models.classes:ORTModelForFeatureExtraction",
    "ORTModelForImageClassification": "models.classes:ORTModelForImageClassification",
    "ORTModelForMaskedLM": "models.classes:ORTModelForMaskedLM",
    "ORTModelForMultipleChoice": "models.classes:ORTModelForMultipleChoice",
    "ORTModelForObjectDetection": "models.classes:ORTModelForObjectDetection",
    "ORTModelForQuestionAnswering": "models.classes:ORTModelForQuestionAnswering",
    "ORTModelForSemanticSegmentation": "models.classes:ORTModelForSemanticSegmentation",
    "ORTModelForSeq2SeqLM": "models.classes:ORTModelForSeq2SeqLM",
    "ORTModelForSequenceClassification": "models.classes:ORTModelForSequenceClassification",
    "ORTModelForSpeechSeq2Seq": "models.classes:ORTModelForSpeechSeq2Seq",
    "ORTModelForTokenClassification": "models.classes:ORTModelForTokenClassification",
    "ORTModelForVideoClassification": "models.classes:ORTModelForVideoClassification",
    "ORTModelForVision2Seq": "models.classes:ORTModelForVision2Seq",
    "ORTModelForZeroShotAudioClassification": "models.classes:ORTModelForZeroShotAudioClassification",
    "ORTModelForZeroShotImageClassification": "models.classes:ORTModelForZeroShotImageClassification",
    "ShapeContract": "contract:ShapeContract",
    "ShapeLadder": "ladder:ShapeLadder",
    "bench_model": "bench:bench_model",
    "check_model": "checking.check:check_model",
    "detect_task": "detecting:detect_task",
    "export_model": "export.folder:export_model",
    "generate_inputs": "feeds:generate_inputs",
    "pin_shapes": "pinning:pin_shapes",
    "pipeline": "pipelines.factory:pipeline",
    "read_contract": "graph.reader:read_contract",
    "register_pipelines": "pipelines.registry:register_pipelines",
    "report_ladder": "ladder_report:report_ladder",
    "suggest_ladder": "suggesting:suggest_ladder",
    "write_config": "bare:write_config",
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
