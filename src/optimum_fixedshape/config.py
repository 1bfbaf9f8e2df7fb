"""`FixedShapeConfig`: what a folder's graphs are, saved beside them as ``fixedshape_config.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .errors import InvalidModelError

CONFIG_NAME = "fixedshape_config.json"


@dataclass(frozen=True)
class FixedShapeConfig:
    """Which graphs of a folder are rungs of one model, and how they came about.

    Attributes:
        graphs: The rungs' files, relative to the folder. Stock optimum loads ``model.onnx``, the largest.
        task: What the graphs were exported for.
        shapes: Sizes that dynamic graphs are pinned to at load, by shape key; a list makes a ladder. Empty where the
            sizes are baked into the graphs.
        roles: Roles of axes that the graph's names do not tell, by tensor name.
        difference: The largest absolute difference from the original model that was measured at export, by graph.
    """

    graphs: tuple[str, ...]
    task: str | None = None
    shapes: Mapping[str, int | list[int]] = field(default_factory=dict)
    roles: Mapping[str, list[str | None]] = field(default_factory=dict)
    difference: Mapping[str, float] = field(default_factory=dict)

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Writes ``fixedshape_config.json`` into `save_directory`, which is created if need be."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_NAME).write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

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
            return cls._from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (TypeError, ValueError, AttributeError) as error:
            raise InvalidModelError(f"{path} is not a valid {CONFIG_NAME}: {error}", path=str(path)) from error

    @classmethod
    def _from_dict(cls, facts: dict[str, Any]) -> FixedShapeConfig:
        known = {f.name for f in fields(cls)}
        config = cls(**{key: value for key, value in facts.items() if key in known})
        graphs = tuple(map(str, config.graphs))
        if not graphs or any(Path(name).is_absolute() or ".." in Path(name).parts for name in graphs):
            raise ValueError(f"graphs must be files of the folder, got {list(graphs)}")
        return cls(**{**{f.name: getattr(config, f.name) for f in fields(cls)}, "graphs": graphs})
