"""Repos for those who have not installed this package: what transformers itself makes of them, and what it does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import transformers

from optimum_fixedshape import AutoTokenizer, ORTModelForSequenceClassification, pipeline
from optimum_fixedshape.models.remote_code import CODE_NAME, write_remote_code
from optimum_fixedshape.tasks import find_task

from . import pictures, tiny, zoo
from .hub import LocalHub

SOURCE = Path(__file__).parents[1] / "src"
MARKER = "\nimport pathlib\npathlib.Path({!r}).touch()\n"


@pytest.fixture(scope="module")
def root(exported, specimen, tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    for task in ("text-classification", "feature-extraction", "multiple-choice"):
        shutil.copytree(exported(task).folder, root / "acme" / task)
    shutil.copytree(specimen("vit").folder, root / "acme" / "vit")
    return root


@pytest.fixture
def marked(root, tmp_path):
    """A folder whose code leaves a mark when it runs, and where the mark would be."""
    folder, marker = tmp_path / "marked", tmp_path / "mark"
    shutil.copytree(root / "acme" / "text-classification", folder)
    with (folder / CODE_NAME).open("a") as file:
        file.write(MARKER.format(str(marker)))
    return folder, marker


def test_transformers_runs_it_where_the_package_is_installed(root, exported, tmp_path):
    """And gives what the original gives: by the repo alone, by the task's own name, and by its Auto class."""
    picture = tmp_path / "picture.png"
    pictures.picture().save(picture)
    with LocalHub(root) as hub:
        printed = hub.run(f"""
            import json
            import numpy as np
            import transformers

            trusting = {{"trust_remote_code": True}}
            texts = {tiny.SENTENCES!r}
            pipe = transformers.pipeline(model="acme/text-classification", **trusting)
            print(json.dumps(pipe(texts)))
            by_task = transformers.pipeline("text-classification", model="acme/text-classification", **trusting)
            print(json.dumps(by_task(texts)))
            print(json.dumps(transformers.pipeline(model="acme/vit", **trusting)({str(picture)!r})))
            print(json.dumps(transformers.pipeline(model="acme/feature-extraction", **trusting)(texts[0])))
            choice = transformers.AutoModelForMultipleChoice.from_pretrained("acme/multiple-choice", **trusting)
            print(type(choice).__name__, type(choice).__module__)
            pipe.save_pretrained("again")
            assert json.load(open("again/config.json"))["auto_map"] == {{
                "AutoModelForSequenceClassification": "fixed_shape.ORTModelForSequenceClassification"
            }}
            assert transformers.pipeline(model="again", **trusting)(texts) == pipe(texts)
        """)
    by_repo, by_task, image, features, choice = printed.splitlines()
    for task, answer, items in (
        ("text-classification", by_repo, tiny.SENTENCES),
        ("text-classification", by_task, tiny.SENTENCES),
        ("feature-extraction", features, tiny.SENTENCES[0]),
    ):
        pair = exported(task)
        theirs = transformers.pipeline(task, model=pair.original, tokenizer=pair.tokenizer)(items)
        assert_same(json.loads(answer), theirs)
    theirs = transformers.pipeline(
        "image-classification", model=zoo.original("vit"), image_processor=zoo.processor("vit")
    )(str(picture))
    assert_same(json.loads(image), theirs)
    assert choice == "ORTModelForMultipleChoice optimum_fixedshape.models.classes"


def assert_same(ours, theirs):
    if isinstance(theirs, float):
        assert ours == pytest.approx(theirs, abs=1e-4)
    elif isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            assert_same(ours[name], value)
    elif isinstance(theirs, list):
        assert len(ours) == len(theirs)
        for each in zip(ours, theirs, strict=True):
            assert_same(*each)
    else:
        assert ours == theirs


def test_without_the_package_the_error_names_the_pip_command(root, tmp_path):
    code = f"""
import importlib.util, sys
assert importlib.util.find_spec("optimum_fixedshape") is None, sys.path
import transformers
for task in (None, "text-classification"):
    try:
        transformers.pipeline(task, model={str(root / "acme" / "text-classification")!r}, trust_remote_code=True)
    except ImportError as error:
        print(error)
"""
    # Without `site`, no .pth file puts this checkout on the path; everything else that is installed stays.
    environment = {
        **os.environ,
        "PYTHONPATH": sysconfig.get_paths()["purelib"],
        "HF_HOME": str(tmp_path),
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.rpartition(": ")[2] for line in done.stdout.splitlines()] == ["pip install optimum-fixedshape"] * 2


