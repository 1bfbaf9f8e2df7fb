"""`pipeline()`: what it takes, what it finds by itself, what it refuses, and what it gives back."""

from __future__ import annotations

import copy
import functools
import json
import pickle
import re
import shutil

import pytest
import torch
import transformers

import optimum_fixedshape as fixedshape
from optimum_fixedshape import pipeline
from optimum_fixedshape.errors import GraphNotFoundError, ProcessorError, UnsupportedTaskError
from optimum_fixedshape.models.remote_code import CODE_NAME
from optimum_fixedshape.pipelines import classes
from optimum_fixedshape.pipelines.base import FixedShapePipeline
from optimum_fixedshape.tasks import REMOTE_PREFIX, find_task

from . import tiny
from .conftest import LADDER
from .equality import assert_same
from .pipes import SHAPES, TASKS, make_reference

TEXT = "Rain fell on the market."
INPUTS = {
    "fill-mask": {"inputs": "The [MASK] is late."},
    "question-answering": {"question": "What fell?", "context": " ".join(tiny.SENTENCES)},
    "zero-shot-classification": {"sequences": TEXT, "candidate_labels": ["weather", "trade"]},
}


@pytest.fixture(scope="module")
def pair(exported):
    return exported("text-classification")


@pytest.fixture(scope="module")
def expected(pair):
    return make_reference("text-classification", pair.original, pair.tokenizer)(TEXT)


@pytest.fixture(scope="module")
def models(exported):
    def load(task):
        folder = exported(task, shapes=SHAPES.get(task, LADDER)).folder
        return getattr(fixedshape, find_task(task).model).from_pretrained(folder)

    return functools.cache(load)


@pytest.mark.parametrize("task", TASKS)
def test_the_task_and_the_processor_are_found(exported, models, task):
    pair, row = exported(task, shapes=SHAPES.get(task, LADDER)), find_task(task)
    for source in (pair.folder, str(pair.folder), pair.folder / "model.onnx", models(task)):
        pipe = pipeline(model=source)
        assert type(pipe) is getattr(classes, row.pipeline)
        assert isinstance(pipe, getattr(transformers, row.pipeline, transformers.Pipeline))
        assert pipe.task == task
        assert isinstance(pipe.tokenizer, type(pair.tokenizer))
        assert type(pipe).__name__ in repr(pipe)


@pytest.mark.parametrize(
    ("alias", "task"), [("sentiment-analysis", "text-classification"), ("ner", "token-classification")]
)
def test_aliases(models, alias, task):
    assert pipeline(alias, model=models(task)).task == task


def test_the_task_of_a_graph_without_our_config_is_what_its_architecture_says(pair, tmp_path):
    folder = shutil.copytree(pair.folder, tmp_path / "stock")
    (folder / "fixedshape_config.json").unlink()
    pipe = pipeline(model=folder)
    assert isinstance(pipe, transformers.TextClassificationPipeline)
    (folder / "config.json").unlink()
    assert isinstance(pipeline(model=folder), transformers.TextClassificationPipeline)  # what the graph looks like


def test_a_folder_without_a_graph_is_an_error(tmp_path):
    with pytest.raises(GraphNotFoundError, match="no graph"):
        pipeline(model=tmp_path)


def given(pair, model):
    plain = pair.tokenizer
    fixed = fixedshape.AutoTokenizer.from_model(model)
    return {
        "nothing": {},
        "plain": {"tokenizer": plain},
        "fixed": {"tokenizer": fixed},
        "folder": {"tokenizer": pair.folder},
        "data_processor": {"data_processor": fixed},
        "plain data_processor": {"data_processor": plain},
        "data_processor's folder": {"data_processor": str(pair.folder)},
    }


@pytest.mark.parametrize("source", ["folder", "string", "file", "file as a string", "object"])
@pytest.mark.parametrize("processor", ["nothing", "plain", "fixed", "folder", "data_processor", "plain data_processor"])
def test_models_and_processors_come_in_every_form(pair, expected, models, source, processor):
    model = models("text-classification")
    sources = {
        "folder": pair.folder,
        "string": str(pair.folder),
        "file": pair.folder / "model.onnx",
        "file as a string": str(pair.folder / "model.onnx"),
        "object": model,
    }
    pipe = pipeline("text-classification", model=sources[source], **given(pair, model)[processor])
    assert_same(pipe(TEXT), expected)


def test_arguments_that_only_weights_have_do_no_harm(models, expected):
    model = models("text-classification")
    pipe = pipeline(
        "text-classification", model, device=-1, dtype="auto", torch_dtype=None, framework="pt", device_map=None
    )
    assert_same(pipe(TEXT), expected)
    assert pipe.device == torch.device("cpu")


def test_arguments_of_weights_that_name_something_are_warned_of(pair):
    with pytest.warns(UserWarning, match="device_map='cuda' has no meaning for a graph"):
        pipeline("text-classification", model=pair.folder, device_map="cuda")


def test_positional_arguments_stand_where_they_stand_in_transformers(pair, expected):
    pipe = pipeline("text-classification", pair.folder, pair.original.config, pair.tokenizer)
    assert_same(pipe(TEXT), expected)


def test_model_kwargs_reach_the_model(exported):
    folder = exported("text-classification").folder
    pipe = pipeline("text-classification", model=folder, model_kwargs={"file_name": "model_2x8.onnx"})
    assert pipe.model.contract.sequence_length == 8


class Shouting(transformers.TextClassificationPipeline):
    def postprocess(self, *args, **kwargs):
        answer = super().postprocess(*args, **kwargs)
        return {**answer, "label": answer["label"].upper()}


class Shortening(transformers.TokenClassificationPipeline):
    def postprocess(self, *args, **kwargs):
        return super().postprocess(*args, **kwargs)[:20]


