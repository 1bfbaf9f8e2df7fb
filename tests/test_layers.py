"""Imports point down: the order of the modules, and what the lowest of them may not know."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import optimum_fixedshape

NAME = "optimum_fixedshape"
SOURCE = Path(optimum_fixedshape.__file__).parent

LAYERS = [
    ["errors", "_compat", "paths"],
    ["contract", "caches"],
    ["ladder", "suggesting"],
    ["roles"],
    ["fitting", "graph"],
    ["unfitting", "windows", "padding", "pooling", "remembered", "batching"],
    [
        *[
            "session_cache",
            "threads",
            "sessions",
            "runtime",
            "tower_parts",
            "towers",
            "config",
            "sentence_config",
            "hub",
            "choosing",
            "repo",
        ],
        *["scratch", "tasks", "detecting", "feeds", "distances", "differences", "changes", "card", "machine"],
    ],
    ["decoding", "parts"],
    ["processors", "models"],
    ["pipelines", "export"],
    ["bare", "pinning", "checking", "bench", "ladder_report"],
    ["cli"],
]
STRANGERS = {"processors", "models"}
WITHOUT_TORCH = [
    "contract",
    "ladder",
    "roles",
    "fitting",
    "unfitting",
    "suggesting",
    "pooling",
    "batching",
    "graph.reader",
    "graph.outline",
    "detecting",
    "feeds",
    "windows",
    "runtime",
    "decoding",
]
# A repo that has no graph yet is exported while it is loaded, which must not cost an import when it has one.
UP_ON_PURPOSE = {
    ("models.loading", "export.folder"),
    ("models.loading", "export.shapes"),
    ("models.pushing", "checking.check"),
}

MODULES = {
    ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(SOURCE.rglob("*.py"))
    if path != SOURCE / "__init__.py"  # names are looked up there lazily, whatever their layer
}


def imports_of(module: str) -> set[str]:
    """What `module` imports, in functions too: our modules by their names here, others by their package's."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = [NAME, *filter(None, package.split("."))]
            above = base[: len(base) - node.level + 1] if node.level else []
            whole = ".".join([*above, *filter(None, [node.module])])
            found |= {f"{whole}.{alias.name}" for alias in node.names}
    return {ours(name) if name.split(".")[0] == NAME else name.split(".")[0] for name in found}


def ours(name: str) -> str:
    parts = name.split(".")[1:]
    return next(known for end in range(len(parts), 0, -1) if (known := ".".join(parts[:end])) in MODULES)


def layer_of(module: str) -> int:
    return next(level for level, names in enumerate(LAYERS) if module.split(".")[0] in names)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module):
    for imported in imports_of(module) & MODULES.keys():
        own, other = module.split(".")[0], imported.split(".")[0]
        if (module, imported) not in UP_ON_PURPOSE:
            assert layer_of(imported) <= layer_of(module), f"{module} imports {imported}, which is above it"
        assert {own, other} != STRANGERS, f"{module} imports {imported}: only pipelines join the two"


def test_the_exceptions_are_used():
    for module, imported in UP_ON_PURPOSE:
        assert imported in imports_of(module)


@pytest.mark.parametrize("module", WITHOUT_TORCH)
def test_the_core_knows_neither_torch_nor_transformers(module):
    reached, todo = set(), [module]
    while todo:
        imports = imports_of(todo.pop())
        assert not imports & {"torch", "transformers", "optimum"}
        todo += imports & MODULES.keys() - reached
        reached |= imports & MODULES.keys()


def test_only_compat_asks_for_versions():
    asking = {module for module, path in MODULES.items() if "find_spec" in path.read_text(encoding="utf-8")}
    assert asking == {"_compat"}
