"""The wheel without extras: `make test-dist` runs this by name, with a clean environment in ``CLEAN_ENVIRONMENT``."""

from __future__ import annotations

import json
import re

import pytest

from optimum_fixedshape import export_model

from . import tiny, zoo
from .clean import CLEAN, run, run_python

NOT_NEEDED = ("PIL", "soundfile", "soxr", "av", "onnxscript", "pytest", "datasets", "sentencepiece", "sklearn")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A PyTorch model, and graphs: made by the environment of the tests, used by the clean one."""
    root = tmp_path_factory.mktemp("models")
    original, words = tiny.original("bert", "text-classification"), tiny.tokenizer("wordpiece")
    for part in (original, words):
        part.save_pretrained(root / "bert-torch")
    shapes = {"batch_size": 2, "sequence_length": [8, 16]}
    export_model(original, root / "bert", processor=words, shapes=shapes, progress=False)
    export_model(zoo.original("vit"), root / "vit", processor=zoo.processor("vit"), progress=False)
    return root


def test_the_environment_is_clean(tmp_path):
    found = f"""
import importlib.util, optimum_fixedshape
print(optimum_fixedshape.__file__)
print([name for name in {NOT_NEEDED} if importlib.util.find_spec(name)])
"""
    file, others = run_python(found, tmp_path).splitlines()
    assert file.startswith(f"{CLEAN}/lib/")
    assert others == "[]"
    done = run("python", "-m", "pip", "check", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_texts_are_answered(models):
    code = """
from optimum_fixedshape import AutoTokenizer, ORTModelForSequenceClassification, pipeline

model = ORTModelForSequenceClassification.from_pretrained("bert")
pipe = pipeline("text-classification", model=model, data_processor=AutoTokenizer.from_model(model))
print(len(pipe(["Short.", "Any number of texts.", "Three."])))
"""
    assert run_python(code, models) == "3\n"


@pytest.mark.parametrize("command", [["optimum-fixedshape"], ["optimum-cli", "fixed-shape"]], ids=" ".join)
def test_commands(models, command):
    done = run(*command, "--help", cwd=models)
    assert done.returncode == 0, done.stderr
    assert all(re.search(rf"\b{name}\b", done.stdout) for name in ("inspect", "export", "pin", "check", "bench", "run"))
    done = run(*command, "inspect", "bert", "--json", cwd=models)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)
    done = run(*command, "check", "bert", cwd=models)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_needs_an_extra_says_how_to_get_it(models):
    done = run("optimum-fixedshape", "export", "bert-torch", "made", cwd=models)
    expected = 'error: Exporting needs onnxscript, which is not installed: pip install "optimum-fixedshape[export]"\n'
    assert (done.returncode, done.stderr) == (3, expected)
    # transformers' own processors say it in their own words, before ours are asked
    code = """
import optimum_fixedshape
try:
    optimum_fixedshape.pipeline("image-classification", model="vit")
except ImportError as error:
    print(error)
"""
    assert "pip install pillow" in run_python(code, models)
