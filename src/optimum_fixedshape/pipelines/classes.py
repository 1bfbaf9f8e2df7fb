"""The pipeline classes: transformers' own, with `FixedShapePipeline` before them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import transformers
from transformers.pipelines.base import ChunkPipeline

from optimum_fixedshape._compat import stock_pipeline
from optimum_fixedshape.contract import SEQUENCE

from . import question_answering
from .base import FixedShapePipeline, StandIn
from .embedding import EmbeddingMixin
from .lean.classification import ClassificationPath
from .lean.features import FeaturePath
from .lean.hypotheses import HypothesisPath
from .lean.images import ImageClassificationPath
from .lean.masks import MaskPath
from .lean.sounds import AudioClassificationPath
from .lean.tokens import TokenPath
from .sound import SoundPipeline, SpeechPipeline
from .towers import PairsPipeline
from .vision import ClipPipeline, ImagePipeline
from .writing import TextPipeline, WritingPipeline


class TextClassificationPipeline(FixedShapePipeline, transformers.TextClassificationPipeline):  # type: ignore[misc]
    """transformers' `TextClassificationPipeline` on a fixed graph."""

    fixed_task = "text-classification"
    lean_path = ClassificationPath


class FeatureExtractionPipeline(
    EmbeddingMixin,
    FixedShapePipeline,
    transformers.FeatureExtractionPipeline,  # type: ignore[misc]
):
    """transformers' `FeatureExtractionPipeline` on a fixed graph."""

    fixed_task = "feature-extraction"
    lean_path = FeaturePath


class FillMaskPipeline(FixedShapePipeline, transformers.FillMaskPipeline):  # type: ignore[misc]
    """transformers' `FillMaskPipeline` on a fixed graph."""

    fixed_task = "fill-mask"
    lean_path = MaskPath


class TokenClassificationPipeline(FixedShapePipeline, transformers.TokenClassificationPipeline):  # type: ignore[misc]
    """transformers' `TokenClassificationPipeline` on a fixed graph."""

    fixed_task = "token-classification"
    lean_path = TokenPath

    def preprocess(self, sentence: Any, offset_mapping: Any = None, **params: Any) -> Iterator[Any]:
        """Yields the windows that ``stride=`` asks for, else the whole text, where transformers would cut it."""
        reader = self
        if "tokenizer_params" not in params and self.cuts_nothing:
            reader = copy.copy(self)
            reader.tokenizer = StandIn(self.tokenizer, call=self.tokenizer, model_max_length=-1)
        base: Any = super(TokenClassificationPipeline, reader)
        yield from base.preprocess(sentence, offset_mapping, **params)


class QuestionAnsweringPipeline(
    FixedShapePipeline,
    question_answering.QuestionAnsweringPipeline,
    stock_pipeline("QuestionAnsweringPipeline") or ChunkPipeline,  # type: ignore[misc]
):
    """transformers 4.57's `QuestionAnsweringPipeline` on a fixed graph, on every transformers."""

    fixed_task = "question-answering"

    def preprocess(self, example: Any, *args: Any, **params: Any) -> Iterator[Any]:
        """Yields windows of the question and a part of the context, no longer than the graph holds."""
        limit = self.model.ladder.limit(SEQUENCE)
        if limit is not None:
            if length := params.get("max_seq_len"):
                params["max_seq_len"] = min(length, limit)
            if params.get("doc_stride", 0) > limit:
                params["doc_stride"] = limit // 2
        yield from super().preprocess(example, *args, **params)


class ZeroShotClassificationPipeline(FixedShapePipeline, transformers.ZeroShotClassificationPipeline):  # type: ignore[misc]
    """transformers' `ZeroShotClassificationPipeline` on a fixed graph."""

    fixed_task = "zero-shot-classification"
    lean_path = HypothesisPath

    def _parse_and_tokenize(self, sequence_pairs: Any, **kwargs: Any) -> Any:
        """Transformers cuts the text to the tokenizer's length; here it is cut only if somebody said so."""
        if self.cuts_nothing:
            kwargs.setdefault("truncation", False)
        return super()._parse_and_tokenize(sequence_pairs, **kwargs)


class ImageClassificationPipeline(ImagePipeline, transformers.ImageClassificationPipeline):  # type: ignore[misc]
    """transformers' `ImageClassificationPipeline` on a fixed graph."""

    fixed_task = "image-classification"
    lean_path = ImageClassificationPath


