"""`AutoTokenizer` and its like: find what belongs to a graph, and tell it the graph's shapes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from transformers.processing_utils import ProcessorMixin

from optimum_fixedshape.errors import ProcessorError
from optimum_fixedshape.tasks import Overflow

from .audio import FixedShapeFeatureExtractor, default_feature_extractor, fix_feature_extractor
from .canvas import default_image_processor
from .combined import CUTTING, ROLES, fix_processor, kinds_of
from .finding import Source, fixed_ladder, plain_processor, source_of, without_graph
from .image import FixedShapeImageProcessor, fix_image_processor
from .patches import FixedShapePatchProcessor
from .text import FixedShapeTokenizer, fix_tokenizer
from .video import FixedShapeVideoProcessor, fix_video_processor

_FEWEST_WORDS = 3


class AutoTokenizer(transformers.AutoTokenizer):  # type: ignore[misc]
    """transformers' `AutoTokenizer`, whose tokenizers know the graph."""

    @classmethod
    def from_model(
        cls, model: Any, *, tokenizer: Any = None, overflow: Overflow = "error", **kwargs: Any
    ) -> FixedShapeTokenizer:
        """Returns the tokenizer of `model`, which gives what the graph takes.

        Args:
            model: An ``.onnx`` file, a folder, a Hub repo id, one of our models, an `InferenceSession`, a
                `ShapeContract` or a `ShapeLadder`. Of a folder or repo with several graphs, ``file_name=`` or
                ``variant=`` says which, as in the models' `from_pretrained`.
            tokenizer: A tokenizer, or the folder or Hub repo to load it from. By default it is looked for beside the
                graph. One that is given stays as it is.
            overflow: What happens to texts longer than the graph: ``"error"``, ``"truncate"`` or ``"window"``.
            **kwargs: Passed on to transformers' `AutoTokenizer.from_pretrained` (``revision=``, ``token=``, ...).

        Raises:
            GraphNotFoundError: `model` holds no graph.
            ProcessorError: There is no tokenizer, or `model` is none of the above.
        """
        source, load = source_of(model, kwargs), transformers.AutoTokenizer.from_pretrained
        plain = plain_processor("tokenizer", source, tokenizer, load, kwargs, _lacks_words)
        return fix_tokenizer(plain, source.ladder, overflow=overflow)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *inputs: Any, **kwargs: Any) -> Any:
        """Returns a fixed-shape tokenizer where the repo holds a fixed graph, else exactly what transformers gives.

        Takes all arguments of transformers' `AutoTokenizer.from_pretrained`, and `overflow` as in `from_model`.

        Raises:
            InvalidModelError: The repo's graph is broken.
        """
        overflow = kwargs.pop("overflow", "error")
        plain = transformers.AutoTokenizer.from_pretrained(
            pretrained_model_name_or_path, *inputs, **without_graph(kwargs)
        )
        ladder = fixed_ladder(pretrained_model_name_or_path, kwargs, ROLES["tokenizer"])
        return plain if ladder is None else fix_tokenizer(plain, ladder, overflow=overflow)


class AutoImageProcessor(transformers.AutoImageProcessor):  # type: ignore[misc]
    """transformers' `AutoImageProcessor`, whose image processors know the graph."""

    @classmethod
    def from_model(
        cls, model: Any, *, image_processor: Any = None, **kwargs: Any
    ) -> FixedShapeImageProcessor | FixedShapePatchProcessor:
        """Returns the image processor of `model`, which gives what the graph takes.

        For a bare graph it has the usual settings of models trained on ImageNet, and a warning says which.

        Args:
            model: As in `AutoTokenizer.from_model`.
            image_processor: An image processor, or the folder or Hub repo to load it from. By default it is looked for
                beside the graph. One that is given stays as it is.
            **kwargs: Passed on to transformers' `AutoImageProcessor.from_pretrained`.

        Raises:
            GraphNotFoundError: `model` holds no graph.
            ProcessorError: There is no image processor, or the graph takes no single image.
        """
        source, load = source_of(model, kwargs), transformers.AutoImageProcessor.from_pretrained
        if image_processor is None and source.has_none("image_processor"):
            return fix_image_processor(default_image_processor(source.ladder), source.ladder)
        return fix_image_processor(
            plain_processor("image_processor", source, image_processor, load, kwargs), source.ladder
        )

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *inputs: Any, **kwargs: Any) -> Any:
        """Returns a fixed-shape image processor where the repo holds a fixed graph, else what transformers gives.

        Raises:
            InvalidModelError: The repo's graph is broken.
        """
        plain = transformers.AutoImageProcessor.from_pretrained(
            pretrained_model_name_or_path, *inputs, **without_graph(kwargs)
        )
        ladder = fixed_ladder(pretrained_model_name_or_path, kwargs, ROLES["image_processor"])
        return plain if ladder is None else fix_image_processor(plain, ladder)


