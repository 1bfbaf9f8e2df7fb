"""A folder, a file or a Hub repo: where its graphs, config and processors are.

Local things are looked up on disk. A Hub repo is listed first, and only the chosen graphs with their weights are
downloaded; `peek_ladder` reads no more than their headers, by range requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from ._compat import connection_errors, repo_errors
from .config import CONFIG_NAME, FixedShapeConfig
from .contract import ShapeContract, ShapeLadder
from .errors import GraphNotFoundError
from .graph.reader import read_contract

MAIN_GRAPH = "model.onnx"
Sizes = Mapping[str, int | Sequence[int]]


@dataclass(frozen=True)
class HubOptions:
    """How the Hub is asked; the names are transformers' own.

    Attributes:
        revision: Branch, tag or commit.
        token: For private repos; None takes the saved login.
        cache_dir: Where downloads are kept; None takes the Hub's default.
        local_files_only: Never ask the Hub, only its cache.
        force_download: Download again what is in the cache.
        subfolder: Folder of the repo that holds the graphs.
    """

    revision: str | None = None
    token: bool | str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False
    subfolder: str = ""

    def for_transformers(self) -> dict[str, Any]:
        """The options under the names that transformers' `from_pretrained` takes."""
        names = ("revision", "token", "cache_dir", "local_files_only", "force_download")
        return {name: value for name in names if (value := getattr(self, name)) not in (None, False)}


@dataclass(frozen=True)
class Graphs:
    """The graphs of one model, on this machine.

    Attributes:
        source: What the caller named: a folder, a file or a Hub repo.
        folder: The folder that holds config and processors.
        paths: The graphs, one a rung; the first is the one that stock optimum loads.
        config: The saved `FixedShapeConfig`, or None.
    """

    source: str
    folder: Path
    paths: tuple[Path, ...]
    config: FixedShapeConfig | None = None

    def ladder(self, shapes: Sizes | None = None) -> tuple[ShapeLadder, tuple[Path, ...]]:
        """Returns the contracts, and the file of each.

        Args:
            shapes: Sizes to pin dynamic axes to; lists make rungs. None takes what the config says.

        Raises:
            ShapeMismatchError: A size contradicts what is baked in.
        """
        roles = self.config.roles if self.config else {}
        contracts = [read_contract(path, roles=roles) for path in self.paths]
        if shapes is None and self.config:
            shapes = self.config.shapes
        rungs = [(rung, path) for contract, path in zip(contracts, self.paths, strict=True) for rung in pin_all(contract, shapes)]
        return ShapeLadder(tuple(rung for rung, _ in rungs)), tuple(path for _, path in rungs)

    def saved_config(self, *, task: str | None, shapes: Sizes | None) -> FixedShapeConfig:
        """Returns the config to save with a model that was loaded from here for `task` and pinned to `shapes`."""
        saved = self.config or FixedShapeConfig(tuple(path.name for path in self.paths))
        plain = {role: size if isinstance(size, int) else list(size) for role, size in (shapes or {}).items()}
        return replace(saved, task=saved.task or task, shapes=plain or saved.shapes)


def pin_all(contract: ShapeContract, shapes: Sizes | None) -> list[ShapeContract]:
    """Returns one contract for each combination of the sizes in `shapes`, or the contract itself for none."""
    combinations: list[dict[str, int]] = [{}]
    for role, sizes in (shapes or {}).items():
        each = [sizes] if isinstance(sizes, int) else list(dict.fromkeys(sizes))
        combinations = [{**known, role: size} for known in combinations for size in each]
    return [contract.pinned(sizes) for sizes in combinations]


def find_graphs(source: str | Path, *, file_name: str | None = None, hub: HubOptions | None = None) -> Graphs:
    """Returns the graphs of `source`, downloaded if they are on the Hub.

    Args:
        source: An ``.onnx`` file, a folder or a Hub repo id.
        file_name: Which graph, where there are several.
        hub: How the Hub is asked.

    Raises:
        GraphNotFoundError: There is no graph, not the one asked for, or several to choose from.
    """
    hub = hub or HubOptions()
    path = Path(source)
    if path.is_file():
        return Graphs(str(source), _home_of(path.parent), (path,))
    if path.is_dir():
        names = [p.relative_to(path).as_posix() for p in sorted(path.rglob("*.onnx"))]
        chosen, config = _choose(names, path, file_name, hub.subfolder, source=str(source))
        return Graphs(str(source), _home_of(path / hub.subfolder), tuple(path / name for name in chosen), config)
    return _download(str(source), file_name, hub)


def peek_ladder(source: str | Path, *, file_name: str | None = None, hub: HubOptions | None = None) -> ShapeLadder:
    """Returns the contracts of `source` without its weights: of a Hub repo only the graphs' headers are read.

    Raises:
        GraphNotFoundError: See `find_graphs`.
    """
    hub = hub or HubOptions()
    if Path(source).exists() or hub.local_files_only or _is_offline():
        return find_graphs(source, file_name=file_name, hub=hub).ladder()[0]
    repo_id = str(source)
    names = _names_on_hub(repo_id, hub)
    saved = str(PurePosixPath(hub.subfolder) / CONFIG_NAME)
    folder = _fetch(repo_id, hub, [saved]) if saved in names else None
    chosen, config = _choose(_graphs_among(names), folder, file_name, hub.subfolder, source=repo_id)
    roles, shapes = (config.roles, config.shapes) if config else ({}, None)
    contracts = [_remote_contract(repo_id, name, hub, roles) for name in chosen]
    return ShapeLadder(tuple(rung for contract in contracts for rung in pin_all(contract, shapes)))


