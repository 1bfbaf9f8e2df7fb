"""A folder, a file or a Hub repo: where its graphs, config and processors are.

Local things are looked up on disk. A Hub repo is listed first, and only the chosen graphs with their weights and the
small files beside them are downloaded; `peek_ladder` reads no more than the graphs' headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path, PurePosixPath

from .config import CONFIG_NAME, FixedShapeConfig
from .contract import ShapeContract
from .errors import GraphNotFoundError, ShapeMismatchError
from .graph.reader import read_contract
from .hub import HubOptions, HubRepo
from .ladder import ShapeLadder, entrance
from .sessions import check_files

MAIN_GRAPH = "model.onnx"
Sizes = Mapping[str, int | Sequence[int]]
Roles = Mapping[str, Sequence[str | None]]

_APART, _MERGED = "decoder_with_past_model.onnx", "decoder_model_merged.onnx"
_PARTS = frozenset({MAIN_GRAPH, "encoder_model.onnx", "decoder_model.onnx", _APART, _MERGED})
"""The names that optimum gives to the graphs of models that write."""

_BESIDE_GRAPHS = (".json", ".txt", ".model", ".jinja", ".py")
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


class LocalFolder:
    """A folder, seen as a repo.

    Attributes:
        names: The files, relative to the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.names = tuple(path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())

    def fetch(self, names: Iterable[str]) -> Path:
        """Returns the folder: the files are here."""
        return self._folder

    def contract(self, name: str, roles: Roles) -> ShapeContract:
        """Returns the contract of the graph called `name`."""
        return read_contract(self._folder / name, roles=roles)


def find_graphs(
    source: str | Path,
    *,
    file_name: str | None = None,
    hub: HubOptions | None = None,
    shapes: Sizes | None = None,
    roles: Roles | None = None,
) -> Graphs:
    """Returns the graphs of `source`, downloaded if they are on the Hub.

    Args:
        source: An ``.onnx`` file, a folder or a Hub repo id.
        file_name: Which graph, where there are several.
        hub: How the Hub is asked.
        shapes: Sizes to pin dynamic axes to; lists make rungs. By default what was saved with the graphs.
        roles: Roles of axes, where the guessed ones are wrong; beside what was saved with the graphs.

    Raises:
        GraphNotFoundError: There is no graph, not the one asked for, several to choose from, or not its weights.
        InvalidModelError: A file is broken.
        ShapeMismatchError: A size or a role contradicts the graph.
    """
    hub = hub or HubOptions()
    path = Path(source)
    if path.is_file():
        return _read([path], _home_of(path), None, shapes, roles)
    place = _place(source, hub)
    graphs, saved = _choose(place, file_name, hub.subfolder, source=str(source))
    folder, paths = _fetched(place, graphs, hub)
    return _read(paths, folder, saved, shapes, roles)


def fetch_graphs(
    source: str | Path, file_name: str | None, hub: HubOptions
) -> tuple[Path, list[Path], FixedShapeConfig | None]:
    """Returns the folder of config and processors, all graphs of a model of several parts, and what was saved of them.

    They are those of the saved config, else those with the names that stock exports have, else all in one folder.

    Raises:
        GraphNotFoundError: There is none.
    """
    path = Path(source)
    if path.is_file():
        return _home_of(path), [path], None
    place = _place(source, hub)
    graphs, saved = _choose_all(place, hub.subfolder)
    if file_name or not graphs:
        graphs, saved = _choose(place, file_name, hub.subfolder, source=str(source))
    folder, paths = _fetched(place, graphs, hub)
    return folder, paths, saved


def peek_ladder(source: str | Path, *, file_name: str | None = None, hub: HubOptions | None = None) -> ShapeLadder:
    """Returns the contracts of `source` without its weights: of a Hub repo only the graphs' headers are read.

    Raises:
        GraphNotFoundError: See `find_graphs`.
        InvalidModelError: A file is broken.
    """
    if Path(source).is_file():
        return entrance([read_contract(source)])
    hub = hub or HubOptions()
    place = _place(source, hub)
    graphs, saved = _choose_all(place, hub.subfolder)
    if file_name or not (saved or any(PurePosixPath(name).name in _PARTS - {MAIN_GRAPH} for name in graphs)):
        graphs, saved = _choose(place, file_name, hub.subfolder, source=str(source))
    contracts = [place.contract(name, saved.roles if saved else {}) for name in graphs]
    ladder = entrance(contracts)
    known = {key: size for key, size in saved.shapes.items() if key in ladder.largest.sizes} if saved else {}
    return ShapeLadder(tuple(rung for contract in ladder.rungs for rung in pin_all(contract, known)))


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
    lists = {key: [value] if isinstance(value, int) else list(value) for key, value in shapes.items()}
    for key, sizes in lists.items():
        if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
            raise ShapeMismatchError(
                f"{key} must be a size of 1 or more, or a list of such sizes, got {shapes[key]!r}."
            )
    return {key: list(dict.fromkeys(sizes)) for key, sizes in lists.items()}