class AutoFeatureExtractor(transformers.AutoFeatureExtractor):  # type: ignore[misc]
    """transformers' `AutoFeatureExtractor`, whose feature extractors know the graph."""

    @classmethod
    def from_model(
        cls, model: Any, *, feature_extractor: Any = None, overflow: Overflow = "error", **kwargs: Any
    ) -> FixedShapeFeatureExtractor:
        """Returns the feature extractor of `model`, which gives what the graph takes.

        For a bare graph of waveforms it has the usual settings at 16 kHz, and a warning says which.

        Args:
            model: As in `AutoTokenizer.from_model`.
            feature_extractor: A feature extractor, or the folder or Hub repo to load it from. By default it is looked
                for beside the graph. One that is given stays as it is.
            overflow: What happens to sounds longer than the graph: ``"error"`` or ``"truncate"``.
            **kwargs: Passed on to transformers' `AutoFeatureExtractor.from_pretrained`.

        Raises:
            GraphNotFoundError: `model` holds no graph.
            ProcessorError: There is no feature extractor, or the graph takes no sound.
        """
        source, load = source_of(model, kwargs), transformers.AutoFeatureExtractor.from_pretrained
        if feature_extractor is None and source.has_none("feature_extractor"):
            plain = default_feature_extractor(source.ladder)
        else:
            plain = plain_processor("feature_extractor", source, feature_extractor, load, kwargs)
        return fix_feature_extractor(plain, source.ladder, overflow=overflow)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Returns a fixed-shape feature extractor where the repo holds a fixed graph, else what transformers gives.

        Takes `overflow` as in `from_model`.

        Raises:
            InvalidModelError: The repo's graph is broken.
        """
        overflow = kwargs.pop("overflow", "error")
        plain = transformers.AutoFeatureExtractor.from_pretrained(
            pretrained_model_name_or_path, **without_graph(kwargs)
        )
        ladder = fixed_ladder(pretrained_model_name_or_path, kwargs, ROLES["feature_extractor"])
        return plain if ladder is None else fix_feature_extractor(plain, ladder, overflow=overflow)


class AutoVideoProcessor:
    """transformers' `AutoVideoProcessor`, whose video processors know the graph.

    Where transformers has only an image processor for the clips of a model, it is that.
    """

    @classmethod
    def from_model(cls, model: Any, *, video_processor: Any = None, **kwargs: Any) -> FixedShapeVideoProcessor:
        """Returns the video processor of `model`, which gives what the graph takes.

        Args:
            model: As in `AutoTokenizer.from_model`.
            video_processor: A video processor, an image processor that takes clips, or the folder or Hub repo to load
                it from. By default it is looked for beside the graph. One that is given stays as it is.
            **kwargs: Passed on to transformers' `from_pretrained`.

        Raises:
            GraphNotFoundError: `model` holds no graph.
            ProcessorError: There is no video processor, or the graph takes no clips.
        """
        source = source_of(model, kwargs)
        plain = plain_processor("video_processor", source, video_processor, _load_video_processor, kwargs)
        return fix_video_processor(plain, source.ladder)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Returns a fixed-shape video processor where the repo holds a fixed graph, else what transformers gives.

        Raises:
            InvalidModelError: The repo's graph is broken.
        """
        plain = _load_video_processor(pretrained_model_name_or_path, **without_graph(kwargs))
        ladder = fixed_ladder(pretrained_model_name_or_path, kwargs, ROLES["video_processor"])
        return plain if ladder is None else fix_video_processor(plain, ladder)


