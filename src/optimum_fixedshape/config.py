"""`FixedShapeConfig`: what a folder's graphs are, saved beside them as ``fixedshape_config.json``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path, PureWindowsPath
from typing import Any

from .contract import ShapeContract, check_known_names
from .errors import ExistingFilesError, InvalidModelError, ShapeMismatchError
from .graph.reader import read_contract
from .paths import path_of
from .roles import with_names

CONFIG_NAME = "fixedshape_config.json"
_LONGEST_NAME = 255
_LARGEST_SIZE = 2**31 - 1
_MOST_RUNGS = 4096

Roles = Mapping[str, Sequence[str | None]]
Names = Mapping[str, str]


@dataclass(frozen=True)
class FixedShapeConfig:
    """Which graphs of a folder are rungs of one model, and how they came about.

    Attributes:
        graphs: The rungs' files, in the config's own folder. Stock optimum loads ``model.onnx``, the largest.
        task: What the graphs were exported for.
        shapes: Sizes that dynamic graphs are pinned to at load, by shape key; a list makes a ladder. Empty where the
            sizes are baked into the graphs.
        roles: Roles of axes that the graphs' names do not tell, by tensor name: a standard name where one stands for
            it, else the graph's own.
        names: The graphs' own names of inputs and outputs to the standard ones that stand for them.
        pipeline: Arguments that `pipeline` takes for these graphs where the caller says nothing, such as
            ``{"overflow": "window", "top_k": 3}``.
        difference: The largest absolute difference from the original that was measured when the graphs were made, by
            graph.
        fidelity: What that difference is to be read against, by graph, where the graphs were made smaller: the spread
            of the original's numbers, the share of answers that changed, the lowest cosine of embeddings.
        dtype: What the graphs were made smaller to, ``"fp16"`` or ``"int8"``; None where they compute as before.
        optimized: Whether they were fused by onnxruntime's optimizer for transformers.
        original: The Hub repo of the model that the graphs were made from, where it is known.

    Raises:
        ValueError: A graph is not a file of the folder, or a value is of the wrong kind.
    """

    graphs: tuple[str, ...]
    task: str | None = None
    shapes: Mapping[str, int | list[int]] = field(default_factory=dict)
    roles: Mapping[str, list[str | None]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    pipeline: Mapping[str, Any] = field(default_factory=dict)
    difference: Mapping[str, float] = field(default_factory=dict)
    fidelity: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    dtype: str | None = None
    optimized: bool = False
    original: str | None = None

    def __post_init__(self) -> None:
        if not self.graphs or not all(map(_is_file_name, self.graphs)):
            raise ValueError(f"graphs must be files of the folder, got {list(self.graphs)}")
        if not all(map(_is_sizes, self.shapes.values())):
            raise ValueError(
                f"shapes must be sizes of 1 to {_LARGEST_SIZE} by shape key, or lists, got {dict(self.shapes)}"
            )
        if math.prod(len(value) for value in self.shapes.values() if isinstance(value, list)) > _MOST_RUNGS:
            raise ValueError(f"shapes must make at most {_MOST_RUNGS} rungs, got more")
        if not all(isinstance(axes, list) and all(map(_is_text, axes)) for axes in self.roles.values()):
            raise ValueError(f"roles must be lists of roles by tensor name, got {dict(self.roles)}")
        if not isinstance(self.pipeline, Mapping):
            raise ValueError(f"pipeline must be arguments by name, got {self.pipeline!r}")
        if not all(isinstance(name, str) for pair in self.names.items() for name in pair):
            raise ValueError(f"names must be standard names by the graph's names, got {dict(self.names)}")
        if not all(isinstance(number, int | float) for number in self.difference.values()):
            raise ValueError(f"difference must be numbers by graph, got {dict(self.difference)}")
        if not all(isinstance(number, int | float) for facts in self.fidelity.values() for number in facts.values()):
            raise ValueError(f"fidelity must be numbers by name and graph, got {dict(self.fidelity)}")
        if not all(map(_is_text, (self.task, self.dtype, self.original))) or not isinstance(self.optimized, bool):
            raise ValueError("task, dtype and original must be texts, and optimized true or false")

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes ``fixedshape_config.json`` into `save_directory`, which is created if need be."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        (made_folder(save_directory) / CONFIG_NAME).write_text(text, encoding="utf-8")

    @classmethod
    def from_folder(cls, folder: str | Path) -> FixedShapeConfig | None:
        """Returns the config saved in `folder`, or None where there is none.

        Raises:
            InvalidModelError: The file is no such config, or names a graph outside the folder.
        """
        path = Path(folder) / CONFIG_NAME
        if not path.is_file():
            return None
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
            known = {name: facts[name] for name in (f.name for f in fields(cls)) if name in facts}
            return cls(**{**known, "graphs": _checked_list(facts.get("graphs"))})
        except (TypeError, ValueError, AttributeError, RecursionError) as error:
            raise InvalidModelError(f"{path} is not a valid {CONFIG_NAME}: {error}", path=str(path)) from error


def config_beside(path: Path) -> FixedShapeConfig | None:
    """Returns what was saved of one graph of a folder, or None; without sizes to pin it to, as a file is no ladder.

    Raises:
        InvalidModelError: The config is broken.
    """
    saved = FixedShapeConfig.from_folder(path.parent)
    return replace(saved, graphs=(path.name,), shapes={}) if saved and path.name in saved.graphs else None


def config_with(
    saved: FixedShapeConfig | None,
    paths: Sequence[Path],
    *,
    shapes: Mapping[str, Sequence[int]],
    roles: Roles | None,
    names: Names | None,
) -> FixedShapeConfig:
    """Returns what is known of graphs: what was saved with them, and what the caller says, which wins.

    Raises:
        ShapeMismatchError: The caller says what no config can say, such as sizes that are too large.
    """
    graphs = tuple(path.name for path in paths)
    config = replace(saved, graphs=graphs) if saved else FixedShapeConfig(graphs)
    asked = {key: sizes[0] if len(sizes) == 1 else list(sizes) for key, sizes in shapes.items()}
    told = {name: list(axes) for name, axes in (roles or {}).items()}
    try:
        return replace(
            config,
            shapes=asked or config.shapes,
            roles={**config.roles, **told},
            names={old: new for old, new in joined_names(config.names, names or {}).items() if old != new},
        )
    except ValueError as error:
        raise ShapeMismatchError(f"{error}.") from error


def joined_names(known: Names, told: Names) -> dict[str, str]:
    """Returns two mappings of names as one, in which what was told wins over what was known."""
    taken = set(told.values())
    return {**{graph_name: name for graph_name, name in known.items() if name not in taken}, **told}


def read_contracts(
    paths: Iterable[Path], config: FixedShapeConfig, *, told: Names | None = None
) -> list[ShapeContract]:
    """Returns the contract of each graph, with the names and the roles of a config as far as the graph has them.

    Args:
        paths: The graphs of one model.
        config: What is known of them.
        told: The names that the caller maps: one of the graphs must have each.

    Raises:
        InvalidModelError: A file is broken.
        ShapeMismatchError: No graph has one of the names, or one would have two tensors under one name.
    """
    contracts = [read_contract(path) for path in paths]
    check_known_names(told or {}, dict.fromkeys(name for contract in contracts for name in _names_in(contract)))
    return [with_known_names(contract, config) for contract in contracts]


def with_known_names(contract: ShapeContract, config: FixedShapeConfig) -> ShapeContract:
    """Returns a contract, as its graph states it, with the names and the roles of a config as far as it has them."""
    own = _names_in(contract)
    return with_names(contract, {name: to for name, to in config.names.items() if name in own}, config.roles)


def _names_in(contract: ShapeContract) -> tuple[str, ...]:
    return (*contract.input_names, *contract.output_names)


def made_folder(path: str | Path) -> Path:
    """Returns the folder at `path`, which is created if need be.

    Raises:
        FileExistsError: A file is there.
    """
    folder = free_folder(path)
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def free_folder(path: str | Path) -> Path:
    """Returns the folder at `path`, which need not be there yet.

    Raises:
        FileExistsError: A file is there.
    """
    folder = path_of(path, "An output folder")
    if folder.exists() and not folder.is_dir():
        raise ExistingFilesError(f"{folder} is a file, and a folder is needed to save to.", files=(str(folder),))
    return folder


def _checked_list(graphs: Any) -> tuple[str, ...]:
    if not isinstance(graphs, list):
        raise TypeError(f"graphs must be a list, got {graphs!r}")
    if len(set(graphs)) < len(graphs):
        raise ValueError("graphs must not name a file twice")
    return tuple(graphs)


def _is_file_name(name: Any) -> bool:
    # PureWindowsPath knows both slashes, and drives.
    is_name = isinstance(name, str) and PureWindowsPath(name).name == name and name.strip(". ") != ""
    return is_name and len(name) <= _LONGEST_NAME and "\0" not in name


def _is_text(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _is_sizes(value: Any) -> bool:
    sizes = value if isinstance(value, list) else [value]
    return bool(sizes) and all(type(size) is int and 0 < size <= _LARGEST_SIZE for size in sizes)
