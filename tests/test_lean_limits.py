"""Where the lean path ends: whatever it does not take goes the plain way, and no caller can tell."""

from __future__ import annotations

import functools
import shutil

import numpy as np
import onnx
import pytest
import torch
from transformers.pipelines.base import PipelineException

import optimum_fixedshape as fixedshape
from optimum_fixedshape import pipeline
from optimum_fixedshape.errors import InputTooLongError
from optimum_fixedshape.pipelines import classes
from optimum_fixedshape.pipelines.base import FixedShapePipeline
from optimum_fixedshape.pipelines.lean.classification import labelled
from optimum_fixedshape.pipelines.lean.masks import _best
from optimum_fixedshape.pipelines.lean.path import PLAIN
from optimum_fixedshape.pipelines.lean.sounds import _best as best_of_sound

from .conftest import path_of
from .pipes import make_pipes

TEXTS = ["Rain [MASK] on the market.", "A quiet [MASK] tram"]
LABELS = {"candidate_labels": ["weather", "trade"]}


@pytest.fixture(scope="module")
def fresh(exported):
    """Returns ``fresh(task, **arguments) -> pipeline`` that a test may change."""
    ours = functools.cache(functools.partial(make_pipes, exported))
    return lambda task, **arguments: pipeline(task, model=ours(task).pair.folder, **arguments)


def error_of(pipe, *args, **kwargs):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which one is the question
        pipe(*args, **kwargs)
    return type(caught.value), str(caught.value)


@pytest.mark.parametrize(
    ("task", "call"),
    [
        ("text-classification", {"function_to_apply": 5}),
        ("text-classification", {"function_to_apply": 0}),
        ("text-classification", {"truncation": "nope"}),
        ("text-classification", {"truncation": 1}),
        ("text-classification", {"padding": 1}),
        ("text-classification", {"truncation": True, "max_length": 4.0}),
        ("token-classification", {"ignore_labels": "O"}),
        ("fill-mask", {"top_k": -1}),
        ("fill-mask", {"top_k": True}),
        ("fill-mask", {"top_k": 2.0}),
        ("fill-mask", {"top_k": 10**6}),
        ("zero-shot-classification", {"candidate_labels": 3}),
        ("zero-shot-classification", {"candidate_labels": {"a", "b"}}),
    ],
)
def test_what_transformers_refuses_it_refuses_in_its_own_words(fresh, monkeypatch, task, call):
    monkeypatch.setattr(FixedShapePipeline, "path", path_of)
    pipe = fresh(task)
    lean = error_of(pipe, TEXTS, **call)
    pipe.lean = False
    assert lean == error_of(pipe, TEXTS, **call)


@pytest.mark.parametrize(
    ("task", "call"),
    [
        ("token-classification", {"ignore_labels": [None]}),
        ("zero-shot-classification", {"candidate_labels": np.array(["weather", "trade"])}),
        ("fill-mask", {"top_k": np.int64(2)}),
    ],
)
def test_what_transformers_takes_is_taken(fresh, monkeypatch, task, call):
    monkeypatch.setattr(FixedShapePipeline, "path", path_of)
    pipe = fresh(task)
    lean = pipe(TEXTS, **call)
    pipe.lean = False
    assert str(lean) == str(pipe(TEXTS, **call))


def test_texts_before_one_that_cannot_be_read_are_answered(fresh):
    answers = iter(fresh("text-classification")(text for text in [TEXTS[0], "\ud800"]))
    assert next(answers)["label"]
    with pytest.raises(TypeError):
        next(answers)


def test_a_tokenizer_without_a_mask_is_named(fresh):
    pipe = fresh("fill-mask")
    pipe(TEXTS[0])
    pipe.tokenizer.mask_token = None
    with pytest.raises(PipelineException, match="does not define a `mask_token`"):
        pipe(TEXTS[0])


@pytest.mark.parametrize(
    ("task", "name"),
    [
        ("text-classification", "run_single"),
        ("text-classification", "get_iterator"),
        ("text-classification", "_sanitize_parameters"),
        ("fill-mask", "ensure_exactly_one_mask_token"),
        ("zero-shot-classification", "_parse_and_tokenize"),
    ],
)
def test_every_method_that_the_path_passes_by_is_heeded(fresh, task, name):
    stock = type(fresh(task))
    kind = type("Changed", (stock,), {name: lambda self, *args, **kwargs: getattr(stock, name)(self, *args, **kwargs)})
    assert fresh(task, pipeline_class=kind).path is None
    pipe = fresh(task)
    assert pipe.path is not None
    setattr(pipe, name, getattr(pipe, name))
    assert pipe.path is None


