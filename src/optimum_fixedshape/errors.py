"""The error family: every error of this package is a `FixedShapeError` and a fitting builtin. And how it warns."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from typing import Any

_PACKAGE = __name__.partition(".")[0]


def warn(message: str) -> None:
    """Warns at the line of the user's code that called into this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, FixedShapeWarning, stacklevel=level)


class FixedShapeWarning(UserWarning):
    """What a user should know and may well ignore: every warning of this package."""


class FixedShapeError(Exception):
    """Base of all errors of this package.

    Args:
        message: What was expected, what came, and the way out.
        **facts: The same facts as attributes, for programs.
    """

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)


class InvalidModelError(FixedShapeError, ValueError):
    """A file is not an ONNX model, is cut short, or holds what a well-formed model cannot hold.

    Attributes:
        path: The file, or None where bytes were read from a stream.
    """

    path: str | None = None


class GraphNotFoundError(FixedShapeError, FileNotFoundError):
    """A file, folder or Hub repo holds no ONNX graph, or not the one that was asked for.

    Attributes:
        source: What was searched.
        found: The graphs that are there.
    """

    source: str
    found: tuple[str, ...] = ()


class ShapeMismatchError(FixedShapeError, ValueError):
    """Arrays, or asked-for shapes, contradict what the graph fixes.

    Attributes:
        mismatches: One `optimum_fixedshape.contract.Mismatch` for each contradiction.
    """

    mismatches: tuple[Any, ...] = ()


class InputTooLongError(FixedShapeError, OverflowError):
    """An item is larger than the largest rung, and nobody said that it may be cut.

    Attributes:
        index: Which item of the call, counted from 0; None where the items are rows of one array.
        size: Its size along `axis`.
        limit: The largest size that the graph takes.
        axis: The shape key, such as ``"sequence_length"``.
    """

    index: int | None = None
    size: int
    limit: int
    axis: str


class QuestionTooLongError(InputTooLongError, ValueError):
    """A question fills the window, so that no token of the context fits beside it."""


class MissingInputError(FixedShapeError, ValueError):
    """The graph wants an input that was not given and that cannot be made from the others.

    Attributes:
        missing: The names that the graph wants.
        given: The names that came.
    """

    missing: tuple[str, ...] = ()
    given: tuple[str, ...] = ()


class ProcessorError(FixedShapeError, TypeError):
    """A processor is missing, or is of the wrong kind for the task.

    Attributes:
        expected: The kind that is needed.
        given: What came.
    """

    expected: str
    given: str


class InvalidInputError(FixedShapeError, ValueError):
    """An image, a sound, a clip or a line of a file cannot be read, or there is nothing in it.

    Attributes:
        item: What came, in a few words.
    """

    item: str


class InvalidArgumentError(FixedShapeError, ValueError):
    """An argument has a value that it cannot have, such as a policy or a device that nobody knows."""


class QueueFullError(FixedShapeError, TimeoutError):
    """A batcher has no place for another item, and none became free in time.

    Attributes:
        max_queue: How many items wait already.
        timeout: Seconds that this one waited for a place.
    """

    max_queue: int
    timeout: float


class BatcherClosedError(FixedShapeError, RuntimeError):
    """A batcher takes no more items, or has closed before an item was started."""


class UnsupportedTaskError(FixedShapeError, KeyError):
    """A task is unknown, or has no class here.

    Attributes:
        task: The name that was asked for.
        known: The names that exist.
    """

    task: str | None
    known: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.args[0])  # KeyError would print the message's repr


class ExportError(FixedShapeError, RuntimeError):
    """A PyTorch model could not be written as a graph whose shapes are baked in.

    Attributes:
        architecture: The model's class.
        shapes: Input name to the shape that was asked for.
    """

    architecture: str
    shapes: Mapping[str, tuple[int, ...]]


class ExistingFilesError(FixedShapeError, FileExistsError):
    """Files would be overwritten that hold something else.

    Attributes:
        files: Their paths.
    """

    files: tuple[str, ...] = ()


class MissingExtraError(FixedShapeError, ImportError):
    """An optional dependency is not installed; the message is the pip command that installs it.

    Attributes:
        extra: The name of the extra.
    """

    extra: str
