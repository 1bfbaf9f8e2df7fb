"""The lean path: taken wherever it can be, without torch, and left wherever transformers knows better.

That its answers are transformers' is asserted by `conftest.both_ways` in every test that calls a pipeline.
"""

from __future__ import annotations

import functools
import pickle

import pytest
import torch
import transformers

import optimum_fixedshape as fixedshape
from optimum_fixedshape import pipeline
from optimum_fixedshape.pipelines import classes
from optimum_fixedshape.pipelines.base import FixedShapePipeline
from optimum_fixedshape.pipelines.lean.path import PLAIN

from . import tiny
from .conftest import path_of
from .equality import assert_same
from .pipes import make_pipes

LABELS = {"candidate_labels": ["weather", "trade"]}
CALLS = {
    "text-classification": [{}, {"top_k": None}, {"truncation": True}, {"function_to_apply": "sigmoid"}],
    "token-classification": [{}, {"aggregation_strategy": "first"}],
    "fill-mask": [{}, {"targets": ["rain", "boat"]}, {"tokenizer_kwargs": {"truncation": True}}],
    "feature-extraction": [{}, {"truncation": True}],
    "zero-shot-classification": [LABELS, LABELS | {"multi_label": True}],
}
CASES = [(task, call) for task, calls in CALLS.items() for call in calls]
TEXTS = ["Rain [MASK] on the market.", "A quiet [MASK] tram", "The [MASK] measured the bridge, twice.", "[MASK]"]
LONG = "Anne [MASK] the bells of Zürich, while nobody in the quiet library expected a tram to be late"


@pytest.fixture(scope="module")
def pipes(exported):
    return functools.cache(functools.partial(make_pipes, exported))


