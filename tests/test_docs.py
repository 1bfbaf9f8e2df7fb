"""The code of README and docs runs as it stands, against a Hub that holds the repos they name."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from . import stock, tiny, zoo
from .graphs import ONNX_MODELS
from .hub import LocalHub
from .shell import SCRIPTS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "performance.md"], ids=lambda page: page.name)
def test_the_code_of_a_page_runs(page, exported, specimen, tmp_path):
    blocks = re.findall(r"^```(python|bash)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    code = "\n".join(block if kind == "python" else calls_of(block) for kind, block in blocks)
    assert code
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
        hub.run(code, HF_TOKEN=hub.token, PATH=os.pathsep.join([str(SCRIPTS), os.environ["PATH"]]), OMP_NUM_THREADS="1")


def calls_of(block: str) -> str:
    """Python that runs a block's commands of this package in a shell, in the page's own place and order."""
    lines = block.replace("\\\n", " ").splitlines()
    ours = [line for line in lines if re.match(r"(echo .*\| )?(optimum-fixedshape|optimum-cli fixed-shape) ", line)]
    calls = [f"subprocess.run({line!r}, shell=True, check=True, stdout=subprocess.DEVNULL)" for line in ours]
    return "\n".join(["import subprocess", *calls])


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"], ids=lambda page: page.name)
def test_the_links_of_a_page_lead_somewhere(page):
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
