"""A folder, a file or a Hub repo: where its graphs, config and processors are.

Local things are looked up on disk. A Hub repo is listed first, and only the chosen graphs with their weights and the
small files beside them are downloaded; `peek_ladder` reads no more than the graphs' headers.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path, PurePosixPath

from .choosing import LocalFolder, Place, choose, choose_all, choose_model
from .config import FixedShapeConfig, config_beside, config_with, read_contracts, with_known_names
from .config import Names as Names
from .config import Roles as Roles
from .contract import ShapeContract
from .errors import GraphNotFoundError, ShapeMismatchError
from .graph.reader import read_contract
from .graph.tensors import list_files
from .hub import HubOptions, HubRepo
from .ladder import ShapeLadder, entrance
from .paths import path_of
from .sentence_config import is_of_sentences
from .sessions import check_files

Sizes = Mapping[str, int | Sequence[int]]

BESIDE_GRAPHS = (".json", ".txt", ".model", ".jinja", ".py")
"""How the names of configuration and processors end."""

_TORCH_WEIGHTS = re.compile(r"(pytorch_)?model[^/]*\.(safetensors|bin)(\.index\.json)?")


@dataclass(frozen=True)
class Graphs:
    """The graphs of one model, on this machine.

    Attributes:
        folder: The folder that holds config and processors.
        ladder: The contracts.
        paths: The file of each rung; the first is the one that stock optimum loads.
        config: What is known of them, ready to be saved again.
    """

    folder: Path
    ladder: ShapeLadder
    paths: tuple[Path, ...]
    config: FixedShapeConfig


def find_graphs(
    source: str | Path,
    *,
    file_name: str | None = None,
    hub: HubOptions | None = None,
    shapes: Sizes | None = None,
    roles: Roles | None = None,
    names: Names | None = None,
) -> Graphs:
    """Returns the graphs of `source`, downloaded if they are on the Hub.

    Args:
        source: An ``.onnx`` file, a folder or a Hub repo id.
        file_name: Which graph, where there are several.
        hub: How the Hub is asked.
        shapes: Sizes to pin dynamic axes to; lists make rungs. By default what was saved with the graphs.
        roles: Roles of axes, where the guessed ones are wrong; beside what was saved with the graphs.
        names: The graph's names to standard ones, likewise.

    Raises:
        GraphNotFoundError: There is no graph, not the one asked for, several to choose from, or not its weights.
        InvalidModelError: A file is broken.
        ShapeMismatchError: A size, a role or a name contradicts the graph.
    """
    hub = hub or HubOptions()
    path = path_of(source)
    if path.is_file():
        return _read([path], _home_of(path), config_beside(path), shapes, roles, names)
    place = _place(source, hub)
    graphs, saved = choose(place, file_name, hub, source=str(source))
    folder, paths = _fetched(place, graphs, hub)
    return _read(paths, folder, saved, shapes, roles, names)


def fetch_graphs(
    source: str | Path, file_name: str | None, hub: HubOptions
) -> tuple[Path, list[Path], FixedShapeConfig | None]:
    """Returns the folder of config and processors, all graphs of a model of several parts, and what was saved of them.

    They are those of the saved config, else those with the names that stock exports have, else all in one folder.

    Raises:
        GraphNotFoundError: There is none.
    """
    path = path_of(source)
    if path.is_file():
        return _home_of(path), [path], config_beside(path)
    place = _place(source, hub)
    graphs, saved = ([], None) if file_name else choose_all(place, hub, source=str(source))
    if not graphs:
        graphs, saved = choose(place, file_name, hub, source=str(source))
    folder, paths = _fetched(place, graphs, hub)
    return folder, paths, saved


def fetch_model(
    source: str | Path, file_name: str | None, hub: HubOptions
) -> tuple[Path, list[Path], FixedShapeConfig | None]:
    """Returns what `fetch_graphs` does, of a model that may have one part: then only the graph that is meant.

    Raises:
        GraphNotFoundError: There is none, or several to choose from.
    """
    path = path_of(source)
    if path.is_file():
        return _home_of(path), [path], config_beside(path)
    place = _place(source, hub)
    graphs, saved = choose_model(place, file_name, hub, source=str(source))
    folder, paths = _fetched(place, graphs, hub)
    return folder, paths, saved


def peek_ladder(source: str | Path, *, file_name: str | None = None, hub: HubOptions | None = None) -> ShapeLadder:
    """Returns the contracts of `source` without its weights: of a Hub repo only the graphs' headers are read.

    Raises:
        GraphNotFoundError: See `find_graphs`.
        InvalidModelError: A file is broken.
    """
    graphs, saved = peek_graphs(source, file_name=file_name, hub=hub)
    ladder = entrance(list(graphs.values()))
    known = {key: size for key, size in saved.shapes.items() if key in ladder.largest.sizes} if saved else {}
    return ShapeLadder(tuple(rung for contract in ladder.rungs for rung in pin_all(contract, known)))


def peek_graphs(
    source: str | Path, *, file_name: str | None = None, hub: HubOptions | None = None
) -> tuple[dict[str, ShapeContract], FixedShapeConfig | None]:
    """Returns the contract of each graph of `source` by its name there, and what was saved of them; see `peek_ladder`.

    Raises:
        GraphNotFoundError: See `find_graphs`.
        InvalidModelError: A file is broken.
    """
    if path_of(source).is_file():
        found, saved = {Path(source).name: read_contract(source)}, config_beside(Path(source))
    else:
        hub = hub or HubOptions()
        place = _place(source, hub)
        graphs, saved = choose_model(place, file_name, hub, source=str(source))
        found = {name: place.contract(name, {}) for name in graphs}
    return {name: with_known_names(graph, saved) if saved else graph for name, graph in found.items()}, saved


def holds_torch_model(source: str | Path, hub: HubOptions | None = None) -> bool:
    """Whether `source` has PyTorch weights that could be exported."""
    hub = hub or HubOptions()
    names = map(PurePosixPath, _place(source, hub).names)
    return any(_TORCH_WEIGHTS.fullmatch(n.name) and n.parent == PurePosixPath(hub.subfolder) for n in names)


def pin_all(contract: ShapeContract, shapes: Sizes) -> list[ShapeContract]:
    """Returns one contract for each combination of the sizes in `shapes`, or the contract itself for none.

    Raises:
        ShapeMismatchError: A size is none, or contradicts the graph.
    """
    sizes = sizes_of(shapes)
    return [contract.pinned(dict(zip(sizes, each, strict=True))) for each in product(*sizes.values())]


def sizes_of(shapes: Sizes) -> dict[str, list[int]]:
    """Returns a list of sizes for each key of `shapes`.

    Raises:
        ShapeMismatchError: A value is neither a size nor a list of sizes.
    """
    if not isinstance(shapes, Mapping):
        raise ShapeMismatchError(f"shapes= must map shape keys to sizes, as in {{'batch_size': 8}}, got {shapes!r}.")
    lists = {key: list(value) if isinstance(value, Iterable) else [value] for key, value in shapes.items()}
    for key, sizes in lists.items():
        if not sizes or not all(isinstance(size, int) and not isinstance(size, bool) and size > 0 for size in sizes):
            raise ShapeMismatchError(
                f"{key} must be a size of 1 or more, or a list of such sizes, got {shapes[key]!r}."
            )
    return {key: list(dict.fromkeys(sizes)) for key, sizes in lists.items()}


def _place(source: str | Path, hub: HubOptions) -> Place:
    path = path_of(source)
    return LocalFolder(path) if path.is_dir() else HubRepo(str(source), hub)


def _fetched(place: Place, graphs: Sequence[str], hub: HubOptions) -> tuple[Path, list[Path]]:
    """The folder of config and processors, and the graphs' files, with their weights beside them."""
    folders = {PurePosixPath(), PurePosixPath(hub.subfolder), PurePosixPath(graphs[0]).parent}
    there = map(PurePosixPath, place.names)
    beside = [str(path) for path in there if _is_beside(path, folders)]
    folder = place.fetch([*graphs, *beside])
    paths = [folder / name for name in graphs]
    if isinstance(place, HubRepo):
        weights = {path.parent / name for path in paths for name in list_files(path)}
        names = sorted(path.relative_to(folder).as_posix() for path in weights)
        if names:
            place.fetch(names)
        if place.note and (missing := [name for name in names if not (folder / name).is_file()]):
            raise GraphNotFoundError(
                f"The weights in {', '.join(missing)} are not there.{place.note}",
                source=str(folder),
                found=tuple(graphs),
            )
    return _home_among(folder / hub.subfolder, paths[0].parent, folder), paths