class NoTorch(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        raise AssertionError(f"torch is on the way: {func}")


def lean_answers(pipe, items, **arguments):
    """What the lean path makes of a call, with `PLAIN` for what it leaves."""
    preprocess, _, postprocess = pipe._sanitize_parameters(**arguments)
    preprocess, postprocess = pipe._preprocess_params | preprocess, pipe._postprocess_params | postprocess
    return pipe.path.answers(items, 1, preprocess, postprocess)


@pytest.mark.parametrize(("task", "call"), CASES, ids=[f"{task}-{call}" for task, call in CASES])
def test_every_item_goes_the_lean_path_without_torch(pipes, monkeypatch, task, call):
    monkeypatch.setattr(FixedShapePipeline, "path", path_of)
    pipe = pipes(task).ours
    assert not any(answer is PLAIN for answer in lean_answers(pipe, TEXTS, **call))
    with NoTorch():
        assert len(pipe(TEXTS, **call)) == len(TEXTS)
        assert len(list(pipe((text for text in TEXTS), **call))) == len(TEXTS)
        assert pipe(TEXTS[0], **call)


@pytest.mark.parametrize("task", CALLS)
def test_switched_off_all_items_go_the_plain_way(pipes, monkeypatch, task):
    monkeypatch.setattr(FixedShapePipeline, "path", path_of)
    both, call = pipes(task), CALLS[task][0]
    pipe = pipeline(task, model=both.ours.model, tokenizer=both.pair.tokenizer)
    lean = pipe(TEXTS, **call)
    pipe.lean = False
    assert pipe.path is None
    assert_same(lean, pipe(TEXTS, **call), tolerance=1e-5)


@pytest.mark.parametrize(
    ("task", "call"),
    [
        ("text-classification", {"padding": "max_length", "max_length": 14}),
        ("text-classification", {"max_length": 5}),
        ("text-classification", {"add_special_tokens": False}),
        ("feature-extraction", {"tokenize_kwargs": {"padding": "max_length", "max_length": 14}}),
        ("token-classification", {"stride": 3, "aggregation_strategy": "simple"}),
    ],
)
def test_arguments_that_rust_alone_does_not_know_go_the_plain_way(pipes, task, call):
    assert all(answer is PLAIN for answer in lean_answers(pipes(task).ours, TEXTS, **call))


def test_one_long_text_does_not_slow_the_others(pipes):
    pipe = pipes("text-classification").ours
    window = pipeline("text-classification", model=pipe.model, tokenizer=pipe.tokenizer, overflow="window")
    lean = lean_answers(window, [TEXTS[0], LONG, TEXTS[1]])
    assert [answer is PLAIN for answer in lean] == [False, True, False]
    assert len(window([TEXTS[0], LONG, TEXTS[1]])) == 3
    cut = pipeline("text-classification", model=pipe.model, tokenizer=pipe.tokenizer, overflow="truncate")
    assert PLAIN not in lean_answers(cut, [TEXTS[0], LONG])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("how", [{"truncation": True}, {"truncation": "longest_first", "max_length": 6}])
def test_rust_cuts_where_the_tokenizer_does(pipes, side, how):
    both = pipes("text-classification")
    tokenizer = tiny.tokenizer("wordpiece")
    tokenizer.truncation_side = side
    pipe = pipeline("text-classification", model=both.ours.model, tokenizer=tokenizer)
    pairs = [LONG, {"text": LONG, "text_pair": "on time"}]
    assert PLAIN not in lean_answers(pipe, pairs, **how)
    pipe(pairs, top_k=None, **how)


def test_a_class_that_changes_what_transformers_does_is_heeded(pipes):
    class Shouting(classes.TextClassificationPipeline):
        def postprocess(self, *args, **kwargs):
            return super().postprocess(*args, **kwargs) | {"loud": True}

    class Named(classes.TextClassificationPipeline):
        pass

    both = pipes("text-classification")
    parts = {"model": both.ours.model, "tokenizer": both.pair.tokenizer}
    shouting = pipeline("text-classification", pipeline_class=Shouting, **parts)
    assert shouting.path is None
    assert shouting(TEXTS[0])[0]["loud"]
    assert pipeline("text-classification", pipeline_class=Named, **parts).path is not None
    patched = pipeline("text-classification", **parts)
    assert patched.path is not None
    patched.postprocess = lambda *args, **kwargs: "mine"
    assert patched.path is None
    assert patched(TEXTS) == ["mine"] * len(TEXTS)


def test_a_tokenizer_without_rust_goes_the_plain_way(pipes, tmp_path):
    both = pipes("text-classification")
    both.pair.tokenizer.save_pretrained(tmp_path)
    words = sorted(both.pair.tokenizer.get_vocab(), key=both.pair.tokenizer.get_vocab().get)
    (tmp_path / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    legacy = getattr(transformers, "BertTokenizerLegacy", transformers.BertTokenizer)
    pipe = pipeline("text-classification", model=both.ours.model, tokenizer=legacy(str(tmp_path / "vocab.txt")))
    if not pipe.tokenizer.is_fast:
        assert pipe.path is None
    assert len(pipe(TEXTS)) == len(TEXTS)


def test_changes_of_model_and_tokenizer_are_seen(pipes):
    both = pipes("text-classification")
    pipe = pipeline("text-classification", model=both.ours.model, tokenizer=both.pair.tokenizer)
    before = pipe("zzyzx", top_k=None)
    pipe.tokenizer.add_tokens(["zzyzx"])
    assert len(pipe.tokenizer.rust().encode("zzyzx")) == 3
    pipe.tokenizer = fixedshape.AutoTokenizer.from_model(both.ours.model, tokenizer=both.pair.tokenizer)
    assert pipe("zzyzx", top_k=None) == before
    template = pipe.tokenizer.backend_tokenizer.post_processor
    held = pipe.tokenizer.backend_tokenizer
    pipe(TEXTS[0])
    held.post_processor = None
    assert len(pipe.tokenizer.rust().encode("rain")) == 1
    held.post_processor = template
    assert len(pipe.tokenizer.rust().encode("rain")) == 3


def test_copies_answer_the_same(pipes):
    pipe = pipes("token-classification").ours
    pipe(TEXTS)
    assert_same(pickle.loads(pickle.dumps(pipe))(TEXTS), pipe(TEXTS), tolerance=0.0)


@pytest.fixture(scope="module")
def two_batches(exported):
    return exported("text-classification", shapes={"batch_size": [1, 4], "sequence_length": [8, 16]})


@pytest.mark.parametrize(
    ("texts", "runs"),
    [
        (4, {(4, 8): 1}),
        (5, {(4, 8): 1, (1, 8): 1}),
        (9, {(4, 8): 2, (1, 8): 1}),
        (3, {(4, 8): 1}),
        (2, {(4, 8): 1}),
        (1, {(1, 8): 1}),
    ],
)
def test_batches_are_filled_and_the_rest_goes_where_it_costs_least(two_batches, texts, runs):
    pipe = pipeline("text-classification", model=two_batches.folder)
    pipe(["Rain fell"] * texts)
    stats = {(each.sizes["batch_size"], each.sizes["sequence_length"]): each.runs for each in pipe.model.stats}
    assert {shape: count for shape, count in stats.items() if count} == runs
    assert sum(each.rows for each in pipe.model.stats) == texts


def test_an_open_batch_takes_as_many_rows_as_the_call_says(dynamic):
    pipe = pipeline("feature-extraction", model=dynamic.folder)
    texts = ["Rain fell", "on the market"] * 3
    alone = pipe(texts)
    assert pipe.model.stats[0].runs == 6
    together = pipe(texts, batch_size=4)
    assert pipe.model.stats[0].runs == 6 + 2
    assert_same(together, alone, tolerance=1e-5)


@pytest.mark.parametrize("most", [1, 3])
def test_max_delay_items_bounds_what_is_taken_ahead(two_batches, most):
    pipe = pipeline("text-classification", model=two_batches.folder, max_delay_items=most)
    taken = []

    def stream():
        for text in TEXTS * 2:
            taken.append(text)
            yield text

    answers = iter(pipe(stream()))
    next(answers)
    assert len(taken) <= most + 1  # transformers looks at the first item before anybody asks for an answer
    assert len([*answers]) == len(TEXTS) * 2 - 1