class Halving(classes.TextClassificationPipeline):
    def postprocess(self, *args, **kwargs):
        answer = super().postprocess(*args, **kwargs)
        return {**answer, "score": answer["score"] / 2}


@pytest.mark.parametrize("wanted", [transformers.TextClassificationPipeline, transformers.Pipeline, Shouting, Halving])
def test_pipeline_class(models, expected, wanted):
    pipe = pipeline("text-classification", model=models("text-classification"), pipeline_class=wanted)
    assert isinstance(pipe, wanted)
    assert isinstance(pipe, FixedShapePipeline)
    answer = copy.deepcopy(expected)
    if wanted is Shouting:
        answer[0]["label"] = answer[0]["label"].upper()
    if wanted is Halving:
        answer[0]["score"] /= 2
    assert_same(pipe(TEXT), answer)


def test_pipeline_class_of_a_task_that_needs_more(models):
    text = " ".join(tiny.SENTENCES)
    pipe = pipeline("token-classification", model=models("token-classification"), pipeline_class=Shortening)
    plain = pipeline("token-classification", model=models("token-classification"))
    assert len(plain(text, ignore_labels=[])) > 20
    assert_same(pipe(text, ignore_labels=[]), plain(text, ignore_labels=[])[:20])


def test_a_gpu_that_onnxruntime_cannot_use_is_left_alone(monkeypatch, models, expected):
    monkeypatch.setattr("transformers.pipelines.base.is_torch_cuda_available", lambda: True)
    pipe = pipeline("text-classification", model=models("text-classification"))
    assert pipe.device == torch.device("cpu")
    assert_same(pipe(TEXT), expected)


def test_models_for_custom_tasks_serve_any_task(pair, expected, caplog):
    model = fixedshape.ORTModelForCustomTasks.from_pretrained(pair.folder)
    assert_same(pipeline("text-classification", model=model)(TEXT), expected)
    assert [record.message for record in caplog.records if record.levelname == "ERROR"] == []


ERRORS = {
    "unknown task": (
        UnsupportedTaskError,
        "The task 'text-to-speech' is not one of: asr, audio-classification,",
        lambda model: pipeline("text-to-speech", model=model),
    ),
    "task without a pipeline": (
        UnsupportedTaskError,
        "transformers has no pipeline for multiple-choice; call the model itself",
        lambda model: pipeline("multiple-choice", model=model),
    ),
    "model of another task": (
        UnsupportedTaskError,
        "ForSequenceClassification is a model for text-classification; for fill-mask load it with ORTModelForMaskedLM",
        lambda model: pipeline("fill-mask", model=model),
    ),
    "PyTorch model": (
        UnsupportedTaskError,
        "BertForSequenceClassification is a PyTorch model, which transformers.pipeline runs. To run it as a graph,",
        lambda model: pipeline(model=tiny.original("bert", "text-classification")),
    ),
    "no model": (
        UnsupportedTaskError,
        "model= must be a model of this package, an .onnx file, a folder or a Hub repo id, got nothing",
        lambda model: pipeline("fill-mask"),
    ),
    "no such thing": (UnsupportedTaskError, "got dict", lambda model: pipeline("fill-mask", model={})),
    "processor for sounds": (
        ProcessorError,
        "The task text-classification needs a tokenizer, got a Wav2Vec2FeatureExtractor. AutoTokenizer.",
        lambda model: pipeline(model=model, data_processor=transformers.Wav2Vec2FeatureExtractor()),
    ),
    "tokenizer that is none": (ProcessorError, "got a dict", lambda model: pipeline(model=model, tokenizer={"a": 1})),
    "nowhere": (
        ProcessorError,
        "No tokenizer could be loaded from nowhere",
        lambda model: pipeline(model=model, data_processor="nowhere"),
    ),
    "unknown policy": (
        ValueError,
        "overflow must be 'error', 'truncate' or 'window', got 'cut'",
        lambda model: pipeline(model=model, overflow="cut"),
    ),
    "class without a tokenizer": (
        ProcessorError,
        "The task text-classification needs a tokenizer: pass tokenizer= or data_processor=",
        lambda model: classes.TextClassificationPipeline(model=model),
    ),
    "class with a PyTorch model": (
        UnsupportedTaskError,
        "runs models of this package, got BertForMaskedLM. Load it with ORTModelForMaskedLM.from_pretrained",
        lambda model: classes.FillMaskPipeline(model=tiny.original("bert", "fill-mask")),
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_what_cannot_work_is_refused_with_the_way_out(models, name):
    error, message, build = ERRORS[name]
    with pytest.raises(error, match=re.escape(message)):
        build(models("text-classification"))


@pytest.mark.parametrize("task", TASKS)
def test_saved_pipelines_answer_as_before(models, task, tmp_path):
    pipe = pipeline(model=models(task))
    before = ask(pipe, task)
    pipe.save_pretrained(tmp_path / "saved")
    names = [path.name for path in (tmp_path / "saved").rglob("*")]
    assert "tokenizer_config.json" in names
    assert [name for name in names if name.endswith(".py")] == [CODE_NAME]  # and no copy of the pipeline's class
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert list(config["custom_pipelines"]) == [REMOTE_PREFIX + task]
    assert_same(ask(pipeline(task, model=tmp_path / "saved"), task), before, tolerance=0.0)


def ask(pipe, task):
    return pipe(**INPUTS[task]) if task in INPUTS else pipe(TEXT)


@pytest.mark.parametrize("task", TASKS)
def test_pipelines_pickle(models, task):
    pipe = pipeline(model=models(task))
    assert_same(ask(pickle.loads(pickle.dumps(pipe)), task), ask(pipe, task), tolerance=0.0)
