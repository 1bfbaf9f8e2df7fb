"""What ``run`` feeds to a pipeline: the lines of files and of stdin, and files that are items themselves."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimum_fixedshape.errors import ExistingFilesError, InvalidInputError
from optimum_fixedshape.tasks import Task, find_task

STDIN = "-"
_OBJECTS = (".jsonl", ".ndjson")
_LINES = (*_OBJECTS, ".txt")

_TOGETHER: Mapping[str, Sequence[str]] = {
    "text-classification": ("text", "text_pair"),
    "question-answering": ("question", "context"),
    "document-question-answering": ("image", "question", "word_boxes"),
}
"""The keys of objects that make one item of a task."""

_ALONE = ("text", "sequence", "prompt", "messages", "image", "audio", "video", "inputs")
"""Keys of objects that hold the item of any other task."""


_TEXTS = (("text", "text_pair"), ("question", "context"), ("sequence",), ("inputs",))
"""The keys of objects that hold a text, or a pair of texts."""


@dataclass(frozen=True)
class Item:
    """One item, and where it came from.

    Attributes:
        value: A text, a path or an object, as it was written; or the error that a line cannot be read with.
        where: The file and the line, for messages.
    """

    value: Any
    where: str


def read_items(inputs: Sequence[str], task: Task) -> Iterator[Item]:
    """Yields the items of files, in order, read as they are asked for.

    The lines of ``.txt``, ``.jsonl`` and ``.ndjson`` files are items, and for texts those of all other files. What is
    left is an item itself: an image, a sound or a clip. Empty lines are skipped.

    Args:
        inputs: Files and URLs; ``-`` is stdin.
        task: What they are for.

    Raises:
        OSError: A file cannot be read.
    """
    for name in inputs:
        if name == STDIN:
            yield from _lines(sys.stdin.buffer, "stdin", strict=False)
        elif _is_item(name, task):
            yield Item(name, name)
        else:
            with Path(name).open("rb") as file:
                yield from _lines(file, name, strict=Path(name).suffix.lower() in _OBJECTS)


def check_files(inputs: Sequence[str], output: Path | None = None) -> None:
    """Raises an error if one of the inputs is not there, or would be lost.

    Raises:
        FileNotFoundError: It is not.
        IsADirectoryError: It is a folder.
        ExistingFilesError: It is where the output goes.
    """
    for name in inputs:
        if name == STDIN or "://" in name:
            continue
        if Path(name).is_dir():
            raise IsADirectoryError(f"{name} is a folder. Name its files, as in {Path(name) / '*'}.")
        if not Path(name).is_file():
            raise FileNotFoundError(f"There is no file {name}. A text goes to stdin: echo 'A text.' | ...")
        if output and output.exists() and output.samefile(name):
            raise ExistingFilesError(f"{name} is read: its answers need a file of their own.", files=(name,))


def _is_item(name: str, task: Task) -> bool:
    return task.modality != "text" and Path(name).suffix.lower() not in _LINES


def _lines(file: Iterable[bytes], name: str, *, strict: bool) -> Iterator[Item]:
    for number, line in enumerate(file, 1):
        if line.strip():
            where = f"{name}, line {number}"
            yield Item(_value(line, where, strict=strict), where)


def _value(line: bytes, where: str, *, strict: bool) -> Any:
    """What a line holds: JSON where it must be, else the object that it is, else its text."""
    try:
        text = line.decode("utf-8-sig").strip("\r\n")
    except UnicodeDecodeError as error:
        return InvalidInputError(f"Expected UTF-8, got {line[:60]!r} ({error.reason}).", item=where)
    if not strict and not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        return InvalidInputError(f"Expected JSON, got {text[:60]!r} ({error}).", item=where) if strict else text


def call_of(item: Item, task: Task) -> tuple[Any, dict[str, Any]]:
    """Returns what an item is for a pipeline of the task, and the arguments that its object holds beside it.

    Raises:
        InvalidInputError: An object holds no item, or its line could not be read.
    """
    if isinstance(item.value, Exception):
        raise item.value
    if not isinstance(item.value, dict):
        return item.value, {}
    together = _TOGETHER.get(task.name, ())
    if found := [key for key in together if key in item.value]:
        rest = {key: value for key, value in item.value.items() if key not in found}
        return {key: item.value[key] for key in found}, rest
    alone = () if together else _ALONE
    key = next((key for key in alone if key in item.value), None)
    if key is None:
        wanted = " and ".join(together) or "one of " + ", ".join(alone)
        given = ", ".join(map(repr, item.value)) or "nothing"
        raise InvalidInputError(f"An object for {task.name} holds {wanted}; this one has {given}.", item=item.where)
    return item.value[key], {name: value for name, value in item.value.items() if name != key}


def texts_of(name: str) -> Iterator[str | tuple[str, str]]:
    """Yields the texts, or pairs of texts, of a file, whatever they are for.

    Args:
        name: The file; ``-`` is stdin.

    Raises:
        InvalidInputError: A line could not be read, or its object holds no text.
    """
    for item in read_items([name], find_task("feature-extraction")):
        value = item.value
        keys = next((each for each in _TEXTS if isinstance(value, dict) and each[0] in value), ())
        texts = [value[key] for key in keys if key in value] if keys else [value]
        if isinstance(value, Exception):
            raise value
        if not all(isinstance(text, str) for text in texts):
            raise InvalidInputError(f"Expected a text, or an object that holds one, got {value!r}.", item=item.where)
        yield texts[0] if len(texts) == 1 else (texts[0], texts[1])
