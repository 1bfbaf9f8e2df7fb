"""`AutoTokenizer` and `AutoProcessor`: find what belongs to a graph, and tell it the graph's shapes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime
import transformers

from ..contract import SEQUENCE, ShapeContract, ShapeLadder
from ..errors import FixedShapeError, GraphNotFoundError, ProcessorError
from ..repo import HubOptions, peek_ladder
from ..sessions import contract_of_session
from ..tasks import Overflow
from .text import FixedShapeTokenizer, fix_tokenizer


@dataclass(frozen=True)
class _Source:
    """The contracts of a model, and where its processors are: a folder, a Hub repo, or None where nobody knows."""

    ladder: ShapeLadder
    home: str | Path | None


def _source_of(model: Any, hub: HubOptions) -> _Source:
    if isinstance(model, ShapeContract):
        return _Source(ShapeLadder((model,)), _near(model.path))
    if isinstance(model, ShapeLadder):
        return _Source(model, _near(model.rungs[0].path))
    if isinstance(model, onnxruntime.InferenceSession):
        contract = contract_of_session(model)
        return _Source(ShapeLadder((contract,)), _near(contract.path))
    if isinstance(ladder := getattr(model, "ladder", None), ShapeLadder):
        return _Source(ladder, model.home)
    if isinstance(model, (str, Path)):
        ladder = peek_ladder(model, hub=hub)
        return _Source(ladder, _near(Path(model)) if Path(model).is_file() else model)
    raise ProcessorError(
        f"from_model takes an .onnx file, a folder, a Hub repo id, a model of this package, an InferenceSession or a "
        f"ShapeContract, got {type(model).__name__}.",
        expected="a model with a graph",
        given=type(model).__name__,
    )


def _near(graph: Path | None) -> Path | None:
    """The folder with the processors of a graph file: its own, or the one above it."""
    if graph is None:
        return None
    folders = (graph.parent, graph.resolve().parent.parent)
    return next((f for f in folders if (f / "tokenizer_config.json").is_file() or (f / "tokenizer.json").is_file()), folders[0])


class AutoTokenizer(transformers.AutoTokenizer):  # type: ignore[misc]
    """transformers' `AutoTokenizer`, whose tokenizers know the graph."""

    @classmethod
    def from_model(
        cls, model: Any, *, tokenizer: Any = None, overflow: Overflow = "error", **kwargs: Any
    ) -> FixedShapeTokenizer:
        """Returns the tokenizer of `model`, which gives what the graph takes.

        Args:
            model: An ``.onnx`` file, a folder, a Hub repo id, one of our models, an `InferenceSession` or a
                `ShapeContract`.
            tokenizer: A tokenizer, or the folder or Hub repo to load it from. By default it is looked for beside the
                graph. One that is given stays as it is.
            overflow: What happens to texts longer than the graph: ``"error"``, ``"truncate"`` or ``"window"``.
            **kwargs: Passed on to transformers' `AutoTokenizer.from_pretrained` (``revision=``, ``token=``, ...).

        Raises:
            GraphNotFoundError: `model` holds no graph.
            ProcessorError: There is no tokenizer, or `model` is none of the above.
        """
        source = _source_of(model, _hub_options(kwargs))
        if tokenizer is None and source.home is None:
            raise ProcessorError(
                "Nothing says where the tokenizer of this graph is. Pass tokenizer=, an object, a folder or a Hub repo id.",
                expected="tokenizer=",
                given="nothing",
            )
        if tokenizer is None or isinstance(tokenizer, (str, Path)):
            tokenizer = _load_tokenizer(tokenizer or source.home, kwargs)
        return fix_tokenizer(tokenizer, source.ladder, overflow=overflow)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, *inputs: Any, **kwargs: Any) -> Any:
        """Returns a fixed-shape tokenizer where the repo holds a fixed graph, else exactly what transformers gives.

        Takes all arguments of transformers' `AutoTokenizer.from_pretrained`, and `overflow` as in `from_model`.
        """
        overflow = kwargs.pop("overflow", "error")
        plain = transformers.AutoTokenizer.from_pretrained(pretrained_model_name_or_path, *inputs, **kwargs)
        ladder = _fixed_ladder(pretrained_model_name_or_path, _hub_options(kwargs))
        return plain if ladder is None else fix_tokenizer(plain, ladder, overflow=overflow)


class AutoProcessor(transformers.AutoProcessor):  # type: ignore[misc]
    """transformers' `AutoProcessor`, whose processors know the graph. For graphs that take token ids, a tokenizer."""

    @classmethod
    def from_model(cls, model: Any, **kwargs: Any) -> Any:
        """Returns the processor that `model` needs, found by what its graph takes.

        Args:
            model: As in `AutoTokenizer.from_model`.
            **kwargs: As in `AutoTokenizer.from_model`.

        Raises:
            ProcessorError: The graph takes something else than token ids.
        """
        ladder = _source_of(model, _hub_options(kwargs)).ladder
        if SEQUENCE not in ladder.largest.sizes:
            inputs = ", ".join(map(str, ladder.largest.inputs))
            raise ProcessorError(
                f"The graph takes no token ids, and processors for other inputs do not exist yet. It takes: {inputs}.",
                expected="token ids",
                given=inputs,
            )
        return AutoTokenizer.from_model(model, **kwargs)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> Any:
        """Returns a fixed-shape processor where the repo holds a fixed text graph, else what transformers gives."""
        ladder = _fixed_ladder(pretrained_model_name_or_path, _hub_options(kwargs))
        if ladder is not None:
            return AutoTokenizer.from_pretrained(pretrained_model_name_or_path, **kwargs)
        return transformers.AutoProcessor.from_pretrained(pretrained_model_name_or_path, **kwargs)


ONNXAutoProcessor = AutoProcessor


def _hub_options(kwargs: dict[str, Any]) -> HubOptions:
    names = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")
    return HubOptions(**{name: kwargs[name] for name in names if kwargs.get(name) is not None})


def _load_tokenizer(where: Any, kwargs: dict[str, Any]) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(where, **kwargs)
    except (OSError, ValueError) as error:
        raise ProcessorError(
            f"No tokenizer could be loaded from {where}: {error} Pass tokenizer=, an object, a folder or a Hub repo id.",
            expected="a tokenizer",
            given=str(where),
        ) from error


def _fixed_ladder(source: Any, hub: HubOptions) -> ShapeLadder | None:
    """The contracts of a repo whose graph fixes the length of its texts, or None."""
    try:
        ladder = peek_ladder(source, hub=hub)
    except (GraphNotFoundError, OSError, FixedShapeError):
        return None
    return ladder if ladder.limit(SEQUENCE) is not None else None