def test_a_reader_of_labels_that_is_not_transformers_own_is_heeded(fresh):
    class Loud(type(fresh("zero-shot-classification")._args_parser)):
        def __call__(self, sequences, labels, template):
            return super().__call__(sequences, labels, template + " Is it?")

    pipe = fresh("zero-shot-classification", args_parser=Loud())
    assert pipe.path is None
    assert pipe(TEXTS[0], **LABELS) != fresh("zero-shot-classification")(TEXTS[0], **LABELS)


def test_the_model_runs_where_it_is_now(fresh):
    pipe = fresh("text-classification")
    pipe(TEXTS[0])
    pipe.model.runtime = pipe.model.runtime.on("CPUExecutionProvider", {})
    pipe(TEXTS[0])
    assert sum(each.runs for each in pipe.model.stats) == 1


def test_changes_of_what_the_tokenizer_makes_are_seen(fresh):
    pipe = fresh("zero-shot-classification")
    before = pipe(TEXTS[0], **LABELS)
    pipe.tokenizer.model_input_names = ["input_ids", "attention_mask"]
    assert pipe(TEXTS[0], **LABELS)["scores"] != before["scores"]  # both ways, by the fixture


def test_a_tokenizer_of_another_graph_goes_the_plain_way(fresh, exported):
    pipe = fresh("feature-extraction")
    pipe.tokenizer = fixedshape.AutoTokenizer.from_model(pipe.model, tokenizer=pipe.tokenizer)
    assert pipe.path is None  # it pads to a rung
    assert len(pipe("Rain")[0]) == 8
    pipe = fresh("text-classification")
    small = exported("text-classification", shapes={"batch_size": 1, "sequence_length": 8})
    pipe.model = pipeline("text-classification", model=small.folder).model
    with pytest.raises(InputTooLongError, match="Item 1 has sequence_length 12") as caught:
        pipe(["Rain", "the boats of the boats of the boats of the"])
    assert caught.value.index == 1


@pytest.mark.parametrize(("name", "shape"), [("pooler_output", (1, 3, 32)), ("other", (1, 32))])
def test_features_are_what_transformers_reads_first(dynamic, tmp_path, name, shape):
    folder = shutil.copytree(dynamic.folder, tmp_path / "model")
    model = onnx.load(folder / "model.onnx")
    hidden, pooled, *_ = model.graph.output
    first = onnx.ValueInfoProto()
    first.CopyFrom(pooled)
    first.name = name
    if name != pooled.name:
        model.graph.node.append(onnx.helper.make_node("Identity", [pooled.name], [name]))
    del model.graph.output[:]
    model.graph.output.extend([first, hidden])
    onnx.save(model, folder / "model.onnx")
    pipe = pipeline("feature-extraction", model=folder)
    assert np.shape(pipe("Rain")) == shape
    assert (pipe.path is None) == (name == "other")


def test_old_configurations_that_ask_for_all_scores_go_the_plain_way(fresh):
    pipe = fresh("text-classification")
    pipe.model.config.return_all_scores = True
    assert pipe.path is None


def test_torch_says_which_of_two_that_tie_comes_first():
    scores = torch.rand((2, 50), generator=torch.Generator().manual_seed(0)).numpy()
    for most in (0, 1, 7, 50):
        np.testing.assert_array_equal(_best(scores, most), torch.from_numpy(scores).topk(most).indices)
    assert _best(scores, 51) is None
    scores[1, 3] = scores[1].max()
    assert _best(scores, 1) is None
    scores[1] = np.nan
    assert _best(scores, 1) is None


def test_torch_says_which_of_two_labels_of_a_sound_that_tie_comes_first():
    logits = np.array([0.5, 2, 2, 1], np.float32)
    scores = torch.from_numpy(logits).softmax(-1).topk(3)
    assert best_of_sound(logits, "softmax", 3) == (scores.values.tolist(), scores.indices.tolist())


def test_hypotheses_that_transformers_would_cut_go_the_plain_way(fresh):
    pipe = fresh("zero-shot-classification", overflow="truncate")
    pipe.tokenizer.model_max_length = 12
    short, long = pipe(["Go", TEXTS[0] * 3], **LABELS)
    assert short == pipe("Go", **LABELS)
    assert sum(long["scores"]) == pytest.approx(1)


def test_scores_that_have_no_order_or_no_label_are_left_to_transformers():
    scores = np.array([[0.1, 0.7, 0.2], [np.nan, 0.7, 0.2]], np.float32)
    labels = {0: "a", 1: "b", 2: "c"}
    first, second = labelled(scores, labels, 2, False)
    assert [each["label"] for each in first] == ["b", "c"]
    assert second is PLAIN
    assert list(labelled(scores, {0: "a", 1: "b"}, 2, False)) == [PLAIN, PLAIN]


def test_a_class_of_ones_own_that_changes_nothing_is_as_fast(fresh):
    class Named(classes.FillMaskPipeline):
        """Has a name."""

    assert fresh("fill-mask", pipeline_class=Named).path is not None
