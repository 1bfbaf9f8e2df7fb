"""Reads what a graph demands from its file's header: a walk over protobuf fields that seeks past every weight.

Field names and numbers are those of ``onnx.proto``. A file is hostile until it has been read: what a well-formed
model cannot hold is an `InvalidModelError`, and both the time spent and the memory kept are bounded.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO, Final, NamedTuple

from optimum_fixedshape.contract import Axis, ShapeContract, TensorSpec
from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.roles import with_input_roles, with_output_roles

_VARINT, _LENGTH = 0, 2
_FIXED_SIZES: Final = {1: 8, 5: 4}
_LONGEST_VARINT = 10
_SMALLEST_TAG, _LARGEST_TAG = 1 << 3, 2**32 - 1

_WINDOW = 8 * 1024  # small, because each weight that is sought past costs a new window
_LONGEST_NAME = 64 * 1024
_LONGEST_METADATA = 4 * 1024 * 1024  # text recognizers keep their character tables here: more than a name may hold
_MOST_AXES = 64  # NumPy's own limit
_MOST_ELEMENTS = 2**34
_DEEPEST_TYPE = 16
_BUDGET, _FIELD_COST, _MESSAGE_COST = 2**25, 32, 96  # 1 million fields, 260,000 messages, or 32 MiB of text

_GIT_LFS = b"version https://git-lfs"


class _Kind(Enum):
    """What a field holds; `MESSAGES` may stand more than once, `SKIPPED` is text or messages that nobody needs."""

    INTEGER = auto()
    DTYPE = auto()
    TEXT = auto()
    LONG_TEXT = auto()
    MESSAGE = auto()
    MESSAGES = auto()
    SKIPPED = auto()


_INTEGERS: Final = (_Kind.INTEGER, _Kind.DTYPE)
_Table = Mapping[int, tuple[str, _Kind]]


def _known(kind: _Kind, **numbers: int) -> dict[int, tuple[str, _Kind]]:
    return {number: (name, kind) for name, number in numbers.items()}


_MODEL: Final[_Table] = (
    _known(_Kind.INTEGER, ir_version=1, model_version=5)
    | _known(_Kind.TEXT, producer_name=2, producer_version=3)
    | _known(_Kind.MESSAGE, graph=7)
    | _known(_Kind.MESSAGES, opset_import=8, metadata_props=14)
    | _known(_Kind.SKIPPED, domain=4, doc_string=6, training_info=20, functions=25, configuration=26)
)
_GRAPH: Final[_Table] = _known(_Kind.MESSAGES, initializer=5, input=11, output=12, sparse_initializer=15) | _known(
    _Kind.SKIPPED, node=1, name=2, doc_string=10, value_info=13, quantization_annotation=14, metadata_props=16
)
_TENSOR: Final[_Table] = (
    _known(_Kind.INTEGER, data_type=2, data_location=14)
    | _known(_Kind.TEXT, name=8)
    | _known(_Kind.MESSAGES, external_data=13)
    | _known(_Kind.SKIPPED, segment=3, string_data=6, raw_data=9, doc_string=12, metadata_props=16)
)
_SPARSE_TENSOR: Final[_Table] = _known(_Kind.MESSAGE, values=1, indices=2)
_OPSET: Final[_Table] = _known(_Kind.TEXT, domain=1) | _known(_Kind.INTEGER, version=2)
_ENTRY: Final[_Table] = _known(_Kind.TEXT, key=1, value=2)
_METADATA: Final[_Table] = _known(_Kind.TEXT, key=1) | _known(_Kind.LONG_TEXT, value=2)
_VALUE: Final[_Table] = _known(_Kind.TEXT, name=1) | _known(_Kind.MESSAGE, type=2)
_TYPE: Final[_Table] = _known(_Kind.MESSAGE, tensor=1, sequence=4, map=5, opaque=7, sparse_tensor=8, optional=9)
_TYPES: Final[Mapping[str, _Table]] = {
    "tensor": _known(_Kind.DTYPE, elem_type=1) | _known(_Kind.MESSAGE, shape=2),
    "sequence": _known(_Kind.MESSAGE, elem_type=1),
    "map": _known(_Kind.DTYPE, key_type=1) | _known(_Kind.MESSAGE, value_type=2),
    "opaque": _known(_Kind.TEXT, domain=1, name=2),
    "sparse_tensor": _known(_Kind.DTYPE, elem_type=1),
    "optional": _known(_Kind.MESSAGE, elem_type=1),
}
_SHAPE: Final[_Table] = _known(_Kind.MESSAGES, dim=1)
_DIM: Final[_Table] = _known(_Kind.INTEGER, dim_value=1) | _known(_Kind.TEXT, dim_param=2)

_UNDEFINED = "undefined"
# NumPy's names, and onnxruntime's where NumPy has none; the place is the number of the type.
_DTYPES: Final = (
    *(_UNDEFINED, "float32", "uint8", "int8", "uint16", "int16", "int32", "int64", "string", "bool", "float16"),
    *("float64", "uint32", "uint64", "complex64", "complex128", "bfloat16", "float8e4m3fn", "float8e4m3fnuz"),
    *("float8e5m2", "float8e5m2fnuz", "uint4", "int4", "float4e2m1", "float8e8m0", "uint2", "int2", "float6e2m3"),
    "float6e3m2",
)
_INLINE, _EXTERNAL = 0, 1


class _Span(NamedTuple):
    """The bytes of one message or text."""

    name: str
    start: int
    end: int


def read_contract(
    path: str | os.PathLike[str] | BinaryIO, *, roles: Mapping[str, Sequence[str | None]] | None = None
) -> ShapeContract:
    """Returns what an ONNX graph demands, read from its file's header alone.

    No weight is read and no external file is opened, so that a model of any size takes milliseconds and a few KiB.
    Weights inside subgraphs of nodes are not looked at, and their files are not among ``external_data``.

    Args:
        path: The file, or an open seekable binary file, which is read from its start and left open.
        roles: Input or output name to the role of each of its axes, where the guessed ones are wrong.

    Raises:
        FileNotFoundError: There is no such file.
        InvalidModelError: The file is not an ONNX model, is cut short or damaged, or keeps weights outside its folder.
        ShapeMismatchError: `roles` names more or fewer axes than the graph has.
    """
    if not isinstance(path, str | os.PathLike):
        return _read_model(_Header(path), roles or {})
    path = Path(path)
    if path.exists() and not path.is_file():
        raise InvalidModelError(f"{path} is not a file. Expected an ONNX file, such as model.onnx.", path=str(path))
    with path.open("rb", buffering=0) as file:
        return _read_model(_Header(file, path), roles or {})


class _Header:
    """A file as protobuf fields, seen through a window of a few KiB.

    Args:
        file: An open seekable binary file.
        path: Where it was opened, if that is known.
    """

    def __init__(self, file: BinaryIO, path: Path | None = None) -> None:
        self.path = path
        self._file = file
        self._file.seek(0, os.SEEK_END)
        self.whole = _Span("model", 0, self._file.tell())
        self._window = b""
        self._window_start = 0
        self._spent = 0

    def fields(self, within: _Span, table: _Table) -> Iterator[tuple[str, Any]]:
        """Yields name and value of the fields that `table` knows, in the file's order: an integer, a text, a span."""
        at, end = within.start, within.end
        seen = set()
        self._spend(_MESSAGE_COST, at)
        while at < end:
            self._spend(_FIELD_COST, at)
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
            if wire != (_VARINT if kind in _INTEGERS else _LENGTH):
                raise self.invalid(tag_at, f"{within.name}.{name} as ONNX codes it", f"wire type {wire}")
            if kind is _Kind.SKIPPED:
                continue
            if kind is _Kind.MESSAGE and name in seen:
                raise self.invalid(tag_at, f"{within.name}.{name} once", "it a second time")
            seen.add(name)
            if kind is _Kind.INTEGER:
                yield name, integer - 2**64 if integer >= 2**63 else integer
            elif kind is _Kind.DTYPE:
                yield name, self._dtype(integer, tag_at)
            elif kind is _Kind.TEXT:
                yield name, self._text(_Span(name, start, at), _LONGEST_NAME)
            elif kind is _Kind.LONG_TEXT:
                yield name, self._text(_Span(name, start, at), _LONGEST_METADATA)
            else:
                yield name, _Span(name, start, at)

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

    def _text(self, span: _Span, longest: int) -> str:
        size = span.end - span.start
        if size > longest:
            raise self.invalid(span.start, f"{span.name} of at most {longest} bytes", str(size))
        self._spend(size, span.start)
        try:
            return self._bytes(span.start, size).decode()
        except UnicodeDecodeError as error:
            raise self.invalid(span.start, f"{span.name} in UTF-8", error.reason) from None

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