class ObjectDetectionPipeline(ImagePipeline, transformers.ObjectDetectionPipeline):  # type: ignore[misc]
    """transformers' `ObjectDetectionPipeline` on a fixed graph: boxes are those of the image as it came."""

    fixed_task = "object-detection"


class ImageSegmentationPipeline(ImagePipeline, transformers.ImageSegmentationPipeline):  # type: ignore[misc]
    """transformers' `ImageSegmentationPipeline` on a fixed graph: masks are of the size of the image as it came."""

    fixed_task = "image-segmentation"


class DepthEstimationPipeline(ImagePipeline, transformers.DepthEstimationPipeline):  # type: ignore[misc]
    """transformers' `DepthEstimationPipeline` on a fixed graph: depth is of the size of the image as it came."""

    fixed_task = "depth-estimation"


class ImageFeatureExtractionPipeline(ImagePipeline, transformers.ImageFeatureExtractionPipeline):  # type: ignore[misc]
    """transformers' `ImageFeatureExtractionPipeline` on a fixed graph."""

    fixed_task = "image-feature-extraction"


class ZeroShotImageClassificationPipeline(
    ImagePipeline,
    PairsPipeline,
    transformers.ZeroShotImageClassificationPipeline,  # type: ignore[misc]
):
    """transformers' `ZeroShotImageClassificationPipeline` on a fixed graph, for any number of images and labels."""

    fixed_task = "zero-shot-image-classification"


class ZeroShotAudioClassificationPipeline(
    SoundPipeline,
    PairsPipeline,
    transformers.ZeroShotAudioClassificationPipeline,  # type: ignore[misc]
):
    """transformers' `ZeroShotAudioClassificationPipeline` on a fixed graph, for any number of sounds and labels."""

    fixed_task = "zero-shot-audio-classification"


class AudioClassificationPipeline(SoundPipeline, transformers.AudioClassificationPipeline):  # type: ignore[misc]
    """transformers' `AudioClassificationPipeline` on a fixed graph."""

    fixed_task = "audio-classification"
    lean_path = AudioClassificationPath


class AutomaticSpeechRecognitionPipeline(SpeechPipeline, transformers.AutomaticSpeechRecognitionPipeline):  # type: ignore[misc]
    """transformers' `AutomaticSpeechRecognitionPipeline` on fixed graphs: CTC, or a model that writes."""

    fixed_task = "automatic-speech-recognition"


class VideoClassificationPipeline(ClipPipeline, transformers.VideoClassificationPipeline):  # type: ignore[misc]
    """transformers' `VideoClassificationPipeline` on a fixed graph."""

    fixed_task = "video-classification"


class DocumentQuestionAnsweringPipeline(ImagePipeline, transformers.DocumentQuestionAnsweringPipeline):  # type: ignore[misc]
    """transformers' `DocumentQuestionAnsweringPipeline` on a fixed graph, which may also take the page's pixels."""

    fixed_task = "document-question-answering"

    def _named(self, inputs: Any) -> Any:
        """Transformers calls the page's pixels ``image``, whatever the model calls them."""
        return {"pixel_values": inputs["image"], **inputs} if "image" in inputs else inputs

    def _forward(self, model_inputs: Any, **params: Any) -> Any:
        """Answers are looked for among the tokens: what a model says of patches behind them is left out."""
        output = super()._forward(model_inputs, **params)
        tokens = len(output["p_mask"])
        return output | {name: output[name][:, :tokens] for name in ("start_logits", "end_logits")}


class TextGenerationPipeline(TextPipeline, transformers.TextGenerationPipeline):  # type: ignore[misc]
    """transformers' `TextGenerationPipeline` on fixed graphs: prompts, and chat messages."""

    fixed_task = "text-generation"


def _of_transformers_4(name: str, task: str, *bases: type) -> None:
    """Adds the class of a pipeline that transformers 5 has dropped, where it is there."""
    if stock := stock_pipeline(name):
        facts = {"fixed_task": task, "__module__": __name__, "__doc__": f"transformers' `{name}` on fixed graphs."}
        globals()[name] = type(name, (*bases, stock), facts)


_of_transformers_4("Text2TextGenerationPipeline", "text2text-generation", WritingPipeline)
_of_transformers_4("SummarizationPipeline", "summarization", WritingPipeline)
_of_transformers_4("TranslationPipeline", "translation", WritingPipeline)
_of_transformers_4("ImageToTextPipeline", "image-to-text", ImagePipeline, WritingPipeline)
