"""The code of README and docs runs as it stands, against a Hub that holds the repos they name."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from . import stock, tiny, zoo
from .hub import LocalHub

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "performance.md"], ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, exported, specimen, tmp_path):
    code = "\n".join(re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S))
    assert code
    repos = tmp_path / "repos"
    shutil.copytree(exported("text-classification").folder, repos / "my-org" / "bert-fixed")
    shutil.copytree(tiny.MINILM, repos / "sentence-transformers" / "all-MiniLM-L6-v2")
    for name in ("vit", "clip", "wav2vec2"):
        shutil.copytree(specimen(name).folder, repos / "my-org" / f"{name}-fixed")
    shutil.copytree(stock.graphs("gpt2"), repos / "my-org" / "gpt2-onnx")
    for part in (zoo.original("vit"), zoo.processor("vit")):
        part.save_pretrained(repos / "my-org" / "vit-torch")
    with LocalHub(repos) as hub:
        hub.run(code)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