def _is_beside(path: PurePosixPath, folders: Container[PurePosixPath]) -> bool:
    """Whether a file of a repo is of the configuration or the processors that go with the graphs of these folders."""
    is_module = path.parent.parent in folders and is_of_sentences(f"{path.parent.name}/{path.name}")
    return is_module or (path.parent in folders and path.name.endswith(BESIDE_GRAPHS))


def _home_of(path: Path) -> Path:
    return _home_among(path.parent, path.resolve().parent.parent)


def _home_among(*folders: Path) -> Path:
    """The folder that holds config and processors of a graph: its own, or one above, as with ``onnx/model.onnx``."""
    names = ("config.json", "tokenizer_config.json")
    return next((folder for folder in folders if any((folder / name).is_file() for name in names)), folders[0])


def _read(
    paths: Sequence[Path],
    home: Path,
    saved: FixedShapeConfig | None,
    shapes: Sizes | None,
    roles: Roles | None,
    names: Names | None,
) -> Graphs:
    config = config_with(saved, paths, shapes=sizes_of(shapes or {}), roles=roles, names=names)
    rungs = []
    for path, contract in zip(paths, read_contracts(paths, config, told=names), strict=True):
        _check_roles(contract, roles or {})
        check_files(path)
        rungs += [(rung, path) for rung in pin_all(contract, config.shapes)]
    return Graphs(home, ShapeLadder(tuple(rung for rung, _ in rungs)), tuple(path for _, path in rungs), config)


def _check_roles(contract: ShapeContract, roles: Roles) -> None:
    names = (*contract.input_names, *contract.output_names)
    if unknown := [name for name in roles if name not in names and name not in contract.names]:
        raise ShapeMismatchError(f"roles= names {', '.join(unknown)}, and the graph has {', '.join(names)}.")
