"""`pipeline("text-generation")` on fixed graphs answers what transformers' own answers on PyTorch."""

from __future__ import annotations

import importlib

import pytest
import transformers

from optimum_fixedshape import AutoTokenizer, ORTModelForCausalLM, pipeline
from optimum_fixedshape._compat import has_optimum_onnx
from optimum_fixedshape.errors import InputTooLongError

from . import stock
from .equality import assert_same

CONTEXT = 40
SHAPES = {"context_length": [16, CONTEXT], "prefill_length": [4, 16]}
HOW = {"max_new_tokens": 6, "do_sample": False}
TEXTS = ["Rain fell.", "The bells of the market rang while rain fell", "No"]
LONG = "Rain fell on the market, and on the bells of the market. " * 3


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def name(request):
    return request.param


@pytest.fixture(scope="module")
def words(name):
    return transformers.AutoTokenizer.from_pretrained(stock.graphs(name))


@pytest.fixture(scope="module")
def model(name):
    return ORTModelForCausalLM.from_pretrained(stock.graphs(name), shapes=SHAPES)


@pytest.fixture(scope="module")
def ours(model):
    return pipeline("text-generation", model=model, data_processor=AutoTokenizer.from_model(model))


@pytest.fixture(scope="module")
def theirs(name, words):
    return transformers.pipeline("text-generation", model=stock.original(name), tokenizer=words)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_size": 2},
        {"return_full_text": False},
        {"num_beams": 3, "num_return_sequences": 2},
        {"return_tensors": True},
        {"prefix": "Once. "},
    ],
    ids=str,
)
def test_texts(ours, theirs, options):
    for asked in (TEXTS[0], TEXTS):
        assert_same(ours(asked, **HOW, **options), theirs(asked, **HOW, **options))


def test_answers_differ(ours):
    answers = ours(TEXTS, **HOW, return_full_text=False)
    assert len({answer[0]["generated_text"] for answer in answers}) == 3


def test_chats(ours, theirs):
    template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    for pipe in (ours, theirs):
        pipe.tokenizer.chat_template = template
    chat = [{"role": "user", "content": "Rain?"}]
    for asked in (chat, [chat, [*chat, {"role": "assistant", "content": "No."}]]):
        assert_same(ours(asked, **HOW), theirs(asked, **HOW))


def test_generators_and_nothing(ours, theirs):
    streamed = [list(pipe((text for text in TEXTS), **HOW)) for pipe in (ours, theirs)]
    assert_same(*streamed)
    assert ours([], **HOW) == []


def test_long_texts(ours, theirs, model, words):
    with pytest.raises(InputTooLongError, match=f"the graphs hold {CONTEXT}"):
        ours(LONG, **HOW)
    cut = pipeline("text-generation", model=model, data_processor=words, overflow="truncate")
    reader = transformers.AutoTokenizer.from_pretrained(words.name_or_path, model_max_length=CONTEXT)
    hole = transformers.pipeline("text-generation", model=theirs.model, tokenizer=reader)
    assert_same(cut(LONG, **HOW), hole(LONG, **HOW, handle_long_generation="hole"))
    window = pipeline("text-generation", model=model, data_processor=words, overflow="window")
    tokens = len(words(LONG)["input_ids"])
    assert CONTEXT < tokens < 58
    assert len(window(LONG, **HOW, return_tensors=True)[0]["generated_token_ids"]) > tokens


def test_from_nothing_but_the_folder(name, theirs):
    expected = theirs(TEXTS[0], **HOW)
    options = {"model_kwargs": {"shapes": SHAPES}}
    for pipe in (pipeline("text-generation", str(stock.graphs(name)), **options), pipeline(model=stock.graphs(name))):
        assert pipe.task == "text-generation"
        assert_same(pipe(TEXTS[0], **HOW), expected)


def test_tokenizers_leave_prompts_as_they_are(name, words):
    for reader in (AutoTokenizer.from_model(stock.graphs(name)), AutoTokenizer.from_pretrained(stock.graphs(name))):
        assert reader(TEXTS)["input_ids"] == words(TEXTS)["input_ids"]
        padded = reader(TEXTS, padding=True, return_tensors="np")
        assert_same(padded["input_ids"], words(TEXTS, padding=True, return_tensors="np")["input_ids"])


@pytest.mark.parametrize("library", ["transformers", *(["optimum.onnxruntime"] if has_optimum_onnx() else [])])
def test_their_own_pipelines_take_our_models(library, model, words, theirs):
    expected = theirs(TEXTS, **HOW)
    for task in ("text-generation", "fixed-shape-text-generation"):
        if library == "transformers" or task == "text-generation":
            pipe = importlib.import_module(library).pipeline(task, model=model, tokenizer=words)
            assert_same(pipe(TEXTS, **HOW), expected)


@pytest.mark.skipif(not has_optimum_onnx(), reason="optimum-onnx is not installed")
def test_models_are_optimums_own(model):
    ort = importlib.import_module("optimum.onnxruntime")
    assert isinstance(model, ort.ORTModelForCausalLM)
    ours = importlib.import_module("optimum_fixedshape")
    for kind in ("Seq2SeqLM", "SpeechSeq2Seq", "Vision2Seq"):
        assert issubclass(getattr(ours, f"ORTModelFor{kind}"), getattr(ort, f"ORTModelFor{kind}"))
