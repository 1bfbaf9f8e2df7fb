"""What `make dist` built: it runs this by name, with the tools that build and no others."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel() -> Path:
    (found,) = (ROOT / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_package_whole(names):
    folders = ("src/optimum_fixedshape", "src/optimum")
    sources = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    wanted = {path.relative_to(ROOT / "src").as_posix() for path in sources if "__pycache__" not in path.parts}
    assert {name for name in names if ".dist-info/" not in name} == wanted
    assert {"optimum_fixedshape/py.typed", "optimum_fixedshape/__init__.pyi"} <= names
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)


def test_optimum_stays_whose_it_is(names):
    """A file ``optimum/__init__.py`` of ours would hide what optimum installs beside it."""
    assert {name for name in names if name.startswith("optimum/")} == {
        "optimum/commands/register/register_fixedshape.py"
    }


def test_the_sdist_holds_the_repository_and_nothing_else():
    (found,) = (ROOT / "dist").glob("*.tar.gz")
    with tarfile.open(found) as archive:
        paths = {str(Path(*Path(member.name).parts[1:])) for member in archive.getmembers() if member.isfile()}
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    assert paths == {name for name in listed if (ROOT / name).is_file()} | {"PKG-INFO"}


def test_the_tree_builds_the_wheel_that_the_sdist_builds(wheel, tmp_path):
    """`python -m build` makes the wheel from the sdist; this one is made from the tree."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()
