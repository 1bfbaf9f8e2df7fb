"""Reads what a graph demands from its file's header: a walk over protobuf fields that seeks past every weight.

Field names and numbers are those of ``onnx.proto``. What a well-formed model cannot hold is an `InvalidModelError`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import BinaryIO, Final

from optimum_fixedshape.contract import Axis, ShapeContract, TensorSpec
from optimum_fixedshape.graph.header import UNDEFINED, Header, Kind, Span, Table, known, open_header
from optimum_fixedshape.graph.tensors import is_beside
from optimum_fixedshape.roles import with_roles

_MOST_AXES = 64  # NumPy's own limit
_MOST_ELEMENTS = 2**34
_DEEPEST_TYPE = 16
_INLINE, _EXTERNAL = 0, 1

_MODEL: Final[Table] = (
    known(Kind.INTEGER, ir_version=1, model_version=5)
    | known(Kind.TEXT, producer_name=2, producer_version=3)
    | known(Kind.MESSAGE, graph=7)
    | known(Kind.MESSAGES, opset_import=8, metadata_props=14)
    | known(Kind.SKIPPED, domain=4, doc_string=6, training_info=20, functions=25, configuration=26)
)
_GRAPH: Final[Table] = known(Kind.MESSAGES, initializer=5, input=11, output=12, sparse_initializer=15) | known(
    Kind.SKIPPED, node=1, name=2, doc_string=10, value_info=13, quantization_annotation=14, metadata_props=16
)
_TENSOR: Final[Table] = (
    known(Kind.INTEGER, data_type=2, data_location=14)
    | known(Kind.TEXT, name=8)
    | known(Kind.MESSAGES, external_data=13)
    | known(Kind.SKIPPED, segment=3, string_data=6, raw_data=9, doc_string=12, metadata_props=16)
)
_SPARSE_TENSOR: Final[Table] = known(Kind.MESSAGE, values=1, indices=2)
_OPSET: Final[Table] = known(Kind.TEXT, domain=1) | known(Kind.INTEGER, version=2)
_ENTRY: Final[Table] = known(Kind.TEXT, key=1, value=2)
_METADATA: Final[Table] = known(Kind.TEXT, key=1) | known(Kind.LONG_TEXT, value=2)
_VALUE: Final[Table] = known(Kind.TEXT, name=1) | known(Kind.MESSAGE, type=2)
_TYPE: Final[Table] = known(Kind.MESSAGE, tensor=1, sequence=4, map=5, opaque=7, sparse_tensor=8, optional=9)
_TYPES: Final[Mapping[str, Table]] = {
    "tensor": known(Kind.DTYPE, elem_type=1) | known(Kind.MESSAGE, shape=2),
    "sequence": known(Kind.MESSAGE, elem_type=1),
    "map": known(Kind.DTYPE, key_type=1) | known(Kind.MESSAGE, value_type=2),
    "opaque": known(Kind.TEXT, domain=1, name=2),
    "sparse_tensor": known(Kind.DTYPE, elem_type=1),
    "optional": known(Kind.MESSAGE, elem_type=1),
}
_SHAPE: Final[Table] = known(Kind.MESSAGES, dim=1)
_DIM: Final[Table] = known(Kind.INTEGER, dim_value=1) | known(Kind.TEXT, dim_param=2)


def read_contract(
    path: str | os.PathLike[str] | BinaryIO,
    *,
    roles: Mapping[str, Sequence[str | None]] | None = None,
    names: Mapping[str, str] | None = None,
) -> ShapeContract:
    """Returns what an ONNX graph demands, read from its file's header alone.

    No weight is read and no external file is opened, so that a model of any size takes milliseconds and a few KiB.
    Weights inside subgraphs of nodes are not looked at, and their files are not among ``external_data``.

    Args:
        path: The file, or an open seekable binary file, which is read from its start and left open.
        roles: Input or output name to the role of each of its axes, where the guessed ones are wrong. Where `names`
            maps a name, either of the two will do.
        names: The graph's name of an input or output to the standard one that it is to have, such as
            ``{"data_0": "pixel_values"}``: the standard name then tells the roles of its axes.

    Raises:
        FileNotFoundError: There is no such file.
        InvalidModelError: The file is not an ONNX model, is cut short or damaged, or keeps weights outside its folder.
        ShapeMismatchError: `roles` names more or fewer axes than the graph has, or `names` an input or output that
            the graph has not.
    """
    with open_header(path) as header:
        return with_roles(_read_model(header).renamed(names or {}), roles or {})


def _read_model(header: Header) -> ShapeContract:
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
    return replace(
        graph,
        opset=opset,
        producer=" ".join(filter(None, producer.values())),
        metadata=metadata,
        path=header.path,
    )


def _read_graph(header: Header, within: Span) -> ShapeContract:
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


def _read_weight(header: Header, within: Span, files: set[str]) -> str:
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
            if not is_beside(file):
                raise header.invalid(within.start, "external data inside the model's folder", repr(file[:200]))
        files |= locations
    return str(tensor.get("name", ""))


def _read_value(header: Header, within: Span) -> TensorSpec:
    value = dict(header.fields(within, _VALUE))
    name = value.get("name", "")
    return _read_type(header, value["type"], name) if "type" in value else TensorSpec(name, UNDEFINED, None)


def _read_type(header: Header, within: Span, name: str = "", *, depth: int = 1) -> TensorSpec:
    if depth > _DEEPEST_TYPE:
        raise header.invalid(within.start, f"types nested at most {_DEEPEST_TYPE} deep", "a deeper one")
    alternatives = list(header.fields(within, _TYPE))
    if not alternatives:
        return TensorSpec(name, UNDEFINED, None)
    kind, span = alternatives[-1]  # they are one `oneof`, where the last one counts
    members = dict(header.fields(span, _TYPES[kind]))
    if kind == "tensor":
        axes = _read_axes(header, members["shape"]) if "shape" in members else None
        return TensorSpec(name, members.get("elem_type", UNDEFINED), axes)
    described = []
    for part, _ in _TYPES[kind].values():
        member = members.get(part, UNDEFINED)
        nested = isinstance(member, Span)
        described.append(_read_type(header, member, depth=depth + 1).dtype if nested else member)
    return TensorSpec(name, f"{kind}({', '.join(described)})", None)


def _read_axes(header: Header, within: Span) -> tuple[Axis, ...]:
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


def _read_axis(header: Header, within: Span) -> Axis:
    axis = Axis(None)
    for name, value in header.fields(within, _DIM):  # one `oneof` again
        axis = Axis(max(value, 0) or None) if name == "dim_value" else Axis(None, value or None)
    return axis