def _read_model(header: _Header, roles: Mapping[str, Sequence[str | None]]) -> ShapeContract:
    graph = None
    opset, metadata = {}, {}
    producer = {"producer_name": "", "producer_version": ""}
    for name, value in header.fields(header.whole, _MODEL):
        if name == "graph":
            graph = _read_graph(header, value)
        elif name == "opset_import":
            entry = {"domain": "ai.onnx"} | dict(header.fields(value, _OPSET))
            opset["" if entry["domain"] == "ai.onnx" else entry["domain"]] = entry.get("version", 0)
        elif name == "metadata_props":
            entry = dict(header.fields(value, _METADATA))
            metadata[entry.get("key", "")] = entry.get("value", "")
        elif name in producer:
            producer[name] = value
    if graph is None:
        raise header.invalid(header.whole.end, "a graph", "the end of the file")
    inputs = with_input_roles(graph.inputs, roles)
    return replace(
        graph,
        inputs=tuple(inputs),
        outputs=tuple(with_output_roles(graph.outputs, inputs, roles)),
        opset=opset,
        producer=" ".join(filter(None, producer.values())),
        metadata=metadata,
        path=header.path,
    )


def _read_graph(header: _Header, within: _Span) -> ShapeContract:
    inputs, outputs = [], []
    weights, files = set(), set[str]()
    for name, span in header.fields(within, _GRAPH):
        if name == "input":
            inputs.append(_read_value(header, span))
        elif name == "output":
            outputs.append(_read_value(header, span))
        elif name == "initializer":
            weights.add(_read_weight(header, span, files))
        else:
            parts = {part: _read_weight(header, of, files) for part, of in header.fields(span, _SPARSE_TENSOR)}
            weights.add(parts.get("values", ""))
    fed = tuple(spec for spec in inputs if spec.name not in weights)
    return ShapeContract(fed, tuple(outputs), external_data=tuple(sorted(files)))


