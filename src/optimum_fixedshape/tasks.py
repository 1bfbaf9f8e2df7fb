"""One table: task, model class, pipeline class, and what comes out. Everything that depends on a task reads it here."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, TypedDict

from .errors import UnsupportedTaskError

Overflow = Literal["error", "truncate", "window"]
Modality = Literal["text", "image", "audio", "video", "multimodal"]


@dataclass(frozen=True)
class Task:
    """A row of the table.

    Attributes:
        name: transformers' name of the task.
        model: Our model class, which is also the name of optimum's.
        auto: transformers' Auto class that loads the PyTorch model.
        output: The class in ``transformers.modeling_outputs`` that the model returns, or ``"module:Class"``.
        outputs: The fields of `output` that an export writes, in order, where the model gives them.
        inputs: The arguments of the model's `forward` that an export feeds, in order, where the model takes them.
        processors: The arguments of the pipeline that hold processors; a video processor may be an image processor.
        modality: What goes in, in the words of transformers' registry of pipelines.
        pipeline: The pipeline class, or None where transformers has no pipeline for the task.
        aliases: Other names of the task.
        overflow: What a pipeline does by default with an item larger than the largest rung.
        architectures: PyTorch classes of the task that `auto` does not tell from those of other tasks.
    """

    name: str
    model: str
    auto: str
    output: str
    outputs: tuple[str, ...]
    inputs: tuple[str, ...] = ("input_ids", "attention_mask", "token_type_ids")
    processors: tuple[str, ...] = ("tokenizer",)
    modality: Modality = "text"
    pipeline: str | None = None
    aliases: tuple[str, ...] = ()
    overflow: Overflow = "error"
    architectures: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether its models write word by word: they are exported in several parts."""
        return self.model in _WRITERS


class _Kind(TypedDict):
    modality: Modality
    inputs: tuple[str, ...]
    processors: tuple[str, ...]


_IMAGE: _Kind = {
    "modality": "image",
    "inputs": ("pixel_values", "pixel_mask"),
    "processors": ("image_processor",),
}
_AUDIO: _Kind = {
    "modality": "audio",
    "inputs": ("input_values", "input_features", "attention_mask"),
    "processors": ("feature_extractor",),
}
_CLASSIFIER = ("ORTModelForSequenceClassification", "AutoModelForSequenceClassification", "SequenceClassifierOutput")
_ENCODER = ("ORTModelForFeatureExtraction", "AutoModel", "BaseModelOutputWithPooling")
_EMBEDDINGS = ("last_hidden_state", "pooler_output")

_CAUSAL = ("ORTModelForCausalLM", "AutoModelForCausalLM", "CausalLMOutputWithPast")
_SEQ2SEQ = ("ORTModelForSeq2SeqLM", "AutoModelForSeq2SeqLM", "Seq2SeqLMOutput")
_VISION2SEQ = ("ORTModelForVision2Seq", "AutoModelForImageTextToText", "Seq2SeqLMOutput")
_TEXT = ("input_ids", "attention_mask")

_WRITERS = frozenset({_CAUSAL[0], _SEQ2SEQ[0], _VISION2SEQ[0], "ORTModelForSpeechSeq2Seq"})

