"""Processors of every kind under one roof: which are there, and combinations such as `CLIPProcessor`."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from transformers import BaseImageProcessor, FeatureExtractionMixin, PreTrainedTokenizerBase
from transformers.processing_utils import ProcessorMixin
from transformers.video_processing_utils import BaseVideoProcessor

from optimum_fixedshape.contract import SAMPLES, SEQUENCE, ShapeContract
from optimum_fixedshape.errors import ProcessorError
from optimum_fixedshape.fitting import Feed, Fill, fit, pad_id_of, prepare
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.roles import FRAMES, HEIGHT, MEL_FRAMES, PATCHES
from optimum_fixedshape.tasks import Overflow

from .audio import fix_feature_extractor
from .fixed import FixedShapeProcessor, fix
from .image import fix_image_processor
from .text import fix_tokenizer
from .video import fix_video_processor

ROLES: Mapping[str, tuple[str, ...]] = {
    "tokenizer": (SEQUENCE,),
    "video_processor": (FRAMES,),
    "image_processor": (HEIGHT, PATCHES),
    "feature_extractor": (SAMPLES, MEL_FRAMES),
}
"""Kinds of processors, under the names of transformers' arguments, and the roles that call for them."""

FIXES: Mapping[str, Callable[..., Any]] = {
    "tokenizer": fix_tokenizer,
    "video_processor": fix_video_processor,
    "image_processor": fix_image_processor,
    "feature_extractor": fix_feature_extractor,
}
CUTTING = ("tokenizer", "feature_extractor")
"""Kinds that know what to do with items longer than the graph."""

_BASES: tuple[tuple[str, type], ...] = (
    ("tokenizer", PreTrainedTokenizerBase),
    ("video_processor", BaseVideoProcessor),
    ("image_processor", BaseImageProcessor),
    ("feature_extractor", FeatureExtractionMixin),
)


def kinds_of(contract: ShapeContract) -> tuple[str, ...]:
    """Returns the kinds of processors that make what the graph takes.

    Raises:
        ProcessorError: Nobody knows what an axis of the graph stands for.
    """
    found = [kind for kind, roles in ROLES.items() if any(role in contract.sizes for role in roles)]
    if "video_processor" in found:
        found = [kind for kind in found if kind != "image_processor"]
    if not found:
        what = ", ".join(map(str, contract.inputs))
        raise ProcessorError(
            f"Nobody knows what the inputs of this graph are: {what}. Say what their axes stand for: "
            "read_contract(path, roles={...}) gives a contract that from_model takes.",
            expected="text, an image, a sound or a clip",
            given=what,
        )
    return tuple(found)


def parts_of(processor: Any) -> dict[str, Any]:
    """Returns the processors that `processor` consists of, by kind: itself, where it is no combination of several.

    Raises:
        ProcessorError: It is no processor of transformers.
    """
    if isinstance(processor, ProcessorMixin):
        return {kind: part for kind in ROLES if (part := processor.__dict__.get(kind)) is not None}
    for kind, base in _BASES:
        if isinstance(processor, base):
            return {kind: processor}
    raise ProcessorError(
        f"A processor of transformers is needed, got {type(processor).__name__}.",
        expected="a processor",
        given=type(processor).__name__,
    )


def is_of_kind(processor: Any, kind: str) -> bool:
    """Whether a processor can be the one of this kind; some image processors take clips."""
    kinds = ("image_processor", kind) if kind == "video_processor" else (kind,)
    return any(isinstance(processor, base) for each, base in _BASES if each in kinds)


class FixedShapeCombination(FixedShapeProcessor):
    """Mixed into the user's class by `fix_processor`: a combination whose parts know the graph."""

    def plain(self) -> Any:
        """Returns the combination as transformers made it, of plain parts."""
        parts = {kind: part.plain() for kind, part in parts_of(self).items() if isinstance(part, FixedShapeProcessor)}
        others = {name: value for name, value in self.__dict__.items() if name not in parts.keys() | self._added}
        twin = object.__new__(self._plain_class)
        twin.__dict__.update(copy.deepcopy(others), **parts)
        return twin

    def feeds(self, **inputs: Any) -> Iterator[Feed]:
        """Yields feeds for a bare `InferenceSession` that together hold all the inputs, exact in every dimension.

        With two towers these are all pairs: ``feed.spans`` says which rows of which tower a feed holds.

        Args:
            **inputs: The arguments of a call: ``text=``, ``images=``, ``audio=``, ...
        """
        this: Any = self
        arrays, sizes = prepare(this(**{"return_tensors": "np", **inputs}), self.ladder.largest)
        rung = self.ladder.rungs[self.ladder.choose(sizes)]
        yield from fit(arrays, rung, Fill(pad_id_of(getattr(this, "tokenizer", None))))


def fix_processor(processor: Any, ladder: ShapeLadder, *, overflow: Overflow = "error") -> Any:
    """Returns a processor of the same class, told what the graph takes. The one given stays as it was.

    Args:
        processor: A processor of any kind, or a combination.
        ladder: The graph's contracts.
        overflow: What happens to texts and sounds longer than the graph.

    Raises:
        ProcessorError: It is no processor of transformers.
    """
    needed = kinds_of(ladder.largest)
    fixed = {
        kind: _fixed(kind if kind in needed else "video_processor", part, ladder, overflow)
        for kind, part in parts_of(processor).items()
        if kind in needed or (kind == "image_processor" and "video_processor" in needed)
    }
    if not isinstance(processor, ProcessorMixin):
        return next(iter(fixed.values()), processor)
    shell = copy.copy(processor.plain() if isinstance(processor, FixedShapeCombination) else processor)
    combination = fix(FixedShapeCombination, shell, ladder, {})
    for kind, part in fixed.items():
        setattr(combination, kind, part)
    return combination


def _fixed(kind: str, part: Any, ladder: ShapeLadder, overflow: Overflow) -> Any:
    return FIXES[kind](part, ladder, **({"overflow": overflow} if kind in CUTTING else {}))
