"""One table: task, model class, pipeline class, and what comes out. Everything that depends on a task reads it here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

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
        takes: What a graph of the task may take, in the words of `detecting.inputs`.
        heads: How the names of PyTorch classes of the task end, beside those that are named as `auto` is.
        axes: What the axes of each of `outputs` are, by which the task of a graph is told; outputs whose axes stand in
            brackets need not be there. Nothing for tasks that no graph tells from others with the same model class.
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
    takes: tuple[str, ...] = ("tokens",)
    axes: tuple[str, ...] = ()
    heads: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether its models write word by word: they are exported in several parts."""
        return self.model in _WRITERS

    def is_of(self, architecture: str) -> bool:
        """Whether a PyTorch class may be of the task by its name, as ``"BertForMaskedLM"`` is of ``"fill-mask"``."""
        return architecture.endswith(tuple(filter(None, (self.auto.removeprefix("AutoModel"), *self.heads))))


class _Kind(TypedDict):
    modality: Modality
    inputs: tuple[str, ...]
    processors: tuple[str, ...]
    takes: tuple[str, ...]


_IMAGE: _Kind = {
    "modality": "image",
    "inputs": ("pixel_values", "pixel_mask"),
    "processors": ("image_processor",),
    "takes": ("image",),
}
_AUDIO: _Kind = {
    "modality": "audio",
    "inputs": ("input_values", "input_features", "attention_mask"),
    "processors": ("feature_extractor",),
    "takes": ("sound", "spectrogram"),
}
_CLASSIFIER = ("ORTModelForSequenceClassification", "AutoModelForSequenceClassification", "SequenceClassifierOutput")
_ENCODER = ("ORTModelForFeatureExtraction", "AutoModel", "BaseModelOutputWithPooling")
_EMBEDDINGS = ("last_hidden_state", "pooler_output")
_CLASSES, _CLASS_OF_EACH, _WORD_OF_EACH = "rows labels", "rows tokens labels-of-tokens", "rows tokens vocabulary"

_CAUSAL = ("ORTModelForCausalLM", "AutoModelForCausalLM", "CausalLMOutputWithPast")
_SEQ2SEQ = ("ORTModelForSeq2SeqLM", "AutoModelForSeq2SeqLM", "Seq2SeqLMOutput")
_VISION2SEQ = ("ORTModelForVision2Seq", "AutoModelForImageTextToText", "Seq2SeqLMOutput")
_TEXT = ("input_ids", "attention_mask")

_WRITERS = frozenset({_CAUSAL[0], _SEQ2SEQ[0], _VISION2SEQ[0], "ORTModelForSpeechSeq2Seq"})