# Models that write come first: transformers lists some of them, such as BART, among those that fill masks, too.
TASKS: tuple[Task, ...] = (
    Task("text-generation", *_CAUSAL, ("logits",), inputs=_TEXT, pipeline="TextGenerationPipeline"),
    Task("text2text-generation", *_SEQ2SEQ, ("logits",), inputs=_TEXT, pipeline="Text2TextGenerationPipeline"),
    Task("summarization", *_SEQ2SEQ, ("logits",), inputs=_TEXT, pipeline="SummarizationPipeline"),
    Task("translation", *_SEQ2SEQ, ("logits",), inputs=_TEXT, pipeline="TranslationPipeline"),
    Task(
        "image-to-text",
        *_VISION2SEQ,
        ("logits",),
        modality="multimodal",
        inputs=("pixel_values",),
        processors=("tokenizer", "image_processor"),
        pipeline="ImageToTextPipeline",
    ),
    Task(
        "text-classification",
        *_CLASSIFIER,
        ("logits",),
        pipeline="TextClassificationPipeline",
        aliases=("sentiment-analysis",),
    ),
    Task(
        "token-classification",
        "ORTModelForTokenClassification",
        "AutoModelForTokenClassification",
        "TokenClassifierOutput",
        ("logits",),
        pipeline="TokenClassificationPipeline",
        aliases=("ner",),
        overflow="window",
    ),
    Task(
        "document-question-answering",
        "ORTModelForDocumentQuestionAnswering",
        "AutoModelForDocumentQuestionAnswering",
        "QuestionAnsweringModelOutput",
        ("start_logits", "end_logits"),
        inputs=("input_ids", "bbox", "attention_mask", "token_type_ids", "image", "pixel_values"),
        processors=("tokenizer", "image_processor"),
        modality="multimodal",
        pipeline="DocumentQuestionAnsweringPipeline",
        aliases=("document-qa",),
    ),
    Task(
        "question-answering",
        "ORTModelForQuestionAnswering",
        "AutoModelForQuestionAnswering",
        "QuestionAnsweringModelOutput",
        ("start_logits", "end_logits"),
        pipeline="QuestionAnsweringPipeline",
        overflow="window",
    ),
    Task(
        "fill-mask",
        "ORTModelForMaskedLM",
        "AutoModelForMaskedLM",
        "MaskedLMOutput",
        ("logits",),
        pipeline="FillMaskPipeline",
    ),
    Task("feature-extraction", *_ENCODER, _EMBEDDINGS, pipeline="FeatureExtractionPipeline"),
    Task("zero-shot-classification", *_CLASSIFIER, ("logits",), pipeline="ZeroShotClassificationPipeline"),
    Task(
        "multiple-choice",
        "ORTModelForMultipleChoice",
        "AutoModelForMultipleChoice",
        "MultipleChoiceModelOutput",
        ("logits",),
    ),
    Task(
        "image-classification",
        "ORTModelForImageClassification",
        "AutoModelForImageClassification",
        "ImageClassifierOutput",
        ("logits",),
        **_IMAGE,
        pipeline="ImageClassificationPipeline",
    ),
    Task(
        "object-detection",
        "ORTModelForObjectDetection",
        "AutoModelForObjectDetection",
        "transformers.models.detr.modeling_detr:DetrObjectDetectionOutput",
        ("logits", "pred_boxes"),
        **_IMAGE,
        pipeline="ObjectDetectionPipeline",
    ),
    Task(
        "image-segmentation",
        "ORTModelForSemanticSegmentation",
        "AutoModelForSemanticSegmentation",
        "SemanticSegmenterOutput",
        ("logits",),
        **_IMAGE,
        pipeline="ImageSegmentationPipeline",
        aliases=("semantic-segmentation",),
    ),
    Task(
        "depth-estimation",
        "ORTModelForDepthEstimation",
        "AutoModelForDepthEstimation",
        "DepthEstimatorOutput",
        ("predicted_depth",),
        **_IMAGE,
        pipeline="DepthEstimationPipeline",
    ),
    Task("image-feature-extraction", *_ENCODER, _EMBEDDINGS, **_IMAGE, pipeline="ImageFeatureExtractionPipeline"),
    Task(
        "audio-classification",
        "ORTModelForAudioClassification",
        "AutoModelForAudioClassification",
        "SequenceClassifierOutput",
        ("logits",),
        **_AUDIO,
        pipeline="AudioClassificationPipeline",
    ),
    Task(
        "automatic-speech-recognition",
        "ORTModelForCTC",
        "AutoModelForCTC",
        "CausalLMOutput",
        ("logits",),
        modality="multimodal",
        inputs=_AUDIO["inputs"],
        processors=("feature_extractor", "tokenizer"),
        pipeline="AutomaticSpeechRecognitionPipeline",
        aliases=("asr",),
        overflow="window",
    ),
    Task(
        "automatic-speech-recognition",
        "ORTModelForSpeechSeq2Seq",
        "AutoModelForSpeechSeq2Seq",
        "Seq2SeqLMOutput",
        ("logits",),
        modality="multimodal",
        inputs=_AUDIO["inputs"],
        processors=("feature_extractor", "tokenizer"),
        pipeline="AutomaticSpeechRecognitionPipeline",
        aliases=("asr",),
        overflow="window",
    ),
    Task(
        "audio-frame-classification",
        "ORTModelForAudioFrameClassification",
        "AutoModelForAudioFrameClassification",
        "TokenClassifierOutput",
        ("logits",),
        **_AUDIO,
    ),
    Task(
        "audio-xvector",
        "ORTModelForAudioXVector",
        "AutoModelForAudioXVector",
        "XVectorOutput",
        ("logits", "embeddings"),
        **_AUDIO,
    ),
    Task(
        "video-classification",
        "ORTModelForVideoClassification",
        "AutoModelForVideoClassification",
        "ImageClassifierOutput",
        ("logits",),
        modality="video",
        inputs=("pixel_values", "pixel_values_videos"),
        processors=("video_processor",),
        pipeline="VideoClassificationPipeline",
    ),
    Task(
        "zero-shot-image-classification",
        "ORTModelForZeroShotImageClassification",
        "AutoModelForZeroShotImageClassification",
        "transformers.models.clip.modeling_clip:CLIPOutput",
        ("logits_per_image", "logits_per_text", "text_embeds", "image_embeds"),
        modality="multimodal",
        inputs=("input_ids", "pixel_values", "attention_mask"),
        processors=("tokenizer", "image_processor"),
        pipeline="ZeroShotImageClassificationPipeline",
    ),
    Task(
        "zero-shot-audio-classification",
        "ORTModelForZeroShotAudioClassification",
        "AutoModel",
        "transformers.models.clap.modeling_clap:ClapOutput",
        ("logits_per_audio", "logits_per_text", "text_embeds", "audio_embeds"),
        modality="multimodal",
        inputs=("input_ids", "input_features", "attention_mask"),
        processors=("tokenizer", "feature_extractor"),
        pipeline="ZeroShotAudioClassificationPipeline",
        architectures=("ClapModel",),
    ),
)