def _read_weight(header: _Header, within: _Span, files: set[str]) -> str:
    """Returns the weight's name, and adds the external files that hold it to `files`."""
    tensor = {}
    locations = set()
    for name, value in header.fields(within, _TENSOR):
        if name == "external_data":
            entry = dict(header.fields(value, _ENTRY))
            locations |= {entry.get("value", "")} if entry.get("key") == "location" else set()
        else:
            tensor[name] = value
    stored = tensor.get("data_location", _INLINE)
    if stored not in (_INLINE, _EXTERNAL) or (stored == _EXTERNAL and not locations):
        got = f"data location {stored} with {len(locations)} files"
        raise header.invalid(within.start, "inline data, or external data with its file", got)
    if stored == _EXTERNAL:
        for file in locations - files:
            if not _is_beside(file):
                raise header.invalid(within.start, "external data inside the model's folder", repr(file[:200]))
        files |= locations
    return str(tensor.get("name", ""))


def _is_beside(file: str) -> bool:
    path = PureWindowsPath(file)  # knows both slashes, and drives
    climbs = any(not part.strip(". ") for part in path.parts)  # Windows drops dots and spaces at a name's end
    return bool(path.parts) and not path.anchor and not climbs and "\0" not in file


def _read_value(header: _Header, within: _Span) -> TensorSpec:
    value = dict(header.fields(within, _VALUE))
    name = value.get("name", "")
    return _read_type(header, value["type"], name) if "type" in value else TensorSpec(name, _UNDEFINED, None)


def _read_type(header: _Header, within: _Span, name: str = "", *, depth: int = 1) -> TensorSpec:
    if depth > _DEEPEST_TYPE:
        raise header.invalid(within.start, f"types nested at most {_DEEPEST_TYPE} deep", "a deeper one")
    alternatives = list(header.fields(within, _TYPE))
    if not alternatives:
        return TensorSpec(name, _UNDEFINED, None)
    kind, span = alternatives[-1]  # they are one `oneof`, where the last one counts
    members = dict(header.fields(span, _TYPES[kind]))
    if kind == "tensor":
        axes = _read_axes(header, members["shape"]) if "shape" in members else None
        return TensorSpec(name, members.get("elem_type", _UNDEFINED), axes)
    described = []
    for part, _ in _TYPES[kind].values():
        member = members.get(part, _UNDEFINED)
        nested = isinstance(member, _Span)
        described.append(_read_type(header, member, depth=depth + 1).dtype if nested else member)
    return TensorSpec(name, f"{kind}({', '.join(described)})", None)


def _read_axes(header: _Header, within: _Span) -> tuple[Axis, ...]:
    axes: list[Axis] = []
    for _, dim in header.fields(within, _SHAPE):
        if len(axes) == _MOST_AXES:
            raise header.invalid(dim.start, f"at most {_MOST_AXES} axes", "one more")
        axes.append(_read_axis(header, dim))
    elements = math.prod(axis.size or 1 for axis in axes)
    if elements > _MOST_ELEMENTS:
        got = f"2**{elements.bit_length() - 1} or more"
        raise header.invalid(within.start, f"at most 2**{_MOST_ELEMENTS.bit_length() - 1} elements", got)
    return tuple(axes)


def _read_axis(header: _Header, within: _Span) -> Axis:
    axis = Axis(None)
    for name, value in header.fields(within, _DIM):  # one `oneof` again
        axis = Axis(max(value, 0) or None) if name == "dim_value" else Axis(None, value or None)
    return axis
