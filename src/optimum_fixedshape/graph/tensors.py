"""The tensors of a file, wherever in it they stand: as large as their bytes, and none of them outside its folder.

A walk over the header, which seeks past the bytes themselves. It is made before anything is allocated or opened.
"""

from __future__ import annotations

import functools
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PureWindowsPath
from typing import Final

from optimum_fixedshape.errors import GraphNotFoundError, InvalidModelError
from optimum_fixedshape.graph.header import Header, Kind, Span, Table, known, open_header

EXTERNAL = 1
_DEEPEST_GRAPH = 16
_MOST_AXES = 64  # NumPy's own limit
_MOST_BYTES = 2**43  # no file system that models come on holds more in one file
_MOST_USES = 32  # of the same bytes: models that repeat their layers use them that often, and memory has them each time
_MOST_ZEROS = 1000  # that onnxruntime puts in for each number of a sparse tensor
_SMALL_ELEMENTS = 2**20

_GRAPH: Final[Table] = known(Kind.MESSAGES, node=1, initializer=5, sparse_initializer=15)
_NODE: Final[Table] = known(Kind.MESSAGES, attribute=5)
_FUNCTION: Final[Table] = known(Kind.MESSAGES, node=7, attribute_proto=11)
_TRAINING: Final[Table] = known(Kind.MESSAGE, initialization=1, algorithm=2)
_ATTRIBUTE: Final[Table] = known(Kind.MESSAGE, t=5, g=6, sparse_tensor=22) | known(
    Kind.MESSAGES, tensors=10, graphs=11, sparse_tensors=23
)
_MODEL: Final[Table] = known(Kind.MESSAGE, graph=7) | known(Kind.MESSAGES, training_info=20, functions=25)
_HOLDERS: Final[Mapping[str, Table]] = {
    "model": _MODEL,
    "training_info": _TRAINING,
    "functions": _FUNCTION,
    "node": _NODE,
    **dict.fromkeys(("graph", "g", "graphs", "initialization", "algorithm"), _GRAPH),
    **dict.fromkeys(("attribute", "attribute_proto"), _ATTRIBUTE),
}
"""What may hold tensors, by the names of the fields that it stands in; all other messages are tensors."""

_SPARSE_NAMES: Final = ("sparse_initializer", "sparse_tensor", "sparse_tensors")
_SPARSE: Final[Table] = known(Kind.MESSAGE, values=1, indices=2) | known(Kind.INTEGERS, dims=3)
_TENSOR: Final[Table] = (
    known(Kind.INTEGERS, dims=1)
    | known(Kind.INTEGER, data_type=2, data_location=14)
    | known(Kind.TEXT, name=8)
    | known(Kind.MESSAGE, raw_data=9)
    | known(Kind.MESSAGES, float_data=4, int32_data=5, string_data=6, int64_data=7, double_data=10, uint64_data=11)
    | known(Kind.MESSAGES, external_data=13)
)
_ENTRY: Final[Table] = known(Kind.TEXT, key=1, value=2)

_Find = Callable[[str], tuple[Path, int]]

_STRING: Final = 8
_BITS: Final[Mapping[int, int]] = {
    **dict.fromkeys((2, 3, 9, 17, 18, 19, 20, 24), 8),
    **dict.fromkeys((4, 5, 10, 16), 16),
    **dict.fromkeys((1, 6, 12), 32),
    **dict.fromkeys((7, 11, 13, 14), 64),
    15: 128,
    **dict.fromkeys((21, 22, 23), 4),
    **dict.fromkeys((25, 26), 2),
    **dict.fromkeys((27, 28), 6),
}
"""Size of an element by the number of its type; strings have none."""


@dataclass(frozen=True)
class Place:
    """Where the bytes of a tensor are, outside the graph.

    Attributes:
        file: The file, beside the graph or below.
        offset: Where they start in it.
        size: How many they are.
    """

    file: Path
    offset: int
    size: int


def check_tensors(path: str | os.PathLike[str]) -> tuple[Place, ...]:
    """Returns where the graph at `path` keeps tensors outside its own file, all of which may be read.

    Looks at initializers, at tensors in the attributes of nodes, at sparse ones, and into subgraphs and functions. No
    tensor is larger or smaller than its bytes, and none leads outside the folder, also not by a symbolic link. Links
    to files beside the file that `path` itself is a link to are followed: so the Hub's cache is built.

    Raises:
        FileNotFoundError: There is no such graph.
        GraphNotFoundError: A file that holds tensors is missing.
        InvalidModelError: The file is damaged, or means harm.
    """
    path = Path(path)
    find = functools.cache(functools.partial(_file_at, path))  # all are in one file or two, which links are followed to
    with open_header(path) as header:
        places = [place for span in _tensors(header, header.whole) if (place := _checked(header, span, path, find))]
    _check_spans(path, places)
    return tuple(places)


