"""The wheel with its extras, used as README says: `make test-dist` runs this by name, after `release_base.py`."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from optimum_fixedshape import export_model

from . import tiny
from .clean import BIN, WARNINGS, run
from .hub import LocalHub
from .test_docs import program_of

ROOT = Path(__file__).parents[1]


SHAPES = ("--shape", "batch_size=2", "--shape", "sequence_length=8")


def test_the_code_of_the_readme_runs_and_a_model_of_the_hub_is_exported(tmp_path):
    """Against a local Hub with the repos that they name, all of which the environment of the tests has made."""
    repo = tmp_path / "repos" / "my-org"
    original, words = tiny.original("bert", "text-classification"), tiny.tokenizer("wordpiece")
    for part in (original, words):
        part.save_pretrained(repo / "bert-torch")
    shapes = {"batch_size": 2, "sequence_length": [16, 64]}
    export_model(original, repo / "bert-fixed", processor=words, shapes=shapes, progress=False)
    pages = tmp_path / "pages.json"
    pages.write_text(json.dumps({"README.md": program_of(ROOT / "README.md")}), encoding="utf-8")
    (tmp_path / "work").mkdir()
    with LocalHub(tmp_path / "repos") as hub:
        reader = shutil.copy(Path(__file__).with_name("read_pages.py"), tmp_path)  # whose folder Python imports from
        done = run("python", *WARNINGS, reader, pages, cwd=tmp_path / "work", **hub.environ(HF_TOKEN=hub.token))
        assert done.returncode == 0, done.stderr
        assert hub.sent("model.onnx")
        command = ("optimum-fixedshape", "export", "my-org/bert-torch", "bert", *SHAPES)
        done = run(*command, cwd=tmp_path / "work", **hub.environ())
        assert done.returncode == 0, done.stderr
        assert hub.sent("model.safetensors")
    assert (tmp_path / "work" / "bert" / "model.onnx").is_file()
    done = run("python", "-m", "pip", "check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_mypy_reads_what_is_installed(tmp_path):
    """With all that it imports, as in anybody's program; the suite reads the same script without transformers."""
    pytest.importorskip("mypy", reason="mypy is among the tools of stack 5")
    script = tmp_path / "script.py"
    script.write_text(Path(__file__).with_name("typed_script.py").read_text(encoding="utf-8"), encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--python-executable", BIN / "python", script]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
