"""A file as protobuf fields: a walk that seeks past what nobody needs, and trusts nothing.

A file is hostile until it has been read: both the time spent on it and the memory kept are bounded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum, auto
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.paths import path_of

_VARINT, _LENGTH = 0, 2
_FIXED_SIZES: Final = {1: 8, 5: 4}
_LONGEST_VARINT = 10
_SMALLEST_TAG, _LARGEST_TAG = 1 << 3, 2**32 - 1

_WINDOW = 8 * 1024  # small, because each weight that is sought past costs a new window
_LONGEST_NAME = 64 * 1024
_LONGEST_METADATA = 4 * 1024 * 1024  # text recognizers keep their character tables here: more than a name may hold
_BUDGET, _FIELD_COST, _MESSAGE_COST = 2**25, 32, 96  # 1 million fields, 260,000 messages, or 32 MiB of text

_GIT_LFS = b"version https://git-lfs"

UNDEFINED = "undefined"
# NumPy's names, and onnxruntime's where NumPy has none; the place is the number of the type.
_DTYPES: Final = (
    *(UNDEFINED, "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16"),
    *("float64", "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz"),
    *("float8e5m2", "float8e5m2fnuz", "uint4", "int4", "float4e2m1", "float8e8m0", "uint2", "int2", "float6e2m3"),
    "float6e3m2",
)


class Kind(Enum):
    """What a field holds; `MESSAGES` may stand more than once, `SKIPPED` is text or messages that nobody needs.

    `INTEGERS` may stand more than once, too, and be packed: several behind one tag.
    """

    INTEGER = auto()
    INTEGERS = auto()
    DTYPE = auto()
    TEXT = auto()
    LONG_TEXT = auto()
    MESSAGE = auto()
    MESSAGES = auto()
    SKIPPED = auto()


# Names of this module, as looking members up in an Enum costs more than all else that is done to a field.
_INTEGER, _INTEGERS, _DTYPE, _TEXT, _LONG_TEXT, _MESSAGE, _MESSAGES = list(Kind)[:7]
_NUMBERS: Final = (_INTEGER, _INTEGERS, _DTYPE)
Table = Mapping[int, tuple[str, Kind]]


def known(kind: Kind, **numbers: int) -> dict[int, tuple[str, Kind]]:
    """Returns the rows of a table for fields of one kind, given as ``name=number``."""
    return {number: (name, kind) for name, number in numbers.items()}


def _signed(integer: int) -> int:
    return integer - 2**64 if integer >= 2**63 else integer


class Span(NamedTuple):
    """The bytes of one message or text."""

    name: str
    start: int
    end: int


class Header:
    """A file as protobuf fields, seen through a window of a few KiB.

    Args:
        file: An open seekable binary file.
        path: Where it was opened, if that is known.
    """

    def __init__(self, file: BinaryIO, path: Path | None = None) -> None:
        self.path = path
        self._file = file
        self._file.seek(0, os.SEEK_END)
        self.whole = Span("model", 0, self._file.tell())
        self._window = b""
        self._window_start = 0
        self._spent = 0

    def fields(self, within: Span, table: Table) -> Iterator[tuple[str, Any]]:
        """Yields name and value of the fields that `table` knows, in the file's order.

        A value is an integer, a tuple of integers, a text, or the span of a message.
        """
        at, end = within.start, within.end
        seen = set()
        self._spend(_MESSAGE_COST, at)
        while at < end:
            self._spent += _FIELD_COST
            if self._spent > _BUDGET:
                self._spend(0, at)
            tag_at = at
            tag, start = self._varint(at, end)
            if not _SMALLEST_TAG <= tag <= _LARGEST_TAG:
                raise self.invalid(tag_at, f"a field of {within.name}", f"field number {tag >> 3}")
            wire, (name, kind) = tag & 7, table.get(tag >> 3, ("", None))
            integer = 0
            if wire == _VARINT:
                integer, at = self._varint(start, end)
            elif wire == _LENGTH:
                size, start = self._varint(start, end)
                at = start + size
            elif wire in _FIXED_SIZES:
                at = start + _FIXED_SIZES[wire]
            else:
                raise self.invalid(tag_at, f"a field of {within.name}", f"wire type {wire}, which ONNX never uses")
            if at > end:
                raise self.invalid(start, f"at most {end - start} more bytes in {within.name}", f"{at - start}")
            if kind is None:
                continue
            if kind is _TEXT and wire == _LENGTH:  # most are, in a graph full of nodes
                yield name, self._text(name, start, at, _LONGEST_NAME)
            elif kind is _INTEGERS and wire == _LENGTH:
                yield name, self._packed(start, at)
            elif wire != (_VARINT if kind in _NUMBERS else _LENGTH):
                raise self.invalid(tag_at, f"{within.name}.{name} as ONNX codes it", f"wire type {wire}")
            elif kind is _MESSAGES:
                yield name, Span(name, start, at)
            elif kind is _MESSAGE:
                if name in seen:
                    raise self.invalid(tag_at, f"{within.name}.{name} once", "it a second time")
                seen.add(name)
                yield name, Span(name, start, at)
            elif kind is _INTEGER:
                yield name, _signed(integer)
            elif kind is _INTEGERS:
                yield name, (_signed(integer),)
            elif kind is _DTYPE:
                yield name, self._dtype(integer, tag_at)
            elif kind is _LONG_TEXT:
                yield name, self._text(name, start, at, _LONGEST_METADATA)

    def invalid(self, at: int, expected: str, got: str) -> InvalidModelError:
        """Returns the error for what stands at byte `at`."""
        if self._window_start == 0 and self._window.startswith(_GIT_LFS):
            way_out = "It is a Git LFS pointer: get the model itself with `git lfs pull`."
        else:
            way_out = "It is no ONNX file, or was cut short or damaged on its way: download or export it again."
        name, path = ("The stream", None) if self.path is None else (str(self.path), str(self.path))
        problem = f"{name} is not a valid ONNX model: at byte {at}, expected {expected}, got {got}."
        return InvalidModelError(f"{problem} {way_out}", path=path)

    def _spend(self, cost: int, at: int) -> None:
        self._spent += cost
        if self._spent > _BUDGET:
            raise self.invalid(at, "a header of reasonable size", "more fields and text than any model needs")

    def _dtype(self, number: int, at: int) -> str:
        if number >= len(_DTYPES):
            raise self.invalid(at, f"an element type from 0 to {len(_DTYPES) - 1}", str(number))
        return _DTYPES[number]

    def _packed(self, start: int, end: int) -> tuple[int, ...]:
        found, at = [], start
        while at < end:
            self._spend(_FIELD_COST, at)
            integer, at = self._varint(at, end)
            found.append(_signed(integer))
        return tuple(found)

    def _text(self, name: str, start: int, end: int, longest: int) -> str:
        size = end - start
        if size > longest:
            raise self.invalid(start, f"{name} of at most {longest} bytes", str(size))
        self._spend(size, start)
        try:
            return self._bytes(start, size).decode()
        except UnicodeDecodeError as error:
            raise self.invalid(start, f"{name} in UTF-8", error.reason) from None

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        offset = at - self._window_start
        if not 0 <= offset <= len(self._window) - _LONGEST_VARINT:
            self._window = self._bytes(at, min(_WINDOW, self.whole.end - at))
            self._window_start, offset = at, 0
        if at < end and self._window[offset] < 0x80:  # most are one byte long
            return self._window[offset], at + 1
        value = 0
        for index in range(min(_LONGEST_VARINT, end - at)):
            byte = self._window[offset + index]
            value |= (byte & 0x7F) << 7 * index
            if byte < 0x80 and value < 2**64:
                return value, at + index + 1
        raise self.invalid(at, "an integer of at most 64 bits", "one that is longer or does not end")

    def _bytes(self, at: int, size: int) -> bytes:
        offset = at - self._window_start
        if 0 <= offset <= len(self._window) - size:
            return self._window[offset : offset + size]
        self._file.seek(at)
        found = b""
        while len(found) < size:
            part = self._file.read(size - len(found))
            if not part:
                raise self.invalid(at + len(found), f"{size - len(found)} more bytes", "the end of the file")
            found += part
        return found


@contextmanager
def open_header(path: str | os.PathLike[str] | BinaryIO) -> Iterator[Header]:
    """Yields the header of an ONNX file, or of an open seekable binary file, which is left open.

    Raises:
        FileNotFoundError: There is no such file.
        InvalidModelError: It is no file.
    """
    if not isinstance(path, str | os.PathLike) and hasattr(path, "seek"):
        yield Header(path)
        return
    path = path_of(path, "An ONNX file")
    if path.exists() and not path.is_file():
        raise InvalidModelError(f"{path} is not a file. Expected an ONNX file, such as model.onnx.", path=str(path))
    with path.open("rb", buffering=0) as file:
        yield Header(file, path)
