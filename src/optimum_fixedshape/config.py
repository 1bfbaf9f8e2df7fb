"""`FixedShapeConfig`: what a folder's graphs are, saved beside them as ``fixedshape_config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path, PureWindowsPath
from typing import Any

from .errors import InvalidModelError

CONFIG_NAME = "fixedshape_config.json"


@dataclass(frozen=True)
class FixedShapeConfig:
    """Which graphs of a folder are rungs of one model, and how they came about.

    Attributes:
        graphs: The rungs' files, in the config's own folder. Stock optimum loads ``model.onnx``, the largest.
        task: What the graphs were exported for.
        shapes: Sizes that dynamic graphs are pinned to at load, by shape key; a list makes a ladder. Empty where the
            sizes are baked into the graphs.
        roles: Roles of axes that the graph's names do not tell, by tensor name.
        difference: The largest absolute difference from the original model that was measured at export, by graph.

    Raises:
        ValueError: A graph is not a file of the folder, or a value is of the wrong kind.
    """

    graphs: tuple[str, ...]
    task: str | None = None
    shapes: Mapping[str, int | list[int]] = field(default_factory=dict)
    roles: Mapping[str, list[str | None]] = field(default_factory=dict)
    difference: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.graphs or not all(map(_is_file_name, self.graphs)):
            raise ValueError(f"graphs must be files of the folder, got {list(self.graphs)}")
        if not all(map(_is_sizes, self.shapes.values())):
            raise ValueError(f"shapes must be sizes or lists of sizes by shape key, got {dict(self.shapes)}")
        if not all(isinstance(roles, list) for roles in self.roles.values()):
            raise ValueError(f"roles must be lists of roles by tensor name, got {dict(self.roles)}")

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


def made_folder(path: str | Path) -> Path:
    """Returns the folder at `path`, which is created if need be.

    Raises:
        FileExistsError: A file is there.
    """
    folder = Path(path)
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"{folder} is a file, and a folder is needed to save to.")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _checked_list(graphs: Any) -> tuple[str, ...]:
    if not isinstance(graphs, list):
        raise TypeError(f"graphs must be a list, got {graphs!r}")
    return tuple(graphs)


def _is_file_name(name: Any) -> bool:
    # PureWindowsPath knows both slashes, and drives.
    return isinstance(name, str) and PureWindowsPath(name).name == name and name not in ("", ".", "..")


def _is_sizes(value: Any) -> bool:
    sizes = value if isinstance(value, list) else [value]
    return bool(sizes) and all(isinstance(size, int) and size > 0 for size in sizes)
