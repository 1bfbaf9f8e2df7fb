"""Where the processors of a graph are: given, beside it, above it, in its repo, or nowhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import onnxruntime

from optimum_fixedshape.contract import ShapeContract
from optimum_fixedshape.errors import GraphNotFoundError, ProcessorError
from optimum_fixedshape.hub import hub_among
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.repo import peek_ladder
from optimum_fixedshape.sessions import contract_of_session

_PREPROCESSOR = ("preprocessor_config.json", "processor_config.json")
FILES: Mapping[str, tuple[str, ...]] = {
    "tokenizer": ("tokenizer_config.json", "tokenizer.json"),
    "image_processor": _PREPROCESSOR,
    "feature_extractor": _PREPROCESSOR,
    "video_processor": ("video_preprocessor_config.json", *_PREPROCESSOR),
    "processor": ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"),
}
"""The files that show that a processor of a kind is in a folder."""


@dataclass(frozen=True)
class Source:
    """A model as processors see it.

    Attributes:
        ladder: Its contracts.
        home: Its folder, its Hub repo, or None where nobody knows.
    """

    ladder: ShapeLadder
    home: str | Path | None

    def place_of(self, kind: str) -> str | Path | None:
        """Returns where a processor of this kind is to be loaded from: of a folder that one, or the one above."""
        if not isinstance(self.home, Path):
            return self.home
        folders = (self.home, self.home.resolve().parent)
        return next((folder for folder in folders if _holds(folder, kind)), self.home)

    def has_none(self, kind: str) -> bool:
        """Whether it is certain that nobody saved a processor of this kind with the graph."""
        place = self.place_of(kind)
        return place is None or (isinstance(place, Path) and not _holds(place, kind))


def source_of(model: Any, options: Mapping[str, Any]) -> Source:
    """Returns what is known of a file, folder, repo, model, session, contract or ladder.

    Args:
        model: Any of these.
        options: Arguments of a `from_pretrained`, among them how to reach the Hub, and which graph is meant.

    Raises:
        GraphNotFoundError: There is no graph.
        ProcessorError: `model` is none of these.
    """
    if isinstance(model, onnxruntime.InferenceSession):
        model = contract_of_session(model)
    if isinstance(model, ShapeContract):
        model = ShapeLadder((model,))
    if isinstance(model, ShapeLadder):
        graph = model.rungs[0].path
        return Source(model, graph and graph.parent)
    if isinstance(ladder := getattr(model, "ladder", None), ShapeLadder):
        return Source(ladder, model.home)
    if not isinstance(model, (str, Path)):
        raise ProcessorError(
            "from_model takes an .onnx file, a folder, a Hub repo id, a model of this package, an InferenceSession, "
            f"a ShapeContract or a ShapeLadder, got {type(model).__name__}.",
            expected="a model with a graph",
            given=type(model).__name__,
        )
    ladder, path = peek_ladder(model, file_name=options.get("file_name"), hub=hub_among(options)), Path(model)
    if path.is_file():
        return Source(ladder, path.parent)
    return Source(ladder, path if path.is_dir() else model)


def without_graph(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of a `from_pretrained` without those that choose a graph, which transformers has not."""
    return {name: value for name, value in options.items() if name not in ("file_name", "variant")}


def plain_processor(
    kind: str,
    source: Source,
    given: Any,
    load: Callable[..., Any],
    kwargs: Mapping[str, Any],
    problem: Callable[[Any], str | None] = lambda processor: None,
) -> Any:
    """Returns the processor that the user gave, or the one found where the user said, or beside the graph.

    Args:
        kind: What the argument for it is called.
        source: The model.
        given: A processor, a place to load it from, or None.
        load: transformers' ``from_pretrained``.
        kwargs: Its arguments.
        problem: Says why a loaded processor is none, or None.

    Raises:
        ProcessorError: There is none.
    """
    if given is not None and not isinstance(given, (str, Path)):
        return given
    name = kind.replace("_", " ")
    where = given or source.place_of(kind)
    way_out = f"Pass {kind}=, an object, a folder or a Hub repo id."
    if where is None:
        message = f"Nothing says where the {name} of this graph is. {way_out}"
        raise ProcessorError(message, expected=f"{kind}=", given="nothing")
    reason: object = None
    cause = None
    # Of a graph in a subfolder, the processor is there, or with the repo's own files.
    known = without_graph(kwargs)
    for options in (known, {**known, "subfolder": ""}):
        try:
            processor = load(where, **options)
        except Exception as error:  # transformers raises anything where files are missing
            reason = cause = error
            continue
        reason = problem(processor)
        if reason is None:
            return processor
    raise ProcessorError(
        f"No {name} could be loaded from {where}: {reason} {way_out}", expected=f"a {name}", given=str(where)
    ) from cause


def fixed_ladder(source: Any, options: Mapping[str, Any], roles: tuple[str, ...]) -> ShapeLadder | None:
    """Returns the contracts of a repo with one model that fixes the size of any of these roles, or None.

    Args:
        source: A folder or a Hub repo id.
        options: As in `source_of`.
        roles: The roles.

    Raises:
        InvalidModelError: The repo's graph is broken.
    """
    hub = hub_among(options)
    for each in (hub, replace(hub, subfolder="")):
        try:
            ladder = peek_ladder(source, file_name=options.get("file_name"), hub=each)
        except GraphNotFoundError:
            continue
        return ladder if any(ladder.limit(role) is not None for role in roles) else None
    return None


def _holds(folder: Path, kind: str) -> bool:
    return any((folder / name).is_file() for name in FILES[kind])
