"""The code of README and docs runs as it stands, against a Hub that holds the repos they name; links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import optimum_fixedshape

from . import stock, tiny, zoo
from .graphs import ONNX_MODELS
from .hub import LocalHub
from .shell import SCRIPTS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
REFERENCE = sorted((ROOT / "docs" / "api").glob("*.md"))
LINKED = [*PAGES, *REFERENCE, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
# As in `LocalHub.run`.
WARNINGS = ("-W", "error", "-W", "ignore:Use 'content:DeprecationWarning")

OURS = re.compile(r"(echo .*\| )?(optimum-fixedshape|optimum-cli fixed-shape) ")
BLOCK = re.compile(r"^```(\w+)?\n(.*?)^```$", re.M | re.S)


def program_of(page: Path) -> str:
    """The blocks of a page as one program, each at its own line; its commands of this package run in a shell."""
    text = page.read_text(encoding="utf-8")
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        kind, code = block.groups()
        first = text.count("\n", 0, block.start(2))
        if kind == "python":
            lines[first : first + code.count("\n")] = code.splitlines()
        elif kind == "bash":
            calls = [f"shell({each!r})" for each in code.replace("\\\n", " ").splitlines() if OURS.match(each)]
            lines[first] = "; ".join(calls)
    return "\n".join(lines).rstrip()


PROGRAMS = {str(page): program for page in PAGES if (program := program_of(page))}
# It starts processes, and so wants one without the threads of other pages.
FORKING = str(ROOT / "docs" / "scaling.md")
TOGETHER = [page for page in PROGRAMS if page != FORKING]
# Pages of a group are read by one process, one after the other, since imports take longer than most pages.
GROUPS = [*(TOGETHER[start::4] for start in range(4)), [FORKING]]


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: "+".join(Path(page).stem for page in group))
def test_the_code_of_pages_runs(group, exported, specimen, tmp_path):
    repos = tmp_path / "repos"
    shutil.copytree(exported("text-classification").folder, repos / "my-org" / "bert-fixed")
    shutil.copytree(tiny.MINILM, repos / "sentence-transformers" / "all-MiniLM-L6-v2")
    for name in ("vit", "clip", "wav2vec2"):
        shutil.copytree(specimen(name).folder, repos / "my-org" / f"{name}-fixed")
    shutil.copytree(stock.graphs("gpt2"), repos / "my-org" / "gpt2-onnx")
    (repos / "my-org" / "squeezenet-onnx").mkdir()
    shutil.copy(
        ONNX_MODELS / "light" / "light_squeezenet.onnx", repos / "my-org" / "squeezenet-onnx" / "squeezenet.onnx"
    )
    originals = {
        "vit": (zoo.original("vit"), zoo.processor("vit")),
        "bert": (tiny.original("bert", "text-classification"), tiny.tokenizer("wordpiece")),
    }
    for name, parts in originals.items():
        for part in parts:
            part.save_pretrained(repos / "my-org" / f"{name}-torch")
    with LocalHub(repos) as hub:
        path = os.pathsep.join([str(SCRIPTS), os.environ["PATH"]])
        environ = hub.environ(HF_TOKEN=hub.token, PATH=path, OMP_NUM_THREADS="1")
        (tmp_path / "pages.json").write_text(json.dumps({page: PROGRAMS[page] for page in group}), encoding="utf-8")
        (tmp_path / "work").mkdir()
        command = [sys.executable, "-P", *WARNINGS, Path(__file__).with_name("read_pages.py"), tmp_path / "pages.json"]
        done = subprocess.run(
            command, cwd=tmp_path / "work", env=environ, capture_output=True, text=True, timeout=1800, check=False
        )
    assert done.returncode == 0, done.stderr


def anchors_of(page: Path) -> set[str]:
    """The anchors of a page's headings, as repositories and the site make them."""
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    titles = [re.sub(r"\[([^]]*)\]\([^)]*\)|[`*]", r"\1", title) for title in re.findall(r"^#+ (.*)$", text, re.M)]
    return {re.sub(r"[^\w -]", "", title.strip().lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.name)
def test_links_and_anchors_lead_somewhere(page):
    text = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for target, _, anchor in re.findall(r"\]\((?!https?://)([^)#\s]*)(#([^)\s]+))?\)", text):
        file = page.parent / target if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file), f"{target}#{anchor}"


def test_every_public_name_is_on_one_page_of_the_reference():
    pages = {page.name: page.read_text(encoding="utf-8") for page in REFERENCE}
    for name, home in optimum_fixedshape._HOMES.items():
        module = home.partition(":")[0]
        documented = rf"^::: optimum_fixedshape\.({name}|{module})$|^\| `\w+`<br>`{name}` \||^## {name}$"
        found = [page for page, text in pages.items() if re.search(documented, text, re.M)]
        assert len(found) == 1, f"{name} is on {found}"


def test_every_example_is_listed():
    listed = (ROOT / "docs" / "examples.md").read_text(encoding="utf-8")
    scripts = {str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*/*.py")}
    assert set(re.findall(r"examples/\w+/\w+\.py", listed)) == scripts
