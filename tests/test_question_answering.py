"""Our question answering gives transformers 4.57's answers: beside its own class where there is one, else as recorded.

`.venv/4/bin/python -m tests.test_question_answering` records them again.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import ByT5Tokenizer

from optimum_fixedshape.errors import FixedShapeError, InputTooLongError, ProcessorError
from optimum_fixedshape.pipelines.question_answering import Example, QuestionAnsweringPipeline
from optimum_fixedshape.pipelines.spans import find_spans

from .questions import (
    CASES,
    ERRORS,
    KINDS,
    LONG,
    QUESTION,
    RAW_KINDS,
    SHORT,
    Reference,
    assert_same,
    load_model,
    load_pipeline,
    load_tokenizer,
    read_golden,
    stream,
)

needs_reference = pytest.mark.skipif(Reference is None, reason="transformers 5 has no question answering pipeline")


pytestmark = [
    pytest.mark.filterwarnings("ignore:Passing (a list of SQuAD examples|the `(X|data)` argument):FutureWarning"),
    pytest.mark.filterwarnings("ignore:.?topk.? .*deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrices this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_record_holds_every_case_and_says_where_it_comes_from():
    assert list(read_golden()["answers"]) == [case.name for case in CASES]
    assert read_golden()["head"]["transformers"].startswith("4.57.")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_answers_are_those_of_transformers_4(case):
    ours = case.call(load_pipeline(QuestionAnsweringPipeline, case.kind))
    assert_same(ours, read_golden()["answers"][case.name], zeros=False)
    if Reference is not None:
        assert_same(ours, case.call(load_pipeline(Reference, case.kind)))


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_those_of_transformers_4(name):
    error, call = ERRORS[name]
    for cls in filter(None, (QuestionAnsweringPipeline, Reference)):
        with pytest.raises(error):
            call(load_pipeline(cls, "bert"))


words = st.sampled_from(
    ["the", "lamp", "Lamp", "ships", "1874", "灯塔", "[CLS]", "[SEP]", "[PAD]", "<s>", "<pad>", "é", "."]
)


texts = st.one_of(
    st.lists(words, max_size=60).map(" ".join), st.text(st.characters(exclude_categories=["Cs"]), max_size=80)
)


def any_text(row: dict[str, str]) -> bool:
    return any(row.values())


@needs_reference
@settings(deadline=None, max_examples=120, database=None, derandomize=True)
@given(
    kind=st.sampled_from(KINDS + RAW_KINDS),
    rows=st.lists(
        st.fixed_dictionaries({"question": texts.map(lambda text: text[:40]), "context": texts}).filter(any_text),
        max_size=3,
    ),
    parameters=st.fixed_dictionaries(
        {"batch_size": st.integers(1, 3)},
        optional={
            "top_k": st.integers(1, 25),
            "doc_stride": st.integers(0, 24),
            "max_answer_len": st.integers(1, 20),
            "max_seq_len": st.integers(1, 64),
            "handle_impossible_answer": st.booleans(),
            "align_to_words": st.booleans(),
            "padding": st.sampled_from(["max_length", "longest", "do_not_pad", True, False]),
        },
    ),
)
def test_random_texts_get_the_answers_of_transformers(kind, rows, parameters):
    try:
        theirs = list(load_pipeline(Reference, kind)(stream(rows), **parameters))
    except BaseException as error:  # tokenizers' panics are no Exceptions
        if not re.search("stride|Sequence to truncate too short|out of bounds|list index out of range", str(error)):
            raise
        theirs = None
    if theirs is not None:
        assert_same(list(load_pipeline(QuestionAnsweringPipeline, kind)(stream(rows), **parameters)), theirs)
        return
    with contextlib.suppress(ValueError):  # here ours answers, or says what is wrong; tokenizers' panics would show
        list(load_pipeline(QuestionAnsweringPipeline, kind)(stream(rows), **parameters))


def test_objects_with_the_fields_of_squad_examples_are_read():
    ours = load_pipeline(QuestionAnsweringPipeline, "bert")
    example = SimpleNamespace(question_text=QUESTION, context_text=SHORT)
    assert_same(list(ours(stream([example]))), list(ours(stream([{"question": QUESTION, "context": SHORT}]))))


def test_a_tokenizer_that_makes_no_mask():
    ours = load_pipeline(QuestionAnsweringPipeline, "bert")
    bare = copy.copy(ours)
    bare.tokenizer = copy.deepcopy(ours.tokenizer)
    bare.tokenizer.model_input_names = ["input_ids", "token_type_ids"]
    assert_same(bare(question=QUESTION, context=SHORT, top_k=5), ours(question=QUESTION, context=SHORT, top_k=5))


@pytest.mark.parametrize("kind", ["bert-left", "roberta-left"])
def test_padding_on_the_left_that_batches_bring_is_no_answer(kind):
    """Where transformers 4 raises IndexError: more answers are asked for than the shorter text has spans."""
    rows = [{"question": "?", "context": "Go"}, {"question": QUESTION, "context": LONG}]
    short, long = load_pipeline(QuestionAnsweringPipeline, kind)(rows, batch_size=2, top_k=25)
    assert {each["answer"] for each in short} <= {"", "G", "o", "Go"}
    assert len(long) == 25


@needs_reference
def test_squad_examples_are_read():
    example = transformers.SquadExample(None, QUESTION, SHORT, None, None, None)
    ours, theirs = (load_pipeline(cls, "bert") for cls in (QuestionAnsweringPipeline, Reference))
    assert_same(ours([example, example]), theirs([example, example]))
    assert_same(list(ours(stream([example]))), list(theirs(stream([example]))))


@pytest.mark.parametrize("kind", KINDS)
def test_overlap_shrinks_to_the_room_that_a_question_leaves(kind):
    pipe = load_pipeline(QuestionAnsweringPipeline, kind)
    question = pipe.tokenizer(QUESTION, add_special_tokens=False)["input_ids"]
    special = pipe.tokenizer.num_special_tokens_to_add(pair=True)
    for room in (1, 2, 5):
        size = len(question) + special + room
        windows = list(pipe.preprocess({"question": QUESTION, "context": SHORT}, max_seq_len=size, doc_stride=size))
        same = list(pipe.preprocess({"question": QUESTION, "context": SHORT}, max_seq_len=size, doc_stride=room - 1))
        assert [w["input_ids"].tolist() for w in windows] == [w["input_ids"].tolist() for w in same]
        assert max(w["input_ids"].shape[1] for w in windows) == size
        assert_same(
            pipe(question=QUESTION, context=SHORT, max_seq_len=size, doc_stride=size),
            pipe(question=QUESTION, context=SHORT, max_seq_len=size, doc_stride=room - 1),
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("room", [0, -3])
def test_a_question_that_fills_the_window_is_named(kind, room):
    pipe = load_pipeline(QuestionAnsweringPipeline, kind)
    length = len(pipe.tokenizer(QUESTION, add_special_tokens=False)["input_ids"])
    special = pipe.tokenizer.num_special_tokens_to_add(pair=True)
    size = length + special + room
    message = (
        f"has {length} tokens, .* a window of {size} tokens, {special} of them special, .* at most {length + room - 1}"
    )
    with pytest.raises(ValueError, match=message) as caught:
        pipe(question=QUESTION, context=SHORT, max_seq_len=size)
    assert isinstance(caught.value, InputTooLongError)
    assert (caught.value.size, caught.value.limit) == (length, length + room - 1)
    # A failed call leaves the pipeline usable.
    assert_same(pipe(question=QUESTION, context=SHORT), read_golden()["answers"][f"{kind}|short|{{}}"])


@pytest.mark.parametrize("tokenizer", [ByT5Tokenizer(), None], ids=["slow", "none"])
def test_a_tokenizer_without_offsets_is_refused(tokenizer):
    with pytest.raises(ProcessorError, match=r"fast \(Rust-backed\) tokenizer") as caught:
        QuestionAnsweringPipeline(model=load_model("bert"), tokenizer=tokenizer, device=-1)
    assert isinstance(caught.value, FixedShapeError)
    assert caught.value.given == type(tokenizer).__name__


@pytest.mark.parametrize("kind", KINDS)
def test_windows_hold_what_the_model_takes(kind):
    pipe = load_pipeline(QuestionAnsweringPipeline, kind)
    windows = list(pipe.preprocess(Example(QUESTION, LONG), max_seq_len=64))
    assert [window["is_last"] for window in windows] == [False] * (len(windows) - 1) + [True]
    for window in windows:
        assert set(pipe.tokenizer.model_input_names) <= set(window)
        tensors = {name: value for name, value in window.items() if isinstance(value, torch.Tensor)}
        assert {(tensor.dtype, tensor.shape) for tensor in tensors.values()} == {
            (torch.int64, (1, len(window["encoding"].ids)))
        }
        assert set(tensors) == {*pipe.tokenizer.model_input_names, "p_mask"}
        output = pipe.forward(window)
        assert output["start"].shape == output["end"].shape == window["input_ids"].shape


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("return_dict", [True, False])
def test_outputs_of_every_form_are_read(dtype, return_dict):
    model = load_model("bert", return_dict=return_dict).to(dtype)
    results = [
        cls(model=model, tokenizer=load_tokenizer("bert"), device=-1)(question=QUESTION, context=LONG, top_k=5)
        for cls in filter(None, (QuestionAnsweringPipeline, Reference))
    ]
    assert len(results[0]) == 5
    assert_same(results[0], results[-1])


def test_constructor_takes_defaults_and_calls_override_them():
    pipe = QuestionAnsweringPipeline(
        model=load_model("bert"), tokenizer=load_tokenizer("bert"), task="question-answering", device=-1, top_k=3
    )
    assert len(pipe(question=QUESTION, context=SHORT)) == 3
    assert len(pipe(question=QUESTION, context=SHORT, top_k=2)) == 2
    assert isinstance(pipe(question=QUESTION, context=SHORT, top_k=1), dict)


def test_topk_is_deprecated():
    with pytest.warns(UserWarning, match="use `top_k`"):
        assert len(load_pipeline(QuestionAnsweringPipeline, "bert")(question=QUESTION, context=SHORT, topk=2)) == 2


@needs_reference
def test_interface_is_that_of_transformers():
    for name in ("default_input_names", "handle_impossible_answer"):
        assert getattr(QuestionAnsweringPipeline, name) == getattr(Reference, name)
    for name in ("preprocess", "postprocess"):
        ours, theirs = (inspect.signature(getattr(cls, name)) for cls in (QuestionAnsweringPipeline, Reference))
        assert {p.name: p.default for p in ours.parameters.values()} == {
            p.name: p.default for p in theirs.parameters.values()
        }


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(1, 12), st.integers(1, 20))
@settings(deadline=None, max_examples=100, database=None, derandomize=True)
def test_spans_are_the_best_of_all_that_are_allowed(seed, tokens, max_answer_len, count):
    random = np.random.default_rng(seed)
    start, end = random.normal(size=(2, tokens)).astype(np.float32) * 3
    free = random.random(tokens) < 0.7
    spans = find_spans(start, end, free, count=count, max_answer_len=max_answer_len)
    weights = [np.where(free, np.exp(logits), 0) for logits in (start.astype(float), end.astype(float))]
    first, last = (weight / max(weight.sum(), 1e-300) for weight in weights)
    scores = {
        (a, b): first[a] * last[b]
        for a in range(1, tokens)
        for b in range(a, min(tokens, a + max_answer_len))
        if free[a] and free[b]
    }
    expected = sorted(scores.values(), reverse=True)[:count]
    found = [score for score in spans.scores if score > 0]
    assert np.allclose(found, expected, rtol=1e-4)
    assert all(
        np.isclose(scores[a, b], s, rtol=1e-4) for a, b, s in zip(spans.firsts, spans.lasts, found, strict=False)
    )