# Models that write come first: transformers lists some of them, such as BART, among those that fill masks, too.
TASKS: tuple[Task, ...] = (
    Task(
        "text-generation",
        *_CAUSAL,
        ("logits",),
        inputs=_TEXT,
        pipeline="TextGenerationPipeline",
        axes=(_WORD_OF_EACH,),
        heads=("LMHeadModel",),
    ),
    Task(
        "text2text-generation",
        *_SEQ2SEQ,
        ("logits",),
        inputs=_TEXT,
        pipeline="Text2TextGenerationPipeline",
        takes=("tokens+states",),
        axes=(_WORD_OF_EACH,),
        heads=("ForConditionalGeneration",),
    ),
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
        takes=("tokens+states",),
        axes=(_WORD_OF_EACH,),
        heads=("ForConditionalGeneration", "VisionEncoderDecoderModel"),
    ),
    Task(
        "text-classification",
        *_CLASSIFIER,
        ("logits",),
        pipeline="TextClassificationPipeline",
        aliases=("sentiment-analysis",),
        axes=(_CLASSES,),
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
        axes=(_CLASS_OF_EACH,),
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
        takes=("tokens+boxes", "image+tokens+boxes"),
        axes=("rows tokens", "rows tokens"),
        heads=("ForQuestionAnswering",),
    ),
    Task(
        "question-answering",
        "ORTModelForQuestionAnswering",
        "AutoModelForQuestionAnswering",
        "QuestionAnsweringModelOutput",
        ("start_logits", "end_logits"),
        pipeline="QuestionAnsweringPipeline",
        overflow="window",
        axes=("rows tokens", "rows tokens"),
    ),
    Task(
        "fill-mask",
        "ORTModelForMaskedLM",
        "AutoModelForMaskedLM",
        "MaskedLMOutput",
        ("logits",),
        pipeline="FillMaskPipeline",
        axes=(_WORD_OF_EACH,),
    ),
    Task(
        "feature-extraction",
        *_ENCODER,
        _EMBEDDINGS,
        pipeline="FeatureExtractionPipeline",
        takes=("tokens", "sound", "spectrogram"),
        axes=("[rows tokens hidden]", "[rows hidden]"),
        heads=("Model",),
    ),
    Task("zero-shot-classification", *_CLASSIFIER, ("logits",), pipeline="ZeroShotClassificationPipeline"),
    Task(
        "multiple-choice",
        "ORTModelForMultipleChoice",
        "AutoModelForMultipleChoice",
        "MultipleChoiceModelOutput",
        ("logits",),
        takes=("choices",),
        axes=("rows choices",),
    ),
    Task(
        "image-classification",
        "ORTModelForImageClassification",
        "AutoModelForImageClassification",
        "ImageClassifierOutput",
        ("logits",),
        **_IMAGE,
        pipeline="ImageClassificationPipeline",
        axes=("rows labels|rows labels 1 1",),
    ),
    Task(
        "object-detection",
        "ORTModelForObjectDetection",
        "AutoModelForObjectDetection",
        "transformers.models.detr.modeling_detr:DetrObjectDetectionOutput",
        ("logits", "pred_boxes"),
        **_IMAGE,
        pipeline="ObjectDetectionPipeline",
        axes=("rows queries labels", "rows queries 4"),
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
        axes=("rows labels height width",),
    ),
    Task(
        "depth-estimation",
        "ORTModelForDepthEstimation",
        "AutoModelForDepthEstimation",
        "DepthEstimatorOutput",
        ("predicted_depth",),
        **_IMAGE,
        pipeline="DepthEstimationPipeline",
        axes=("rows height width|rows 1 height width",),
    ),
    Task(
        "image-feature-extraction",
        *_ENCODER,
        _EMBEDDINGS,
        **_IMAGE,
        pipeline="ImageFeatureExtractionPipeline",
        axes=("[rows patches hidden|rows hidden grid-height grid-width]", "[rows hidden|rows hidden 1 1]"),
        heads=("Model",),
    ),
    Task(
        "audio-classification",
        "ORTModelForAudioClassification",
        "AutoModelForAudioClassification",
        "SequenceClassifierOutput",
        ("logits",),
        **_AUDIO,
        pipeline="AudioClassificationPipeline",
        axes=(_CLASSES,),
        heads=("ForSequenceClassification",),
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
        takes=_AUDIO["takes"],
        axes=("rows frames vocabulary",),
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
        takes=("tokens+states",),
        axes=(_WORD_OF_EACH,),
        heads=("ForConditionalGeneration", "SpeechEncoderDecoderModel"),
    ),
    Task(
        "audio-frame-classification",
        "ORTModelForAudioFrameClassification",
        "AutoModelForAudioFrameClassification",
        "TokenClassifierOutput",
        ("logits",),
        **_AUDIO,
        axes=("rows frames labels-of-frames",),
    ),
    Task(
        "audio-xvector",
        "ORTModelForAudioXVector",
        "AutoModelForAudioXVector",
        "XVectorOutput",
        ("logits", "embeddings"),
        **_AUDIO,
        axes=(_CLASSES, "rows features"),
        heads=("ForXVector",),
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
        takes=("clip",),
        axes=(_CLASSES,),
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
        takes=("image+tokens",),
        axes=("images texts", "[texts images]", "[texts hidden]", "[images hidden]"),
        heads=("Model",),
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
        takes=("sound+tokens", "spectrogram+tokens"),
        axes=("sounds texts", "[texts sounds]", "[texts hidden]", "[sounds hidden]"),
        heads=("Model",),
    ),
)