class AutoProcessor(transformers.AutoProcessor):  # type: ignore[misc]
    """transformers' `AutoProcessor`, whose processors know the graph: one for each graph, or a combination."""

    @classmethod
    def from_model(cls, model: Any, *, processor: Any = None, overflow: Overflow = "error", **kwargs: Any) -> Any:
        """Returns the processor that `model` needs, found by what its graph takes.

        Args:
            model: As in `AutoTokenizer.from_model`.
            processor: A processor of any kind, or the folder or Hub repo to load it from.
            overflow: What happens to texts and sounds longer than the graph.
            **kwargs: As in `AutoTokenizer.from_model`; also ``tokenizer=`` and its like for graphs that need only one.

        Raises:
            ProcessorError: There is no processor, or nobody knows what the graph takes.
        """
        source = source_of(model, kwargs)
        kinds = kinds_of(source.ladder.largest)
        if not any(kind in kwargs for kind in kinds) and kinds != ("tokenizer",):
            combination = _combination_of(source, processor, kwargs, is_needed=len(kinds) > 1)
            if combination is not None:
                return fix_processor(combination, source.ladder, overflow=overflow)
        if len(kinds) > 1:
            raise ProcessorError(
                f"The graph takes {', '.join(source.ladder.largest.input_names)}, and needs a processor that combines "
                f"{' and '.join(kinds)}, such as CLIPProcessor. Pass processor=, an object, a folder or a Hub repo id.",
                expected="a combination of processors",
                given=type(processor).__name__,
            )
        (kind,) = kinds
        cuts = {"overflow": overflow} if kind in CUTTING else {}
        return _AUTO[kind].from_model(model, **{kind: processor, **cuts, **kwargs})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Returns a fixed-shape processor where the repo holds a fixed graph, else exactly what transformers gives.

        Raises:
            InvalidModelError: The repo's graph is broken.
        """
        overflow = kwargs.pop("overflow", "error")
        plain = transformers.AutoProcessor.from_pretrained(pretrained_model_name_or_path, **without_graph(kwargs))
        roles = tuple(role for roles in ROLES.values() for role in roles)
        ladder = fixed_ladder(pretrained_model_name_or_path, kwargs, roles)
        return plain if ladder is None else fix_processor(plain, ladder, overflow=overflow)


ONNXAutoProcessor = AutoProcessor

_AUTO: dict[str, Any] = {
    "tokenizer": AutoTokenizer,
    "image_processor": AutoImageProcessor,
    "feature_extractor": AutoFeatureExtractor,
    "video_processor": AutoVideoProcessor,
}


def _lacks_words(tokenizer: Any) -> str | None:
    special = {token for token in tokenizer.all_special_ids if token < tokenizer.vocab_size}
    return None if tokenizer.vocab_size - len(special) >= _FEWEST_WORDS else "it has no vocabulary."


def _load_video_processor(place: Any, **kwargs: Any) -> Any:
    """The video processor, or the image processor that stands in where there is none, or no torchvision to run it."""
    try:
        return transformers.AutoVideoProcessor.from_pretrained(place, **kwargs)
    except (ImportError, OSError, ValueError):
        return transformers.AutoImageProcessor.from_pretrained(place, **kwargs)


def _combination_of(source: Source, given: Any, kwargs: dict[str, Any], *, is_needed: bool) -> Any:
    """The combination of processors that was given, or is saved with the model; None where there is none."""
    is_place = given is None or isinstance(given, (str, Path))
    if is_place and not (given is None and source.has_none("processor")):
        try:
            given = plain_processor("processor", source, given, transformers.AutoProcessor.from_pretrained, kwargs)
        except ProcessorError:
            # transformers looks for a combination by the model's type, also where one part of it is all there is.
            if is_needed:
                raise
    return given if isinstance(given, ProcessorMixin) else None
