"""The model classes: optimum's own names, and optimum's own classes as bases where ``optimum-onnx`` is installed."""

from __future__ import annotations

from typing import Any

from transformers.models.whisper.generation_whisper import WhisperGenerationMixin

from optimum_fixedshape._compat import model_base, register_with_auto_class
from optimum_fixedshape.tasks import TASKS

from .base import FixedShapeMixin
from .causal import CausalMixin
from .seq2seq import Seq2SeqMixin, WhisperMixin


class ORTModelForSequenceClassification(FixedShapeMixin, model_base("ORTModelForSequenceClassification")):  # type: ignore[misc]
    """A graph that classifies texts or pairs of texts: ``logits`` are ``(rows, labels)``."""


class ORTModelForTokenClassification(FixedShapeMixin, model_base("ORTModelForTokenClassification")):  # type: ignore[misc]
    """A graph that classifies each token: ``logits`` are ``(rows, tokens, labels)``."""


class ORTModelForQuestionAnswering(FixedShapeMixin, model_base("ORTModelForQuestionAnswering")):  # type: ignore[misc]
    """A graph that finds answers in texts: ``start_logits`` and ``end_logits`` are ``(rows, tokens)``."""


class ORTModelForMaskedLM(FixedShapeMixin, model_base("ORTModelForMaskedLM")):  # type: ignore[misc]
    """A graph that fills masked tokens: ``logits`` are ``(rows, tokens, vocabulary)``."""


class ORTModelForMultipleChoice(FixedShapeMixin, model_base("ORTModelForMultipleChoice")):  # type: ignore[misc]
    """A graph that picks one of several texts: inputs are ``(rows, choices, tokens)``."""


class ORTModelForFeatureExtraction(FixedShapeMixin, model_base("ORTModelForFeatureExtraction")):  # type: ignore[misc]
    """A graph that embeds: ``last_hidden_state`` is ``(rows, tokens or patches or frames, features)``."""


class ORTModelForImageClassification(FixedShapeMixin, model_base("ORTModelForImageClassification")):  # type: ignore[misc]
    """A graph that classifies images: ``logits`` are ``(rows, labels)``."""


class ORTModelForObjectDetection(FixedShapeMixin, model_base("ORTModelForObjectDetection")):  # type: ignore[misc]
    """A graph that finds objects: ``logits`` are ``(rows, queries, labels)``, ``pred_boxes`` ``(rows, queries, 4)``."""


class ORTModelForSemanticSegmentation(FixedShapeMixin, model_base("ORTModelForSemanticSegmentation")):  # type: ignore[misc]
    """A graph that classifies pixels: ``logits`` are ``(rows, labels, height, width)``, often smaller."""


class ORTModelForDepthEstimation(FixedShapeMixin, model_base("ORTModelForDepthEstimation")):  # type: ignore[misc]
    """A graph that estimates depth: ``predicted_depth`` is ``(rows, height, width)``."""


class ORTModelForAudioClassification(FixedShapeMixin, model_base("ORTModelForAudioClassification")):  # type: ignore[misc]
    """A graph that classifies sounds: ``logits`` are ``(rows, labels)``."""


class ORTModelForAudioFrameClassification(FixedShapeMixin, model_base("ORTModelForAudioFrameClassification")):  # type: ignore[misc]
    """A graph that classifies each frame of a sound: ``logits`` are ``(rows, frames, labels)``."""


class ORTModelForAudioXVector(FixedShapeMixin, model_base("ORTModelForAudioXVector")):  # type: ignore[misc]
    """A graph that tells speakers apart: ``embeddings`` are ``(rows, features)``."""


class ORTModelForCTC(FixedShapeMixin, model_base("ORTModelForCTC")):  # type: ignore[misc]
    """A graph that writes down speech: ``logits`` are ``(rows, frames, vocabulary)``."""


class ORTModelForVideoClassification(FixedShapeMixin, model_base("ORTModelForVideoClassification")):  # type: ignore[misc]
    """A graph that classifies clips: ``logits`` are ``(rows, labels)``."""


class ORTModelForZeroShotImageClassification(FixedShapeMixin, model_base("ORTModelForZeroShotImageClassification")):  # type: ignore[misc]
    """A graph that compares images with texts: ``logits_per_image`` are ``(images, texts)``."""


class ORTModelForZeroShotAudioClassification(FixedShapeMixin, model_base("ORTModelForZeroShotAudioClassification")):  # type: ignore[misc]
    """A graph that compares sounds with texts: ``logits_per_audio`` are ``(sounds, texts)``."""


class ORTModelForDocumentQuestionAnswering(FixedShapeMixin, model_base("ORTModelForDocumentQuestionAnswering")):  # type: ignore[misc]
    """A graph that finds answers on pages: ``start_logits`` and ``end_logits`` are ``(rows, tokens)``, and patches."""


class ORTModelForCustomTasks(FixedShapeMixin, model_base("ORTModelForCustomTasks")):  # type: ignore[misc]
    """A graph with outputs of its own: they come back under their own names."""


class ORTModelForCausalLM(CausalMixin, model_base("ORTModelForCausalLM")):  # type: ignore[misc]
    """Graphs that write on from a text: ``logits`` are ``(rows, tokens, vocabulary)``."""


class ORTModelForSeq2SeqLM(Seq2SeqMixin, model_base("ORTModelForSeq2SeqLM")):  # type: ignore[misc]
    """Graphs that read a text and write another: ``logits`` are ``(rows, tokens, vocabulary)``."""


class ORTModelForVision2Seq(Seq2SeqMixin, model_base("ORTModelForVision2Seq")):  # type: ignore[misc]
    """Graphs that read an image and write a text: ``logits`` are ``(rows, tokens, vocabulary)``."""


class ORTModelForSpeechSeq2Seq(Seq2SeqMixin, model_base("ORTModelForSpeechSeq2Seq")):  # type: ignore[misc]
    """Graphs that hear speech and write it down; those of Whisper load as `ORTModelForWhisper`."""

    @classmethod
    def _class_for(cls, config: Any) -> type:
        is_whisper = config.model_type == "whisper" and not issubclass(cls, WhisperMixin)
        return ORTModelForWhisper if is_whisper else cls


class ORTModelForWhisper(WhisperMixin, ORTModelForSpeechSeq2Seq, WhisperGenerationMixin):  # type: ignore[misc]
    """Graphs of Whisper, with transformers' own transcription of long sounds, in all its languages."""


for _task in TASKS:
    register_with_auto_class(_task.auto, globals()[_task.model])