def _place(source: str | Path, hub: HubOptions) -> LocalFolder | HubRepo:
    return LocalFolder(Path(source)) if Path(source).is_dir() else HubRepo(str(source), hub)


def _fetched(place: LocalFolder | HubRepo, graphs: Sequence[str], hub: HubOptions) -> tuple[Path, list[Path]]:
    """The folder of config and processors, and the graphs' files, with their weights beside them."""
    folders = {PurePosixPath(), PurePosixPath(hub.subfolder), PurePosixPath(graphs[0]).parent}
    beside = [n for n in place.names if PurePosixPath(n).parent in folders and n.endswith(_BESIDE_GRAPHS)]
    folder = place.fetch([*graphs, *beside])
    paths = [folder / name for name in graphs]
    if weights := {path.parent / name for path in paths for name in read_contract(path).external_data}:
        place.fetch(sorted(path.relative_to(folder).as_posix() for path in weights))
    return _home_among(folder / hub.subfolder, paths[0].parent, folder), paths


def _choose_all(place: LocalFolder | HubRepo, subfolder: str) -> tuple[list[str], FixedShapeConfig | None]:
    """The graphs of the saved config, or those of the shallowest folder that has any: the well-known ones, or all."""
    inside = [name for name in place.names if PurePosixPath(name).is_relative_to(subfolder)]
    graphs = _shallowest(name for name in inside if name.endswith(".onnx"))
    configs = _shallowest(name for name in inside if PurePosixPath(name).name == CONFIG_NAME)
    if len(configs) == 1 and _depth(configs) <= _depth(graphs):
        folder = PurePosixPath(configs[0]).parent
        if config := FixedShapeConfig.from_folder(place.fetch(configs) / folder):
            return [_there(str(folder / name), graphs, str(folder)) for name in config.graphs], config
    known = [name for name in graphs if PurePosixPath(name).name in _PARTS]
    if any(PurePosixPath(name).name == _APART for name in known):  # both decoders in one file as well need no download
        known = [name for name in known if PurePosixPath(name).name != _MERGED]
    return known or graphs, None


def _choose(
    place: LocalFolder | HubRepo, file_name: str | None, subfolder: str, *, source: str
) -> tuple[list[str], FixedShapeConfig | None]:
    """The graphs that are meant: those of the saved config, the one asked for, ``model.onnx``, or the only one."""
    inside = [name for name in place.names if PurePosixPath(name).is_relative_to(subfolder)]
    graphs = [name for name in inside if name.endswith(".onnx")]
    wanted = file_name or MAIN_GRAPH
    by_name = _shallowest(name for name in graphs if wanted in (name, PurePosixPath(name).name))
    configs = _shallowest(name for name in inside if PurePosixPath(name).name == CONFIG_NAME)
    if len(configs) == 1 and _depth(configs) <= _depth(by_name):
        folder = PurePosixPath(configs[0]).parent
        config = FixedShapeConfig.from_folder(place.fetch(configs) / folder)
        if config and (file_name is None or file_name in config.graphs):
            chosen = config.graphs if file_name in (None, config.graphs[0]) else [file_name]
            return [_there(str(folder / name), graphs, source) for name in chosen], config
    found = by_name or ([] if file_name else graphs)
    if len(found) == 1:
        return found, None
    what = "several graphs; choose one with file_name= or subfolder=" if found else f"no graph called {wanted}"
    raise GraphNotFoundError(
        f"{source} holds {what}. Graphs there: {', '.join(graphs) or 'none'}.", source=source, found=tuple(graphs)
    )


def _shallowest(names: Iterable[str]) -> list[str]:
    known = list(names)
    depth = _depth(known)
    return [name for name in known if name.count("/") == depth]


def _depth(names: Iterable[str]) -> float:
    return min((name.count("/") for name in names), default=float("inf"))


def _there(name: str, graphs: Sequence[str], source: str) -> str:
    if name in graphs:
        return name
    raise GraphNotFoundError(
        f"{CONFIG_NAME} of {source} lists {name}, which is not there.", source=source, found=tuple(graphs) or (name,)
    )


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
) -> Graphs:
    names = tuple(path.name for path in paths)
    saved = replace(saved, graphs=names) if saved else FixedShapeConfig(names)
    given = {key: sizes[0] if len(sizes) == 1 else sizes for key, sizes in sizes_of(shapes or {}).items()}
    told = {name: list(axes) for name, axes in (roles or {}).items()}
    config = replace(saved, shapes=given or saved.shapes, roles={**saved.roles, **told})
    rungs = []
    for path in paths:
        contract = read_contract(path, roles=config.roles)
        _check_names(contract, told)
        check_files(path, contract)
        rungs += [(rung, path) for rung in pin_all(contract, config.shapes)]
    return Graphs(home, ShapeLadder(tuple(rung for rung, _ in rungs)), tuple(path for _, path in rungs), config)


def _check_names(contract: ShapeContract, roles: Roles) -> None:
    names = (*contract.input_names, *contract.output_names)
    if unknown := [name for name in roles if name not in names]:
        raise ShapeMismatchError(f"roles= names {', '.join(unknown)}, and the graph has {', '.join(names)}.")
