"""Our pipelines answer what transformers' answer on the original, for every argument, wherever it is given."""

from __future__ import annotations

import copy
import functools

import onnx
import pytest
import torch

import optimum_fixedshape as fixedshape
from optimum_fixedshape import ORTModelForQuestionAnswering, pipeline
from optimum_fixedshape.contract import SEQUENCE

from . import onnx_models, tiny
from .equality import assert_same
from .pipes import TASKS, Pipes, make_pipes, make_reference

TEXTS = ["Rain fell on the market.", "A quiet library", "Seven engineers measured the bridge, twice.", "Go"]
NAMES = ["Anne of St. Gallen rang", "The tram to Zürich, unbelievably late", "Her grandmother"]
LONG_NAMES = [
    "Anne of St. Gallen rang the bells while nobody in Zürich expected the tram to be on time for Lausanne",
    "Hi",
]
MASKED = ["The [MASK] is late.", "Rain [MASK] on the market."]
TWO_MASKS = ["The [MASK] is [MASK]."]
LABELS = {"candidate_labels": ["weather", "trade", "music of bells"]}
CONTEXT = " ".join(tiny.SENTENCES * 2)
ASKED = {"question": "Who measured the bridge?", "context": CONTEXT}
LISTS = {"question": ["Who counts boats?", "What is late?"], "context": [CONTEXT, "Nobody was late."]}
PADDED = {"padding": "max_length", "max_length": 14}

ARGUMENTS = {
    "text-classification": [
        *[{}, {"top_k": 1}, {"top_k": 2}, {"top_k": 9}, {"top_k": None}, {"batch_size": 3}],
        *[{"function_to_apply": name} for name in ("sigmoid", "softmax", "none")],
        *[{"function_to_apply": "sigmoid", "top_k": None}, {"truncation": True, "max_length": 5}, PADDED],
    ],
    "token-classification": [
        *[{"aggregation_strategy": name} for name in ("none", "simple", "first", "average", "max")],
        *[{}, {"ignore_labels": ["B-PER", "LOC"]}, {"ignore_labels": [], "aggregation_strategy": "simple"}],
        {"batch_size": 2},
    ],
    "fill-mask": [
        *[{}, {"top_k": 3}, {"targets": ["rain", "boat", "tram"]}, {"targets": "bridge"}, {"batch_size": 2}],
        *[{"targets": ["rain", "boat"], "top_k": 1}, {"targets": ["unbelievableness", "boat"]}],
        {"tokenizer_kwargs": {"truncation": True, "max_length": 6}},
    ],
    "feature-extraction": [
        {},
        {"return_tensors": True},
        {"truncation": True},
        {"tokenize_kwargs": {"truncation": True, "max_length": 5}},
        {"tokenize_kwargs": PADDED},
        {"return_tensors": True, "batch_size": 4},
    ],
    "zero-shot-classification": [
        LABELS,
        LABELS | {"multi_label": True},
        LABELS | {"hypothesis_template": "On {}."},
        {"candidate_labels": "weather, trade"},
        {"candidate_labels": ["weather"]},
        LABELS | {"batch_size": 3},
    ],
    "question-answering": [
        {},
        {"top_k": 3},
        {"doc_stride": 4},
        {"doc_stride": 4, "max_seq_len": 20, "max_answer_len": 3},
        {"max_answer_len": 2},
        {"handle_impossible_answer": True},
        {"align_to_words": False},
        {"batch_size": 2},
    ],
}
INPUTS = {
    "text-classification": [(TEXTS,), (TEXTS[0],), ([{"text": "Rain fell", "text_pair": "on it"}],)],
    "token-classification": [(NAMES,), (NAMES[1],)],
    "fill-mask": [(MASKED,), (MASKED[0],), (TWO_MASKS,)],
    "feature-extraction": [(TEXTS,), (TEXTS[0],)],
    "zero-shot-classification": [(TEXTS,), (TEXTS[0],)],
    "question-answering": [ASKED, LISTS],
}
CASES = [(task, arguments) for task in TASKS for arguments in ARGUMENTS[task]]


@pytest.fixture(scope="module")
def pipes(exported):
    return functools.cache(functools.partial(make_pipes, exported))