def list_files(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """Returns the files in which the graph at `path` keeps tensors, relative to its folder, be they there or not.

    Unlike `ShapeContract.external_data`, these are the files of subgraphs, functions and attributes as well.

    Raises:
        FileNotFoundError: There is no such graph.
        InvalidModelError: The file is damaged, or names one outside its folder.
    """
    with open_header(path) as header:
        found = {location for span in _tensors(header, header.whole) for location in _locations(header, span)}
    if outside := [location for location in found if not is_beside(location)]:
        raise _outside(Path(path), outside[0])
    return tuple(sorted(found))


def size_of(dims: Iterable[int], data_type: int) -> int:
    """Returns how many bytes a tensor takes, or 0 for types that have no size."""
    return -(-math.prod(dims) * _BITS.get(data_type, 0) // 8)


def place_of(path: Path, name: str, entries: Mapping[str, str], size: int) -> Place:
    """Returns where `entries`, the external data of a tensor of `size` bytes in the graph at `path`, lead.

    Raises:
        GraphNotFoundError: The file is missing.
        InvalidModelError: It is outside the folder, or does not hold the tensor.
    """
    return _placed(path, name, entries, size, functools.partial(_file_at, path))


def _placed(path: Path, name: str, entries: Mapping[str, str], size: int, find: _Find) -> Place:
    location = entries.get("location", "")
    file, whole = find(location)
    offset, length = (_number(entries.get(key), default) for key, default in (("offset", 0), ("length", size)))
    if length != size or offset is None or offset + size > whole:
        said = f"offset {entries.get('offset', 0)!s:.40}, length {entries.get('length', size)!s:.40}"
        raise InvalidModelError(
            f"{path} keeps the {size} bytes of tensor {name[:200]!r} in {location}, at {said}, and that file has "
            f"{whole} bytes. One of the two was cut short or damaged on its way, or they do not belong together: "
            "download or export both again.",
            path=str(path),
        )
    return Place(file, offset, size)


def _tensors(header: Header, within: Span, depth: int = 0) -> Iterator[Span]:
    """Yields every tensor, and every sparse tensor behind its two parts."""
    for name, span in header.fields(within, _HOLDERS[within.name]):
        if name in _HOLDERS:
            deeper = depth + (_HOLDERS[name] is _GRAPH)
            if deeper > _DEEPEST_GRAPH:
                raise header.invalid(span.start, f"graphs nested at most {_DEEPEST_GRAPH} deep", "a deeper one")
            yield from _tensors(header, span, deeper)
        elif name in _SPARSE_NAMES:
            yield from _parts(header, span)
        else:
            yield span


def _parts(header: Header, sparse: Span) -> Iterator[Span]:
    dims: tuple[int, ...] = ()
    stored = 0
    for name, value in header.fields(sparse, _SPARSE):
        if name == "dims":
            dims += value
            continue
        if name == "values":
            stored = math.prod(_dims(header, value))
        yield value
    elements = _elements(header, sparse, dims)
    if elements > max(stored * _MOST_ZEROS, _SMALL_ELEMENTS):
        expected = f"at most {_MOST_ZEROS} elements for each of the {stored} that are stored"
        raise header.invalid(sparse.start, expected, str(elements))


def _dims(header: Header, tensor: Span) -> tuple[int, ...]:
    dims = (value for name, value in header.fields(tensor, known(Kind.INTEGERS, dims=1)) if name == "dims")
    return tuple(size for sizes in dims for size in sizes)


def _checked(header: Header, within: Span, path: Path, find: _Find) -> Place | None:
    """Returns where the tensor is, or None if it is in the graph, where it is as large as it should be."""
    facts: dict[str, object] = {}
    dims: tuple[int, ...] = ()
    stored: defaultdict[str, int] = defaultdict(int)
    external: list[Span] = []
    strings = 0
    for name, value in header.fields(within, _TENSOR):
        if name == "dims":
            dims += value
        elif name == "external_data":
            external.append(value)
        elif isinstance(value, Span):
            stored[name] += value.end - value.start
            strings += name == "string_data"
        else:
            facts[name] = value
    data_type, elements = int(str(facts.get("data_type", 0))), _elements(header, within, dims)
    if data_type not in (*_BITS, _STRING) or (data_type == _STRING and facts.get("data_location") == EXTERNAL):
        raise header.invalid(within.start, "elements of a type that ONNX stores there", f"type {data_type}")
    size = size_of(dims, data_type)
    if facts.get("data_location", 0) == EXTERNAL:
        return _placed(path, str(facts.get("name", "")), _entries(header, external), size, find)
    if "raw_data" in stored:
        if stored["raw_data"] != size:
            raise header.invalid(within.start, f"{size} bytes for dims {list(dims)}", str(stored["raw_data"]))
    elif data_type == _STRING and strings != elements:
        raise header.invalid(within.start, f"{elements} strings for dims {list(dims)}", str(strings))
    elif size > 8 * sum(stored.values()):  # the largest element may stand in one byte
        raise header.invalid(within.start, f"numbers for {size} bytes", f"{sum(stored.values())} bytes of them")
    return None


def _locations(header: Header, within: Span) -> list[str]:
    """The file that holds the tensor, or nothing if it is in the graph."""
    external: list[Span] = []
    stored = 0
    for name, value in header.fields(within, _TENSOR):
        if name == "external_data":
            external.append(value)
        elif name == "data_location":
            stored = value
    return [_entries(header, external).get("location", "")] if stored == EXTERNAL else []


def _elements(header: Header, within: Span, dims: tuple[int, ...]) -> int:
    if len(dims) > _MOST_AXES or min(dims, default=0) < 0 or math.prod(size or 1 for size in dims) > _MOST_BYTES:
        raise header.invalid(within.start, f"at most {_MOST_AXES} sizes that make sense", str(list(dims))[:200])
    return math.prod(dims)


def _entries(header: Header, spans: Iterable[Span]) -> dict[str, str]:
    entries: dict[str, str] = {}
    for span in spans:
        entry = dict(header.fields(span, _ENTRY))
        key = entry.get("key", "")
        if key in entries:
            raise header.invalid(span.start, f"external data with one {key[:200]!r}", "a second one")
        entries[key] = entry.get("value", "")
    return entries


def is_beside(location: str) -> bool:
    """Returns whether a file at `location` is in the graph's folder, on every system, as far as its name tells."""
    path = PureWindowsPath(location)  # knows both slashes, and drives
    climbs = any(not part.strip(". ") for part in path.parts)  # Windows drops dots and spaces at a name's end
    return bool(path.parts) and not path.anchor and not climbs and "\0" not in location


def _number(text: str | None, default: int) -> int | None:
    if text is None:
        return default
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def _file_at(path: Path, location: str) -> tuple[Path, int]:
    """The file at a location that the graph at `path` names, and how many bytes it has."""
    file = path.parent / location
    if not is_beside(location) or not _is_at_home(file, path):
        raise _outside(path, location)
    if not os.path.isfile(file):  # which says no where a name is too long, too
        raise GraphNotFoundError(
            f"{path} keeps its weights in {location}, and the folder {path.parent} does not have it.",
            source=str(path),
            found=(path.name,),
        )
    return file, file.stat().st_size


def _outside(path: Path, location: str) -> InvalidModelError:
    return InvalidModelError(
        f"{path} keeps weights in {location[:200]!r}, which is outside its folder. Expected a file of the folder "
        "that is no link to somewhere else. If you trust it, put the file itself there.",
        path=str(path),
    )


def _is_at_home(file: Path, path: Path) -> bool:
    """Whether `file`, seen through all links, is in the folder of the graph, or of the file that it links to."""
    homes = (os.path.realpath(path.parent), Path(os.path.realpath(path)).parent)
    return any(Path(os.path.realpath(file)).is_relative_to(home) for home in homes)


def _check_spans(path: Path, places: Iterable[Place]) -> None:
    """Raises an error if tensors share bytes in part, or the same ones more often than any model does."""
    by_file: defaultdict[Path, list[Place]] = defaultdict(list)
    for place in places:
        if place.size:
            by_file[place.file].append(place)
    for file, inside in by_file.items():
        spans = sorted({(place.offset, place.size) for place in inside})
        for (start, size), (following, _) in pairwise(spans):
            if start + size > following:
                raise InvalidModelError(
                    f"{path} keeps a tensor at bytes {start} to {start + size} of {file.name}, and another one from "
                    f"{following} on. They do not belong together: download or export both files again.",
                    path=str(path),
                )
        used, whole = sum(place.size for place in inside), file.stat().st_size
        if used > _MOST_USES * whole:
            raise InvalidModelError(
                f"{path} takes {used} bytes of weights from {file.name}, which has {whole}: more than any model needs.",
                path=str(path),
            )
