"""Whether our import, and a pipeline's work, leave the libraries as they were: run in a process of its own.

``python unchanged.py FOLDER`` prints what changed and what was added, as JSON; FOLDER holds a text classifier.
"""

from __future__ import annotations

import importlib
import json
import sys
import types
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


def parts_of(value: Any) -> dict[str, Any]:
    """What can be changed in a value: a module's and a class's public names, an object's attributes, items."""
    if isinstance(value, dict):
        return {f"[{key!r}]": part for key, part in dict.items(value)} | attributes_of(value)
    if isinstance(value, list):
        return {f"[{index}]": part for index, part in enumerate(value)}
    if isinstance(value, (types.ModuleType, type)):
        return {f".{name}": part for name, part in vars(value).items() if not name.startswith("_")}
    return attributes_of(value)


def attributes_of(value: Any) -> dict[str, Any]:
    return {f".{name}": part for name, part in getattr(value, "__dict__", {}).items()}


def is_followed(value: Any) -> bool:
    """Whether a value belongs to one of the libraries, or is a container that one of them holds."""
    home = value if isinstance(value, type) else type(value)
    return isinstance(value, (dict, list)) or is_theirs(home.__module__)


def read_everything() -> list[tuple[str, Any, dict[str, Any]]]:
    """Everything that can be reached from the imported modules: the way to it, the value, and its parts."""
    found = []
    queue = [(name, module) for name, module in sys.modules.items() if is_theirs(name)]
    seen = {id(value) for _, value in queue}
    while queue:
        way, value = queue.pop()
        parts = parts_of(value)
        found.append((way, value, parts))
        fresh = [(way + step, part) for step, part in parts.items() if is_followed(part) and id(part) not in seen]
        seen |= {id(part) for _, part in fresh}
        queue += fresh
    return found


def read_differences(before: list[tuple[str, Any, dict[str, Any]]]) -> dict[str, Any]:
    changed, added = [], []
    for way, value, parts in before:
        now = parts_of(value)
        changed += [way + step for step, part in parts.items() if not is_same(part, now.get(step, LIBRARIES))]
        added += [way + step for step in now if step not in parts and not is_import(value, now[step])]
    return {"changed": changed, "added": added, "compared": sum(len(parts) for _, _, parts in before)}


def is_same(before: Any, after: Any) -> bool:
    return before is after or (isinstance(before, PLAIN) and type(before) is type(after) and before == after)


def is_import(owner: Any, part: Any) -> bool:
    """Whether a new name in a module is what Python, or transformers' lazy modules, put there at first use."""
    lazy = hasattr(owner, "__getattr__") or type(owner).__name__ == "_LazyModule"
    return isinstance(owner, types.ModuleType) and (lazy or isinstance(part, types.ModuleType))


def main(folder: str) -> None:
    import_libraries()
    before = read_everything()
    import optimum_fixedshape

    for name in optimum_fixedshape.__all__:
        getattr(optimum_fixedshape, name)
    pipe = optimum_fixedshape.pipeline("text-classification", model=folder)
    assert len(pipe(["Go", "Rain fell on the market"])) == 2
    print(json.dumps(read_differences(before)))  # noqa: T201 - this is its answer


if __name__ == "__main__":
    main(sys.argv[1])
