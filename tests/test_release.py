"""What a release says of itself in several places is the same everywhere."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import optimum_fixedshape

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))


def test_type_checkers_see_the_public_names():
    """Each name of the stub is the one that `__init__.py` imports when it is first used."""
    stub = ast.parse((ROOT / "src" / "optimum_fixedshape" / "__init__.pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    homes = {name.asname: f"{node.module}:{name.name}" for node in imports for name in node.names}
    aliases = [node for node in stub.body if isinstance(node, ast.Assign)]
    homes |= {node.targets[0].id: homes[node.value.id] for node in aliases}
    assert homes == optimum_fixedshape._HOMES


def test_the_version_is_one():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert project["version"] == cited["version"] == optimum_fixedshape.__version__


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_our_targets_and_pinned_actions(path):
    text = path.read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    assert all("timeout-minutes" in job for job in workflow["jobs"].values())
    for use in re.findall(r"uses: (.*)", text):
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use), use
    made = " ".join(line for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines() if ":" in line)
    for call in re.findall(r"run: make (.*)", text):
        for target in call.replace('"test-$STACK"', "test-5 test-4").split():
            assert re.search(rf"(^| ){target}\b[^=]*:", made), target
