"""transformers' and optimum's own `pipeline()` take our models and our tasks, and stay as they were."""

from __future__ import annotations

import copy
import functools
import importlib
import json
import re
import subprocess
import sys

import pytest
import transformers
from transformers.pipelines import PIPELINE_REGISTRY

import optimum_fixedshape as fixedshape
from optimum_fixedshape._compat import has_optimum_onnx
from optimum_fixedshape.pipelines import classes
from optimum_fixedshape.tasks import REGISTRY_PREFIX, find_task, tasks_with_pipeline

from . import unchanged
from .equality import assert_same
from .pipes import TASKS, Pipes, make_pipes, make_reference

TEXT = "Rain fell on the market."
ASKED = {task: {"inputs": TEXT} for task in TASKS} | {
    "fill-mask": {"inputs": "The [MASK] is late."},
    "question-answering": {"question": "What fell?", "context": "Rain fell on the market while the bells rang. " * 2},
    "zero-shot-classification": {"sequences": TEXT, "candidate_labels": ["weather", "trade"]},
}
KEYS = {REGISTRY_PREFIX + task.name: task for task, name in [*tasks_with_pipeline()][::-1] if hasattr(classes, name)}


@pytest.fixture(scope="module")
def pipes(exported):
    return functools.cache(functools.partial(make_pipes, exported))


def run(*arguments):
    """Runs Python in a process of its own."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def test_one_key_for_each_task():
    ours = {key for key in PIPELINE_REGISTRY.supported_tasks if key.startswith(REGISTRY_PREFIX)}
    assert ours == set(KEYS)
    for key, task in KEYS.items():
        entry = PIPELINE_REGISTRY.supported_tasks[key]
        assert entry["impl"] is getattr(classes, task.pipeline)
        assert entry["pt"] == (getattr(fixedshape, task.model),)
        assert entry["type"] == task.modality


def test_registering_again_changes_nothing():
    before = dict(PIPELINE_REGISTRY.supported_tasks)
    entries = copy.copy(list(before.values()))
    fixedshape.register_pipelines()
    after = PIPELINE_REGISTRY.supported_tasks
    assert list(after) == list(before)
    assert all(mine is other for mine, other in zip(after.values(), entries, strict=True))


def test_keys_of_others_are_left_alone(monkeypatch):
    foreign = {"impl": transformers.TextClassificationPipeline, "pt": ()}
    key = f"{REGISTRY_PREFIX}fill-mask"
    monkeypatch.setitem(PIPELINE_REGISTRY.supported_tasks, key, foreign)
    fixedshape.register_pipelines()
    assert PIPELINE_REGISTRY.supported_tasks[key] is foreign


@pytest.mark.parametrize("task", TASKS)
def test_transformers_builds_our_pipelines(pipes, task):
    both, key = pipes(task), REGISTRY_PREFIX + task
    folder = str(both.pair.folder)
    expected = both.ask_original(**ASKED[task])
    for arguments in (
        {"model": both.ours.model, "tokenizer": both.pair.tokenizer},
        {"model": both.ours.model, "tokenizer": both.ours.tokenizer},
        {"model": folder, "tokenizer": folder},
        {"model": folder},
    ):
        pipe = transformers.pipeline(key, **arguments)
        assert type(pipe) is getattr(classes, find_task(task).pipeline)
        assert_same(pipe(**ASKED[task]), expected)


@pytest.mark.parametrize("library", ["transformers", *(["optimum.onnxruntime"] if has_optimum_onnx() else [])])
@pytest.mark.parametrize("task", [task for task in TASKS if hasattr(transformers, find_task(task).pipeline)])
@pytest.mark.parametrize("tokenizer", ["plain", "fixed"])
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:transformers")
def test_their_own_pipelines_take_our_models(pipes, library, task, tokenizer):
    both = pipes(task)
    words = {"plain": both.theirs.tokenizer, "fixed": fixedshape.AutoTokenizer.from_model(both.ours.model)}[tokenizer]
    pipe = importlib.import_module(library).pipeline(task, model=both.ours.model, tokenizer=words)
    # A fixed tokenizer pads, and features have one row for each token that the model is given.
    padded = make_reference(task, both.pair.original, words)
    theirs = padded if task == "feature-extraction" else both.theirs
    Pipes(pipe, theirs, both.pair).assert_same(**ASKED[task])


def test_importing_the_package_imports_no_heavy_library():
    script = """
