"""Which of the graphs in a folder or a Hub repo are meant."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from .config import CONFIG_NAME, FixedShapeConfig, Roles
from .contract import ShapeContract
from .errors import GraphNotFoundError
from .graph.names import MERGED, WITH_PAST, is_variant, stem_of, variant_of, variants_among
from .graph.reader import read_contract
from .hub import HubOptions, HubRepo

MAIN_GRAPH = "model.onnx"
Chosen = tuple[list[str], FixedShapeConfig | None]


class LocalFolder:
    """A folder, seen as a repo.

    Attributes:
        names: The files, relative to the folder.
        note: What an error about a missing file adds: nothing.
    """

    note = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        next(folder.iterdir(), None)  # an error where it may not be read, of which rglob says nothing
        self.names = tuple(path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())

    def fetch(self, names: Iterable[str]) -> Path:
        """Returns the folder: the files are here."""
        return self._folder

    def contract(self, name: str, roles: Roles) -> ShapeContract:
        """Returns the contract of the graph called `name`."""
        return read_contract(self._folder / name, roles=roles)


Place = LocalFolder | HubRepo


def choose_model(place: Place, file_name: str | None, hub: HubOptions, *, source: str) -> Chosen:
    """Returns all graphs of a model that has several parts by their names, else the one that is meant.

    Raises:
        GraphNotFoundError: There is none, or several to choose from.
    """
    graphs, saved = ([], None) if file_name else choose_all(place, hub, source=source)
    if saved or any(stem_of(name) not in (None, "model") for name in graphs):
        return graphs, saved
    return choose(place, file_name, hub, source=source)


def choose_all(place: Place, hub: HubOptions, *, source: str) -> Chosen:
    """Returns the graphs of the saved config, or of the shallowest folder that has any: the well-known ones, or all.

    Raises:
        GraphNotFoundError: There is none, or several to choose from.
    """
    inside, graphs = _inside(place, hub)
    configs = [] if hub.variant else _shallowest(name for name in inside if PurePosixPath(name).name == CONFIG_NAME)
    graphs = _shallowest(name for name in graphs if not hub.variant or is_variant(name, hub.variant))
    if len(configs) == 1 and _depth(configs) <= _depth(graphs):
        folder = PurePosixPath(configs[0]).parent
        if config := FixedShapeConfig.from_folder(place.fetch(configs) / folder):  # pragma: no branch  # it was listed
            return [_there(str(folder / name), graphs, str(folder), place) for name in config.graphs], config
    parts = [name for name in graphs if stem_of(name)]
    known = parts if hub.variant else [name for name in parts if not variant_of(name)]
    if not known and len(variants_among(parts)) > 1:
        raise _cannot_choose("several graphs", graphs, source, place)
    known = known or parts
    if any(stem_of(name) == WITH_PAST for name in known):  # both decoders in one file as well need no download
        known = [name for name in known if stem_of(name) != MERGED]
    return known or graphs, None


def choose(place: Place, file_name: str | None, hub: HubOptions, *, source: str) -> Chosen:
    """Returns the graphs of the saved config, or the one asked for, or ``model.onnx``, or the only one.

    Raises:
        GraphNotFoundError: There is none, or several to choose from.
    """
    inside, graphs = _inside(place, hub)
    wanted = file_name or (f"model_{hub.variant}.onnx" if hub.variant else MAIN_GRAPH)
    by_name = _shallowest(name for name in graphs if wanted in (name, PurePosixPath(name).name))
    configs = _shallowest(name for name in inside if PurePosixPath(name).name == CONFIG_NAME)
    if len(configs) == 1 and _depth(configs) <= _depth(by_name):
        folder = PurePosixPath(configs[0]).parent
        config = FixedShapeConfig.from_folder(place.fetch(configs) / folder)
        if config and (wanted in config.graphs or not (file_name or hub.variant)):
            is_one = (file_name or hub.variant) and wanted != config.graphs[0]
            chosen = [wanted] if is_one else config.graphs
            return [_there(str(folder / name), graphs, source, place) for name in chosen], config
    of_variant = [name for name in graphs if hub.variant and is_variant(name, hub.variant)]
    found = by_name or ([] if file_name else of_variant if hub.variant else graphs)
    if len(found) == 1:
        return found, None
    raise _cannot_choose("several graphs" if found else f"no graph called {wanted}", graphs, source, place)


def _inside(place: Place, hub: HubOptions) -> tuple[list[str], list[str]]:
    """The names of the files in the subfolder, and those of the graphs among them."""
    inside = [name for name in place.names if PurePosixPath(name).is_relative_to(hub.subfolder)]
    return inside, [name for name in inside if name.endswith(".onnx")]


def _cannot_choose(what: str, graphs: Sequence[str], source: str, place: Place) -> GraphNotFoundError:
    variants = variants_among(graphs)
    by_variant = f"variant= ({', '.join(variants)}), " if variants else ""
    is_open = variants or what.startswith("several")
    way_out = f"; choose one with {by_variant}file_name= or subfolder=" if is_open else ""
    return GraphNotFoundError(
        f"{source} holds {what}{way_out}. Graphs there: {', '.join(graphs) or 'none'}.{place.note}",
        source=source,
        found=tuple(graphs),
    )


def _shallowest(names: Iterable[str]) -> list[str]:
    known = list(names)
    depth = _depth(known)
    return [name for name in known if name.count("/") == depth]


def _depth(names: Iterable[str]) -> float:
    return min((name.count("/") for name in names), default=float("inf"))


def _there(name: str, graphs: Sequence[str], source: str, place: Place) -> str:
    if name in graphs:
        return name
    raise GraphNotFoundError(
        f"{CONFIG_NAME} of {source} lists {name}, which is not there.{place.note}",
        source=source,
        found=tuple(graphs) or (name,),
    )