def _choose(
    names: Sequence[str], folder: Path | None, file_name: str | None, subfolder: str, *, source: str
) -> tuple[tuple[str, ...], FixedShapeConfig | None]:
    """The graphs that are meant: those of the saved config, the one asked for, ``model.onnx``, or the only one."""
    inside = [name for name in names if PurePosixPath(name).is_relative_to(subfolder or ".")]
    config = FixedShapeConfig.from_folder(folder / subfolder) if folder else None
    if config and file_name in (None, config.graphs[0]):
        listed = tuple(str(PurePosixPath(subfolder) / name) for name in config.graphs)
        if missing := [name for name in listed if name not in names]:
            raise GraphNotFoundError(
                f"{CONFIG_NAME} of {source} lists {', '.join(missing)}, which is not there.", source=source, found=tuple(names)
            )
        return listed, config
    wanted = file_name or MAIN_GRAPH
    by_name = sorted((n for n in inside if n == wanted or PurePosixPath(n).name == wanted), key=lambda n: n.count("/"))
    if by_name or (len(inside) == 1 and file_name is None):
        return tuple((by_name or inside)[:1]), None
    what = f"no graph called {wanted}" if file_name or not inside else "several graphs; choose one with file_name="
    raise GraphNotFoundError(
        f"{source} holds {what}. Graphs there: {', '.join(inside) or 'none'}.", source=source, found=tuple(inside)
    )


def holds_torch_model(source: str | Path, hub: HubOptions | None = None) -> bool:
    """Whether `source` has PyTorch weights that could be exported."""
    hub = hub or HubOptions()
    path = Path(source)
    if path.is_dir():
        names = [p.relative_to(path).as_posix() for p in path.rglob("*")]
    else:
        names = _names_on_hub(str(source), hub)
    weights = (".safetensors", ".bin", ".safetensors.index.json")
    return any(PurePosixPath(name).is_relative_to(hub.subfolder or ".") and name.endswith(weights) for name in names)


def _download(repo_id: str, file_name: str | None, hub: HubOptions) -> Graphs:
    names = _graphs_among(_names_on_hub(repo_id, hub))
    saved = str(PurePosixPath(hub.subfolder) / CONFIG_NAME)
    chosen, config = _choose(names, _fetch(repo_id, hub, [saved]), file_name, hub.subfolder, source=repo_id)
    folder = _fetch(repo_id, hub, [*chosen, "config.json", str(PurePosixPath(hub.subfolder) / "config.json")])
    paths = tuple(folder / name for name in chosen)
    weights = {path.parent / data for path in paths for data in read_contract(path).external_data}
    if weights:
        _fetch(repo_id, hub, sorted(path.relative_to(folder).as_posix() for path in weights))
    return Graphs(repo_id, _home_of(folder / hub.subfolder), paths, config)


def _names_on_hub(repo_id: str, hub: HubOptions) -> list[str]:
    """The files of a repo: from the Hub, or from its cache where the Hub may not or cannot be asked."""
    from huggingface_hub import HfApi

    if not hub.local_files_only and not _is_offline():
        try:
            return HfApi(token=hub.token).list_repo_files(repo_id, revision=hub.revision)
        except repo_errors() as error:
            raise _unknown_repo(repo_id, error) from error
        except connection_errors():
            hub = replace(hub, local_files_only=True)
    folder = _fetch(repo_id, hub, [])
    return [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]


def _fetch(repo_id: str, hub: HubOptions, names: list[str]) -> Path:
    """Downloads the files called `names` that the repo has, and returns the folder of the cache that holds them."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=names, **hub.for_transformers()))
    except repo_errors() as error:
        raise _unknown_repo(repo_id, error) from error


def _unknown_repo(repo_id: str, error: Exception) -> GraphNotFoundError:
    return GraphNotFoundError(
        f"{repo_id!r} is neither a file, nor a folder, nor a Hub repo that can be had. The Hub's client says: {error}",
        source=repo_id,
    )


def _graphs_among(names: Sequence[str]) -> list[str]:
    return sorted(name for name in names if name.endswith(".onnx"))


def _remote_contract(repo_id: str, name: str, hub: HubOptions, roles: Mapping[str, list[str | None]]) -> ShapeContract:
    from huggingface_hub import HfFileSystem

    files = HfFileSystem(token=hub.token)
    with files.open(f"{repo_id}/{name}", "rb", revision=hub.revision, block_size=2**20) as stream:
        return read_contract(cast(BinaryIO, stream), roles=roles)


def _home_of(folder: Path) -> Path:
    """The folder that holds config and processors of a graph: its own, or the one above, as with ``onnx/model.onnx``."""
    candidates = (folder, folder.resolve().parent)
    return next((c for c in candidates if (c / "config.json").is_file() or (c / "tokenizer_config.json").is_file()), folder)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)
