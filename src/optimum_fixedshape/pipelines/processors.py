"""The processors of a pipeline: those that its task needs, each told what the graph takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from optimum_fixedshape.contract import ShapeContract
from optimum_fixedshape.errors import ProcessorError, UnsupportedTaskError
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.processors.combined import CUTTING, FIXES, ROLES
from optimum_fixedshape.processors.fixed import FixedShapeProcessor
from optimum_fixedshape.roles import HEIGHT
from optimum_fixedshape.tasks import Overflow, Task

KINDS = ("tokenizer", "image_processor", "feature_extractor", "video_processor")
Given = Mapping[str, Any]


def needed_processors(row: Task, contract: ShapeContract) -> tuple[str, ...]:
    """Returns the kinds of processors that pipelines of the task need for this graph.

    Raises:
        UnsupportedTaskError: The graph takes something else than the task reads.
    """
    known = {kind for kind, roles in ROLES.items() if any(role in contract.sizes for role in roles)}
    if known.isdisjoint(row.processors) and known:
        taken = ", ".join(map(str, contract.inputs))
        raise UnsupportedTaskError(f"The task {row.name} does not go with a graph that takes {taken}.", task=row.name)
    return tuple(kind for kind in row.processors if kind != "image_processor" or HEIGHT in contract.sizes)


def check_processors(row: Task, contract: ShapeContract, given: Given) -> dict[str, Any]:
    """Returns the given processors that the task needs, each under the name of its kind.

    Raises:
        ProcessorError: One is missing, or is of another kind.
    """
    found = {}
    for kind in needed_processors(row, contract):
        processor = given.get(kind)
        if processor is None and kind == "video_processor":
            processor = given.get("image_processor")
        if processor is None:
            raise ProcessorError(
                f"The task {row.name} needs {with_article(kind)}: pass {kind}= or data_processor=.",
                expected=with_article(kind),
                given="nothing",
            )
        found[kind] = processor
    return found


def fix_processors(
    processors: Given, row: Task, ladder: ShapeLadder, overflow: Overflow
) -> Iterator[tuple[str, FixedShapeProcessor]]:
    """Yields each processor, told what the graph takes, with the argument of transformers' pipeline that it goes to."""
    for kind, processor in processors.items():
        if kind == "tokenizer" and "input_ids" not in row.inputs:
            yield kind, processor  # it only reads what came out
        elif kind in CUTTING:
            yield kind, FIXES[kind](processor, ladder, overflow=overflow, exact_length=True)
        else:
            # transformers 4.57 has no argument for video processors, and no pipeline needs to tell the two apart.
            yield "image_processor", FIXES[kind](processor, ladder)


def overflow_of(processors: Given) -> Overflow | None:
    """Returns what the processors were asked to do with long items; None for the default, which is the task's."""
    asked = (getattr(processor, "overflow", None) for processor in processors.values())
    return next((overflow for overflow in asked if overflow not in (None, "error")), None)


def with_article(kind: str) -> str:
    """Returns a kind of processor in words, such as ``"an image processor"``."""
    name = kind.replace("_", " ")
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
