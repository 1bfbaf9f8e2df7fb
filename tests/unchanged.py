"""Whether our import, and a pipeline's work, leave the libraries as they were: run in a process of its own.

``python unchanged.py FOLDER`` prints what changed and what was added, as JSON; FOLDER holds a text classifier.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
from collections.abc import Iterator
from typing import Any

LIBRARIES = ("transformers", "optimum", "tokenizers", "onnxruntime")
IMPORTED = (
    "transformers.pipelines.pt_utils",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
    "transformers.models.auto.processing_auto",
    "transformers.models.bert.modeling_bert",
    "optimum.modeling_base",
    "optimum.pipelines",
    "optimum.onnxruntime",
)
PLAIN = (str, bytes, int, float, bool, type(None))


def import_libraries() -> None:
    for name in (*LIBRARIES, *IMPORTED):
        try:
            importlib.import_module(name)
        except ImportError:
            assert name.startswith("optimum."), name
    for name in dir(sys.modules["transformers.pipelines"]):
        getattr(sys.modules["transformers.pipelines"], name)


def is_theirs(name: str) -> bool:
    return name.partition(".")[0] in LIBRARIES


def parts_of(value: Any) -> Iterator[tuple[str, Any]]:
    """What can be changed in a value: a module's and a class's public names, an object's attributes, a mapping's keys."""
    if isinstance(value, dict):
        yield from ((f"[{key!r}]", part) for key, part in dict.items(value))
    if isinstance(value, (list, tuple)):
        yield "(items)", str([id(part) for part in value])
        yield from ((f"[{index}]", part) for index, part in enumerate(value))
    if isinstance(value, (types.ModuleType, type)):
        yield from ((f".{name}", part) for name, part in vars(value).items() if not name.startswith("_"))
    elif is_theirs(type(value).__module__) and hasattr(value, "__dict__"):
        yield from ((f".{name}", part) for name, part in vars(value).items())


class Snapshot:
    """Every value that can be reached from the modules that are imported, by the way that leads there.

    Attributes:
        values: Way to value.
        owners: Way to the value that the last step starts from.
    """

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.owners: dict[str, Any] = {}
        seen: set[int] = set()
        names = [name for name in sorted(sys.modules) if is_theirs(name)]
        queue = [(name, sys.modules[name], None) for name in names]
        while queue:
            way, value, owner = queue.pop()
            self.values[way], self.owners[way] = value, owner
            inside = getattr(value, "__module__", None) or getattr(value, "__name__", "transformers")
            if id(value) not in seen and (owner is None or not isinstance(value, types.ModuleType)):
                seen.add(id(value))
                if isinstance(value, (dict, list, tuple)) or is_theirs(str(inside)):
                    queue += [(way + step, part, value) for step, part in parts_of(value)]

    def differences(self, later: Snapshot) -> dict[str, list[str]]:
        changed = [way for way, value in self.values.items() if not is_same(value, later.values.get(way, Snapshot))]
        fresh = [way for way in later.values if way not in self.values]
        added = [way for way in fresh if self.is_known(later.owners[way]) and not is_import(later, way)]
        return {"changed": changed, "added": added, "compared": [str(len(self.values))]}

    def is_known(self, owner: Any) -> bool:
        if not hasattr(self, "_ids"):
            self._ids = {id(value) for value in self.values.values()}
        return owner is not None and id(owner) in self._ids


def is_same(before: Any, after: Any) -> bool:
    return before is after or (isinstance(before, PLAIN) and type(before) is type(after) and before == after)


def is_import(snapshot: Snapshot, way: str) -> bool:
    """Whether a new name of a module is what Python or transformers' lazy modules put there when it is first used."""
    owner, value = snapshot.owners[way], snapshot.values[way]
    return isinstance(owner, types.ModuleType) and (isinstance(value, types.ModuleType) or hasattr(owner, "__getattr__"))


def main(folder: str) -> None:
    import_libraries()
    before = Snapshot()
    import optimum_fixedshape

    for name in optimum_fixedshape.__all__:
        getattr(optimum_fixedshape, name)
    imported = Snapshot()
    pipe = optimum_fixedshape.pipeline("text-classification", model=folder)
    assert len(pipe(["Go", "Rain fell on the market"])) == 2
    worked = Snapshot()
    print(json.dumps([before.differences(imported), imported.differences(worked)]))  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1])