@pytest.mark.parametrize(("task", "arguments"), CASES, ids=[f"{task}-{arguments}" for task, arguments in CASES])
def test_every_argument_at_the_call_and_at_construction(pipes, task, arguments):
    plain = pipes(task)
    ours = pipeline(task, model=plain.ours.model, tokenizer=plain.pair.tokenizer, **copy.deepcopy(arguments))
    theirs = make_reference(task, plain.pair.original, plain.theirs.tokenizer, **arguments)
    for inputs in INPUTS[task]:
        positional, named = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
        plain.assert_same(*positional, **named, **arguments)
        Pipes(ours, theirs, plain.pair).assert_same(*positional, **named)


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max"])
@pytest.mark.parametrize("stride", [0, 3, 7])
def test_stride_cuts_long_texts_as_transformers_does(pipes, strategy, stride):
    pipes("token-classification").assert_same(LONG_NAMES, stride=stride, aggregation_strategy=strategy)


@pytest.mark.parametrize("arguments", [{}, {"delimiter": ""}, {"delimiter": "--"}, {"aggregation_strategy": "first"}])
def test_words_that_are_split_already(pipes, arguments):
    words = [name.split() for name in NAMES]
    pipes("token-classification").assert_same(words, is_split_into_words=True, **arguments)
    pipes("token-classification").assert_same(words[0], is_split_into_words=True, **arguments)


def test_offsets_of_the_caller(pipes):
    both = pipes("token-classification")
    offsets = both.pair.tokenizer(NAMES[0], return_offsets_mapping=True)["offset_mapping"]
    moved = [(max(start - 1, 0), end) for start, end in offsets]
    both.assert_same(NAMES[0], offset_mapping=moved, ignore_labels=[])
    both.assert_same([NAMES[0]], offset_mapping=[moved], aggregation_strategy="simple")


@pytest.mark.parametrize("problem", [None, "regression", "single_label_classification", "multi_label_classification"])
@pytest.mark.parametrize("labels", [1, 3])
def test_problem_types(exported, one_label, labels, problem):
    pair = one_label if labels == 1 else exported("text-classification")
    original = copy.deepcopy(pair.original)
    original.config.problem_type = problem
    ours = pipeline("text-classification", model=pair.folder, config=original.config)
    both = Pipes(ours, make_reference("text-classification", original, pair.tokenizer), pair)
    both.assert_same(TEXTS)
    both.assert_same(TEXTS, top_k=None)


@pytest.fixture(scope="module")
def one_label(tmp_path_factory):
    three = tiny.original("bert", "text-classification")
    config = copy.deepcopy(three.config)
    config.num_labels = 1
    torch.manual_seed(0)
    one, words = type(three)(config).eval(), tiny.tokenizer("wordpiece")
    folder = tmp_path_factory.mktemp("one_label")
    shapes = {"batch_size": 2, "sequence_length": 16}
    fixedshape.export_model(one, folder, task="text-classification", shapes=shapes, processor=words, progress=False)
    return tiny.Pair(one, words, folder, "text-classification")


def test_questions_to_a_graph_of_any_length(tmp_path):
    def values(kind, *names):
        return [onnx_models.value(name, kind, ["batch_size", "sequence_length"]) for name in names]

    nodes = [
        onnx.helper.make_node("Mul", ["input_ids", "attention_mask"], ["real"]),
        onnx.helper.make_node("Cast", ["real"], ["start_logits"], to=onnx.TensorProto.FLOAT),
        onnx.helper.make_node("Sin", ["start_logits"], ["end_logits"]),
    ]
    taken = values(onnx.TensorProto.INT64, "input_ids", "attention_mask")
    given = values(onnx.TensorProto.FLOAT, "start_logits", "end_logits")
    onnx.save(onnx_models.build(nodes, taken, given), tmp_path / "model.onnx")
    tiny.original("bert", "question-answering").config.save_pretrained(tmp_path)
    tiny.tokenizer("wordpiece").save_pretrained(tmp_path)
    asked = {"question": "Who counts boats?", "context": " ".join(tiny.SENTENCES), "max_seq_len": 40, "doc_stride": 12}
    of_any, of_one = (
        pipeline("question-answering", model=ORTModelForQuestionAnswering.from_pretrained(tmp_path, shapes=shapes))
        for shapes in (None, {"batch_size": 1, "sequence_length": 64})
    )
    assert of_any.model.ladder.limit(SEQUENCE) is None
    assert_same(of_any(**asked), of_one(**asked))