def find_task(name: str | None, *, model: str | None = None) -> Task:
    """Returns the row of the task called `name`, which may be an alias or carry the ``fixed-shape-`` prefix.

    Args:
        name: The task. ``translation_en_to_fr`` is a ``translation``, as in transformers.
        model: The model class, which decides where several have the task; by default the first.

    Raises:
        UnsupportedTaskError: There is none.
    """
    if rows := tasks_called(name):
        return next((row for row in rows if row.model == model), rows[0])
    known = tuple(sorted({alias for task in TASKS for alias in (task.name, *task.aliases)}))
    raise UnsupportedTaskError(f"The task {name!r} is not one of: {', '.join(known)}.", task=name, known=known)


def tasks_called(name: str | None) -> list[Task]:
    """Returns the rows of the task called `name`, one for each kind of model; see `find_task`."""
    wanted = (name or "").removeprefix(REGISTRY_PREFIX)
    if wanted.startswith("translation_"):
        wanted = "translation"
    return [task for task in TASKS if wanted in (task.name, *task.aliases)]


def tasks_with_pipeline() -> Iterator[tuple[Task, str]]:
    """Yields each task that has a pipeline, with the pipeline class's name."""
    return ((task, task.pipeline) for task in TASKS if task.pipeline)


def task_of_architectures(architectures: Iterable[str]) -> Task | None:
    """Returns the task of the first PyTorch class whose head tells it, such as ``"BertForMaskedLM"``, or None."""
    for architecture in architectures:
        for task in TASKS:
            if architecture in task.architectures or architecture in _classes_of(task.auto):
                return task
        for task in TASKS:
            if task.auto != "AutoModel" and architecture.endswith(task.auto.removeprefix("AutoModel")):
                return task
        if architecture.endswith("Model") and "Head" not in architecture:
            return find_task("feature-extraction")
    return None


@functools.cache
def _classes_of(auto: str) -> frozenset[str]:
    """The PyTorch classes that one of transformers' Auto classes loads, but for `AutoModel`, which loads any."""
    import transformers

    if auto == "AutoModel":
        return frozenset()
    names = getattr(transformers, auto)._model_mapping._model_mapping.values()
    return frozenset(name for each in names for name in ([each] if isinstance(each, str) else each))


def task_of_model(model_class: str) -> Task | None:
    """Returns the first task that the model class called `model_class` serves, or None for custom tasks."""
    return next((task for task in TASKS if task.model == model_class), None)


REGISTRY_PREFIX = "fixed-shape-"
"""What our tasks are called in transformers' registry: the prefix and transformers' own name."""
