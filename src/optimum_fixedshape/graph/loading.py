"""A whole model with its weights: the one place that loads one, and trusts nothing in it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import TensorProto

from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.graph.reader import read_contract
from optimum_fixedshape.graph.structure import find_flaw
from optimum_fixedshape.graph.tensors import check_tensors, place_of, size_of

_LARGEST_BYTES = 2**31 - 1  # that protobuf reads
_FIELDS: Final = {
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.COMPLEX64), "float_data"),
    **dict.fromkeys((TensorProto.DOUBLE, TensorProto.COMPLEX128), "double_data"),
    **dict.fromkeys((TensorProto.UINT32, TensorProto.UINT64), "uint64_data"),
    TensorProto.INT64: "int64_data",
}
"""Where numbers stand that are not raw bytes; those of all other types are in ``int32_data``."""
_IN_PAIRS: Final = (TensorProto.COMPLEX64, TensorProto.COMPLEX128)
_SHARE_AN_ENTRY: Final = (
    *(TensorProto.UINT4, TensorProto.INT4, TensorProto.FLOAT4E2M1),
    TensorProto.UINT2,
    TensorProto.INT2,
)


def load_model(path: str | os.PathLike[str], *, with_external: bool = True) -> onnx.ModelProto:
    """Returns the model at `path` with all its weights inside, wherever it kept them.

    Every tensor is checked against the bytes that are there before any is read, so that memory is bounded by the size
    of the files, and the graph holds together: see `find_flaw`. Symbolic links of the Hub's cache are followed, which
    ``onnx.load`` refuses to do.

    Args:
        path: The file.
        with_external: False leaves weights in files of their own where they are.

    Raises:
        FileNotFoundError: There is no such file.
        GraphNotFoundError: A file that holds weights is missing.
        InvalidModelError: The file is no ONNX model, is damaged, keeps weights outside its folder, or holds more than
            2 GiB inside.
    """
    path = Path(path)
    read_contract(path)
    check_tensors(path)
    if (size := path.stat().st_size) > _LARGEST_BYTES:
        raise InvalidModelError(
            f"{path} has {size} bytes, and ONNX files that are rewritten may have at most {_LARGEST_BYTES} (2 GiB). "
            "Save it with its weights in a file of their own: "
            "onnx.save(model, path, save_as_external_data=True) where the model is made.",
            path=str(path),
        )
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except DecodeError as error:
        raise _damaged(path, str(error)) from error
    tensors = list(_tensors(model, path))
    if flaw := find_flaw(model):
        raise _damaged(path, flaw)
    for tensor in tensors:
        if tensor.data_location != TensorProto.EXTERNAL:
            _check_count(tensor, path)
        elif with_external:
            _fill(tensor, path)
    return model


def _tensors(message: Message, path: Path) -> Iterator[TensorProto]:
    """Yields every tensor in `message`, wherever it stands, and checks that names are text."""
    for descriptor, value in message.ListFields():
        if descriptor.type == descriptor.TYPE_STRING:
            # What is no UTF-8 comes as bytes.
            if any(isinstance(text, bytes) for text in ((value,) if isinstance(value, str | bytes) else value)):
                raise _damaged(path, f"a {descriptor.name} is not in UTF-8")
        elif descriptor.type == descriptor.TYPE_MESSAGE:
            for inner in (value,) if isinstance(value, Message) else value:
                if isinstance(inner, TensorProto):
                    yield inner
                else:
                    yield from _tensors(inner, path)


def _fill(tensor: TensorProto, path: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    place = place_of(path, tensor.name, entries, size_of(tensor.dims, tensor.data_type))
    with place.file.open("rb") as file:
        file.seek(place.offset)
        tensor.raw_data = file.read(place.size)
    del tensor.external_data[:]
    tensor.data_location = TensorProto.DEFAULT


def _check_count(tensor: TensorProto, path: Path) -> None:
    """Raises an error if the numbers that are no raw bytes are more or fewer than the dims say."""
    if tensor.HasField("raw_data") or tensor.data_type == TensorProto.STRING:
        return  # which `check_tensors` has counted
    wanted = math.prod(tensor.dims) * (2 if tensor.data_type in _IN_PAIRS else 1)
    if tensor.data_type in _SHARE_AN_ENTRY:
        wanted = size_of(tensor.dims, tensor.data_type)
    if (found := len(getattr(tensor, _FIELDS.get(tensor.data_type, "int32_data")))) != wanted:
        raise _damaged(path, f"tensor {tensor.name[:200]!r} has {found} numbers, and its dims say {wanted}")


def _damaged(path: Path, problem: str) -> InvalidModelError:
    return InvalidModelError(
        f"{path} is not a valid ONNX model: {problem}. It was damaged on its way: download or export it again.",
        path=str(path),
    )