def test_nobody_is_asked_for_trust_and_no_code_runs(marked, tmp_path):
    """What loaded the folder before goes on doing so: here, in transformers, and in stock optimum where it is."""
    folder, marker = marked
    code = f"""
        import importlib.util, json, sys
        import numpy as np
        import transformers
        from optimum_fixedshape import AutoTokenizer, ORTModelForSequenceClassification, pipeline

        place = {str(folder)!r}
        assert transformers.AutoConfig.from_pretrained(place).model_type == "bert"
        assert transformers.AutoTokenizer.from_pretrained(place)("A boat.")["input_ids"]
        model = ORTModelForSequenceClassification.from_pretrained(place)
        assert AutoTokenizer.from_model(place)("A boat.")["input_ids"]
        said = [pipeline(model=place)("No."), pipeline("text-classification", model=place)("No.")]
        said.append(transformers.pipeline("text-classification", model=model, tokenizer=place)("No."))
        tokenizer = transformers.AutoTokenizer.from_pretrained(place)
        said.append(transformers.pipeline("text-classification", model=model, tokenizer=tokenizer)("No."))
        if importlib.util.find_spec("optimum.onnxruntime"):
            from optimum import onnxruntime

            stock = onnxruntime.ORTModelForSequenceClassification.from_pretrained(place)
            row = tokenizer(["No."] * 2, padding="max_length", max_length=16, return_tensors="np")
            assert stock(**row).logits.shape == (2, 3)
            options = {{"padding": "max_length", "max_length": 16, "batch_size": 2}}
            for each in (place, stock):
                pipe = onnxruntime.pipeline("text-classification", model=each, tokenizer=tokenizer)
                said.append(pipe(["No.", "No."], **options)[:1])
        assert len({{answer[0]["label"] for answer in said}}) == 1, said
        for load in (
            lambda: transformers.AutoModelForSequenceClassification.from_pretrained(place),
            lambda: transformers.pipeline("text-classification", model=place),
            lambda: transformers.pipeline(model=place),
        ):
            try:
                load()
            except (OSError, ValueError) as error:
                print(type(error).__name__)
    """
    with LocalHub(tmp_path / "nothing") as hub:
        assert len(hub.run(code, HF_HUB_OFFLINE="1").split()) >= 3
        assert not marker.exists()
        trusting = f"import transformers; transformers.pipeline(model={str(folder)!r}, trust_remote_code=True)"
        hub.run(trusting, HF_HUB_OFFLINE="1")
    assert marker.exists()


def test_code_that_a_repo_names_for_everything_does_not_run(marked):
    """Not for its configuration, its model, its pipeline or its processors, unless the caller trusts it."""
    folder, marker = marked
    for name, classes in (
        ("config.json", ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification", "AutoProcessor")),
        ("tokenizer_config.json", ("AutoTokenizer",)),
    ):
        facts = json.loads((folder / name).read_text())
        evil = "fixed_shape.Evil"
        facts["auto_map"] = dict.fromkeys(classes, [evil, evil] if "AutoTokenizer" in classes else evil)
        (folder / name).write_text(json.dumps(facts))
    model = ORTModelForSequenceClassification.from_pretrained(folder)
    assert model(np.ones((1, 4), int)).logits.shape == (1, 3)
    assert AutoTokenizer.from_model(folder, trust_remote_code=False)("A boat.")["input_ids"]
    assert AutoTokenizer.from_pretrained(folder, trust_remote_code=False)("A boat.")["input_ids"]
    assert pipeline(model=str(folder), trust_remote_code=False)("No.")[0]["label"]
    facts = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**facts, "model_type": "evil"}))
    with pytest.raises(ValueError, match="trust_remote_code"):
        ORTModelForSequenceClassification.from_pretrained(folder)
    assert not marker.exists()


def test_what_the_original_said_of_its_own_code_stays_where_it_can(tmp_path):
    facts = {
        "auto_map": {"AutoConfig": "theirs.Config", "AutoModelForSequenceClassification": "theirs.Model"},
        "custom_pipelines": {"theirs": {"impl": "theirs.Pipeline", "pt": ["AutoModel"]}},
        "model_type": "theirs",
    }
    (tmp_path / "config.json").write_text(json.dumps(facts))
    write_remote_code(tmp_path, find_task("text-classification"))
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["auto_map"] == {
        "AutoConfig": "theirs.Config",
        "AutoModelForSequenceClassification": "fixed_shape.ORTModelForSequenceClassification",
    }
    assert list(saved["custom_pipelines"]) == ["remote-fixed-shape-text-classification"]
    assert (
        saved["custom_pipelines"]["remote-fixed-shape-text-classification"]["impl"]
        == "fixed_shape.TextClassificationPipeline"
    )