import sys, optimum_fixedshape
dir(optimum_fixedshape)
print([name for name in ("torch", "transformers", "onnxruntime", "optimum.onnxruntime") if name in sys.modules])
"""
    assert run("-c", script).stdout.strip() == "[]"


QUIET = """
import json, sys
from optimum_fixedshape import ORTModelForMaskedLM
from transformers.pipelines import PIPELINE_REGISTRY
assert sum(key.startswith("fixed-shape-") for key in PIPELINE_REGISTRY.supported_tasks) == int(sys.argv[3])
import transformers, optimum_fixedshape
for task, (name, folder, asked) in json.loads(sys.argv[1]).items():
    model = getattr(optimum_fixedshape, name).from_pretrained(folder)
    for loaded in (transformers.AutoTokenizer.from_pretrained, optimum_fixedshape.AutoTokenizer.from_model):
        words = loaded(folder)
        transformers.pipeline(task, model=model, tokenizer=words)(**asked)
        transformers.pipeline("fixed-shape-" + task, model=folder, tokenizer=words)(**asked)
        if sys.argv[2] == "True":
            from optimum.onnxruntime import pipeline
            pipeline(task, model=model, tokenizer=words)(**asked)
    optimum_fixedshape.pipeline(task, model=folder)(**asked)
"""


def test_nothing_is_logged_and_the_first_import_registers(pipes):
    tasks = {
        task: (find_task(task).model, str(pipes(task).pair.folder), ASKED[task])
        for task in TASKS
        if hasattr(transformers, find_task(task).pipeline)
    }
    logged = run("-c", QUIET, json.dumps(tasks), has_optimum_onnx(), len(KEYS)).stderr.splitlines()
    assert [line for line in logged if line != "Device set to use cpu"] == []


BARE = """
import sys
for package in ("PIL", "soundfile", "soxr", "av", "torchvision"):
    sys.modules[package] = None  # as if it were not installed
import optimum_fixedshape
for name in optimum_fixedshape.__all__:
    getattr(optimum_fixedshape, name)
assert len(optimum_fixedshape.pipeline("text-classification", model=sys.argv[1])(["Go", "Rain fell"])) == 2
"""


def test_texts_need_none_of_the_extras(pipes):
    run("-c", BARE, pipes("text-classification").pair.folder)


ALLOWED = (
    rf"SUPPORTED_TASKS\['{REGISTRY_PREFIX}[a-z0-9-]+'\]",
    r"_extra_content\[<class 'optimum_fixedshape\.models\.classes\.ORTModelFor\w+'>\]",
    r"CONFIG_MAPPING\._modules\['\w+'\]",  # transformers' own memory of what it has imported
)


def test_the_libraries_stay_as_they_were(pipes):
    found = json.loads(run(unchanged.__file__, pipes("text-classification").pair.folder).stdout)
    assert found["compared"] > 30_000
    assert found["changed"] == []
    assert [way for way in found["added"] if not any(re.search(f"{each}$", way) for each in ALLOWED)] == []


def test_changes_would_be_found(monkeypatch):
    before = unchanged.read_everything()
    monkeypatch.setattr(transformers.Pipeline, "forward", None)
    monkeypatch.setattr(transformers.Pipeline, "backward", None, raising=False)
    monkeypatch.setitem(PIPELINE_REGISTRY.supported_tasks["fill-mask"], "impl", None)
    found = unchanged.read_differences(before)
    assert [way.rpartition(".")[2] for way in found["added"]] == ["backward"]
    assert len(found["changed"]) == 2
