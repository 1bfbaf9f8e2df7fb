"""`AutoTokenizer` and `AutoProcessor`: find what belongs to a graph, and tell it the graph's shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnxruntime
import transformers

from optimum_fixedshape.contract import SEQUENCE, ShapeContract, ShapeLadder
from optimum_fixedshape.errors import GraphNotFoundError, ProcessorError
from optimum_fixedshape.hub import HubOptions
from optimum_fixedshape.repo import peek_ladder
from optimum_fixedshape.sessions import contract_of_session
from optimum_fixedshape.tasks import Overflow

from .text import FixedShapeTokenizer, fix_tokenizer

_WAY_OUT = "Pass tokenizer=, an object, a folder or a Hub repo id."
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
                `ShapeContract` or a `ShapeLadder`.
            tokenizer: A tokenizer, or the folder or Hub repo to load it from. By default it is looked for beside the
                graph. One that is given stays as it is.
            overflow: What happens to texts longer than the graph: ``"error"``, ``"truncate"`` or ``"window"``.
            **kwargs: Passed on to transformers' `AutoTokenizer.from_pretrained` (``revision=``, ``token=``, ...).

        Raises:
            GraphNotFoundError: `model` holds no graph.
            ProcessorError: There is no tokenizer, or `model` is none of the above.
        """
        source = _source_of(model, _hub_options(kwargs))
        return fix_tokenizer(_tokenizer_of(source, tokenizer, kwargs), source.ladder, overflow=overflow)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *inputs: Any, **kwargs: Any) -> Any:
        """Returns a fixed-shape tokenizer where the repo holds a fixed graph, else exactly what transformers gives.

        Takes all arguments of transformers' `AutoTokenizer.from_pretrained`, and `overflow` as in `from_model`.

        Raises:
            InvalidModelError: The repo's graph is broken.
        """
        overflow = kwargs.pop("overflow", "error")
        plain = transformers.AutoTokenizer.from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)
        ladder = _fixed_ladder(pretrained_model_name_or_path, _hub_options(kwargs))
        return plain if ladder is None else fix_tokenizer(plain, ladder, overflow=overflow)


class AutoProcessor(transformers.AutoProcessor):  # type: ignore[misc]
    """transformers' `AutoProcessor`, whose processors know the graph. For graphs that take token ids, a tokenizer."""

    @classmethod
    def from_model(cls, model: Any, *, tokenizer: Any = None, overflow: Overflow = "error", **kwargs: Any) -> Any:
        """Returns the processor that `model` needs, found by what its graph takes.

        Args:
            model: As in `AutoTokenizer.from_model`.
            tokenizer: As in `AutoTokenizer.from_model`.
            overflow: As in `AutoTokenizer.from_model`.
            **kwargs: As in `AutoTokenizer.from_model`.

        Raises:
            ProcessorError: The graph takes something else than tokens.
        """
        source = _source_of(model, _hub_options(kwargs))
        others = [str(spec) for spec in source.ladder.largest.inputs if spec.axis_of(SEQUENCE) is None]
        if others:
            raise ProcessorError(
                f"The graph takes {', '.join(others)}, and processors for other inputs than tokens do not exist yet.",
                expected="tokens",
                given=", ".join(others),
            )
        return fix_tokenizer(_tokenizer_of(source, tokenizer, kwargs), source.ladder, overflow=overflow)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Returns a fixed-shape tokenizer where transformers gives one and the repo holds a fixed graph.

        All else is exactly what transformers gives.

        Raises:
            InvalidModelError: The repo's graph is broken.
        """
        overflow = kwargs.pop("overflow", "error")
        plain = transformers.AutoProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)
        if not isinstance(plain, transformers.PreTrainedTokenizerBase):
            return plain
        ladder = _fixed_ladder(pretrained_model_name_or_path, _hub_options(kwargs))
        return plain if ladder is None else fix_tokenizer(plain, ladder, overflow=overflow)


ONNXAutoProcessor = AutoProcessor


@dataclass(frozen=True)
class _Source:
    """The contracts of a model, and where its processors are: a folder, a Hub repo, or None where nobody knows."""

    ladder: ShapeLadder
    home: str | Path | None


def _source_of(model: Any, hub: HubOptions) -> _Source:
    if isinstance(model, onnxruntime.InferenceSession):
        model = contract_of_session(model)
    if isinstance(model, ShapeContract):
        model = ShapeLadder((model,))
    if isinstance(model, ShapeLadder):
        graph = model.rungs[0].path
        return _Source(model, graph and _near(graph.parent))
    if isinstance(ladder := getattr(model, "ladder", None), ShapeLadder):
        return _Source(ladder, _near(model.home))
    if not isinstance(model, (str, Path)):
        raise ProcessorError(
            "from_model takes an .onnx file, a folder, a Hub repo id, a model of this package, an InferenceSession, "
            f"a ShapeContract or a ShapeLadder, got {type(model).__name__}.",
            expected="a model with a graph",
            given=type(model).__name__,
        )
    ladder, path = peek_ladder(model, hub=hub), Path(model)
    if path.is_file():
        return _Source(ladder, _near(path.parent))
    return _Source(ladder, _near(path) if path.is_dir() else model)


def _near(folder: Path) -> Path:
    """The folder with the processors of the graph in `folder`: that one, or the one above."""
    folders = (folder, folder.resolve().parent)
    names = ("tokenizer_config.json", "tokenizer.json")
    return next((found for found in folders if any((found / name).is_file() for name in names)), folder)


def _hub_options(kwargs: Mapping[str, Any]) -> HubOptions:
    names = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")
    return HubOptions(**{name: kwargs[name] for name in names if kwargs.get(name) is not None})


def _tokenizer_of(source: _Source, given: Any, kwargs: dict[str, Any]) -> Any:
    """The tokenizer that the user gave, or the one found where the user said, or beside the graph."""
    if given is not None and not isinstance(given, (str, Path)):
        return given
    where = given or source.home
    if where is None:
        raise ProcessorError(
            f"Nothing says where the tokenizer of this graph is. {_WAY_OUT}", expected="tokenizer=", given="nothing"
        )
    reason: object = "it has no vocabulary."
    cause = None
    # Of a graph in a subfolder, the tokenizer is there, or with the repo's own files.
    for options in (kwargs, {**kwargs, "subfolder": ""}):
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(where, **options)
        except Exception as error:  # transformers raises anything where files are missing
            reason = cause = error
            continue
        special = {token for token in tokenizer.all_special_ids if token < tokenizer.vocab_size}
        if tokenizer.vocab_size - len(special) >= _FEWEST_WORDS:
            return tokenizer
    raise ProcessorError(
        f"No tokenizer could be loaded from {where}: {reason} {_WAY_OUT}", expected="a tokenizer", given=str(where)
    ) from cause


def _fixed_ladder(source: Any, hub: HubOptions) -> ShapeLadder | None:
    """The contracts of a repo with one model that fixes the length of its texts, or None."""
    for options in (hub, replace(hub, subfolder="")):
        try:
            ladder = peek_ladder(source, hub=options)
        except GraphNotFoundError:
            continue
        return ladder if ladder.limit(SEQUENCE) is not None else None
    return None
