"""Extractive question answering, which transformers 5 no longer has.

The answers are those of transformers 4.57, field by field. Where a rule looks odd but decides an answer there, it is
kept, and a comment says so.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset
from transformers.pipelines.base import ChunkPipeline

from optimum_fixedshape.errors import InvalidArgumentError, ProcessorError, QuestionTooLongError

from .spans import block_tokens, find_spans, locate_span, read_row


@dataclass(frozen=True, slots=True)
class Example:
    """One question, and the text that holds its answer.

    Raises:
        ValueError: One of the two is not a string.
    """

    question: str
    context: str

    def __post_init__(self) -> None:
        if not (isinstance(self.question, str) and isinstance(self.context, str)):
            raise ValueError(f"`question` and `context` must be strings, got {self!r}")


def read_example(item: Any) -> Example:
    """Returns the example that a dict, or an object such as transformers' SquadExample, stands for.

    Raises:
        KeyError: A dict lacks its question or context.
        ValueError: The item is something else, or holds no strings.
    """
    if isinstance(item, Example):
        return item
    if isinstance(item, dict):
        return Example(item["question"], item["context"])
    if hasattr(item, "question_text") and hasattr(item, "context_text"):
        return Example(item.question_text, item.context_text)
    raise ValueError(f"Expected a dict with `question` and `context`, got {item!r}.")


def check_example(item: Any) -> Example | list[Example]:
    """Returns an item's example, or its examples where it holds lists; stricter than `read_example`.

    Raises:
        KeyError: A dict lacks its question or context.
        TypeError: A dict holds more than these two.
        ValueError: One of them is None or empty, or the item is no dict.
    """
    if not isinstance(item, dict):
        return read_example(item)
    for name in ("question", "context"):
        if name not in item:
            raise KeyError(f"Expected a dict with `question` and `context`: `{name}` is missing.")
        if item[name] is None or item[name] == "":
            raise ValueError(f"`{name}` cannot be {'None' if item[name] is None else 'empty'}.")
    if isinstance(item["question"], list):
        return [Example(*pair) for pair in zip(item["question"], item["context"], strict=False)]
    return Example(**item)


def pair_texts(question: Any, context: Any) -> list[dict[str, Any]]:
    """Returns one dict for each question; one context may serve many questions.

    Raises:
        ValueError: The two are neither strings nor lists that match.
    """
    questions = [question] if isinstance(question, str) and isinstance(context, str) else question
    contexts = [context] * len(questions) if isinstance(questions, list) and isinstance(context, str) else context
    if not (isinstance(questions, list) and isinstance(contexts, list) and len(questions) == len(contexts)):
        raise ValueError(
            "`question` and `context` must be two strings, two lists of the same length, or a list and a string, "
            f"got {question!r} and {context!r}."
        )
    return [{"question": q, "context": c} for q, c in zip(questions, contexts, strict=True)]


def read_inputs(args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Returns a call's examples as a list, or the generator or dataset that streams them, untouched.

    Raises:
        KeyError: An item lacks its question or context.
        ValueError: Nothing there can be read as examples.
    """
    names = [name for name in ("X", "data") if name in kwargs]
    if args:
        texts = len(args) == 2 and all(isinstance(arg, str) for arg in args)
        inputs = pair_texts(*args) if texts else args[0] if len(args) == 1 else args
    elif not names and "question" in kwargs and "context" in kwargs:
        inputs = pair_texts(kwargs["question"], kwargs["context"])
    else:
        inputs = kwargs[names[0]] if names else None
    if isinstance(inputs, types.GeneratorType | Dataset):
        return inputs
    if not isinstance(inputs, Iterable):
        raise ValueError(f"Expected `question` and `context`, got {args or dict(kwargs)}.")
    return [check_example(item) for item in ([inputs] if isinstance(inputs, dict) else inputs)]


def count_tokens(tokenizer: Any, text: str) -> int:
    """Returns how many tokens a text has, not counting special and padding tokens."""
    encoding = tokenizer(text, add_special_tokens=False, verbose=False).encodings[0]
    return sum(sequence is not None for sequence in encoding.sequence_ids)


def fit_stride(tokenizer: Any, example: Example, *, special: int, max_seq_len: int, doc_stride: int) -> int:
    """Returns how many tokens of context two windows share: `doc_stride`, or fewer where the question leaves no more.

    Raises:
        ValueError: `doc_stride` exceeds `max_seq_len`.
        QuestionTooLongError: There is context, and no room for any of it beside question and `special` tokens.
    """
    if doc_stride > max_seq_len:
        raise ValueError(f"`doc_stride` ({doc_stride}) is larger than `max_seq_len` ({max_seq_len}).")
    if max_seq_len <= special:
        return doc_stride  # tokenizers does not hold limits this low: its windows are larger
    question = count_tokens(tokenizer, example.question)
    room = max_seq_len - special - question
    if room <= 0 and count_tokens(tokenizer, example.context) > room:
        longest = max_seq_len - special - 1
        raise QuestionTooLongError(
            f"The question has {question} tokens, which leaves no room for context: a window of {max_seq_len} tokens, "
            f"{special} of them special, takes questions of at most {longest}. Shorten it, or raise `max_seq_len`.",
            size=question,
            limit=longest,
            axis="sequence_length",
        )
    return min(doc_stride, max(room - 1, 0))  # tokenizers panics unless windows advance


class QuestionAnsweringPipeline(ChunkPipeline):  # type: ignore[misc]  # transformers has no types here
    """Answers questions with spans of a context, as transformers 4.57's pipeline of this name does.

    An answer is a dict of `score` (a probability), `start` and `end` (characters of the context, end exclusive) and
    `answer` (that text). Arguments are those of `transformers.Pipeline`, and what `__call__` takes, as defaults.

    Raises:
        ProcessorError: The tokenizer is missing, or is not Rust-backed and cannot tell where its tokens come from.
    """

    _load_tokenizer = True
    _load_image_processor = _load_feature_extractor = _load_processor = False
    default_input_names = "question,context"
    handle_impossible_answer = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not getattr(self.tokenizer, "is_fast", False):
            given = type(self.tokenizer).__name__
            raise ProcessorError(
                f"Question answering needs a fast (Rust-backed) tokenizer, which knows the characters of each token, "
                f"got {given}. Load it with AutoTokenizer.from_pretrained(..., use_fast=True).",
                expected="a fast tokenizer",
                given=given,
            )

    def _sanitize_parameters(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        given = {name: value for name, value in kwargs.items() if value is not None}
        if "topk" in given and "top_k" not in given:
            warnings.warn("`topk` is deprecated, use `top_k`.", UserWarning, stacklevel=3)
            given["top_k"] = given["topk"]
        for name in ("top_k", "max_answer_len"):
            if given.get(name, 1) < 1:
                raise InvalidArgumentError(f"`{name}` must be at least 1, got {given[name]}.")
        before = ("padding", "doc_stride", "max_question_len", "max_seq_len")
        after = ("top_k", "max_answer_len", "handle_impossible_answer", "align_to_words")
        pick = [{name: given[name] for name in names if name in given} for names in (before, after)]
        return pick[0], {}, pick[1]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Returns one answer, or several best first; a list of that for a list, a stream for a generator or dataset.

        Args:
            *args: A question and its context, or dicts of `question` and `context`: one, several, or one iterable.
            **kwargs: `question` and `context`, strings or lists (one context may serve many questions), and:
                top_k (1): how many answers to return, fewer where there are fewer.
                doc_stride (128, at most half a window): how many tokens of context two windows share.
                max_answer_len (15): length of the longest answer, in tokens.
                max_seq_len (384, at most the tokenizer's limit): length of a window, in tokens.
                max_question_len: without effect, as in transformers where the tokenizer is fast.
                handle_impossible_answer (False): whether an empty answer competes.
                align_to_words (True): whether answers are widened to whole words.
                padding ("do_not_pad"), batch_size, num_workers: as everywhere in transformers.

        Raises:
            KeyError: A question or context is missing.
            ValueError: One is None or empty, or a parameter is out of range.
            QuestionTooLongError: A question leaves no room for context.
        """
        inputs = read_inputs(args, kwargs)
        if isinstance(inputs, list) and len(inputs) == 1:
            inputs = inputs[0]
        # Not super(): where transformers has its own class, it comes next in the fixed pipeline, and reads them again.
        return [] if inputs == [] else ChunkPipeline.__call__(self, inputs, **kwargs)

    def preprocess(
        self,
        example: Any,
        padding: bool | str = "do_not_pad",
        doc_stride: int | None = None,
        max_question_len: int = 64,
        max_seq_len: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Yields the windows of one example: tensors as (1, tokens), and beside them what `postprocess` needs."""
        example, tokenizer = read_example(example), self.tokenizer
        if max_seq_len is None:
            max_seq_len = min(tokenizer.model_max_length, 384)
        if doc_stride is None:
            doc_stride = min(max_seq_len // 2, 128)
        context = 1 if tokenizer.padding_side == "right" else 0
        texts = (example.question, example.context) if context == 1 else (example.context, example.question)
        special = tokenizer.num_special_tokens_to_add(pair=bool(texts[1]))  # transformers pairs no empty text
        stride = fit_stride(tokenizer, example, special=special, max_seq_len=max_seq_len, doc_stride=doc_stride)
        encoded = tokenizer(
            *texts,
            padding=padding,
            truncation="only_second" if context == 1 else "only_first",
            max_length=max_seq_len,
            stride=stride,
            return_overflowing_tokens=True,
        )
        names = [name for name in tokenizer.model_input_names if name in encoded]
        for index, encoding in enumerate(encoded.encodings):
            rows = {name: encoded[name][index] for name in names}
            sequences, cls = encoding.sequence_ids, tokenizer.cls_token_id
            rows["p_mask"] = block_tokens(sequences, rows["input_ids"], context=context, cls=cls)
            tensors = {name: torch.as_tensor(row).unsqueeze(0) for name, row in rows.items()}
            is_last = index == len(encoded.encodings) - 1
            yield {"example": example, "encoding": encoding, "is_last": is_last, **tensors}

    def _forward(self, window: dict[str, Any]) -> dict[str, Any]:
        output = self.model(**{name: window[name] for name in self.tokenizer.model_input_names if name in window})
        start, end = (output["start_logits"], output["end_logits"]) if isinstance(output, dict) else output[:2]
        return {**window, "start": start, "end": end}

    def postprocess(
        self,
        model_outputs: Iterable[dict[str, Any]],
        top_k: int = 1,
        handle_impossible_answer: bool = False,
        max_answer_len: int = 15,
        align_to_words: bool = True,
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Returns the answers of one example from the outputs of all its windows, equal texts merged."""
        context = 1 if self.tokenizer.padding_side == "right" else 0
        count = top_k * 2 + 10 if align_to_words else top_k  # spare ones, as several may be aligned to the same words
        answers: dict[str, dict[str, Any]] = {}
        null_scores = []
        for window in model_outputs:
            free = read_row(window["p_mask"]) == 0
            if "attention_mask" in window:
                free &= read_row(window["attention_mask"]) != 0
            logits = read_row(window["start"]), read_row(window["end"])
            spans = find_spans(*logits, free, count=count, max_answer_len=max_answer_len)
            null_scores.append(spans.null_score)
            # As in transformers: encodings count as padded on the left by batching alone, never by `padding`.
            pads = read_row(window["input_ids"]) == self.tokenizer.pad_token_id
            shift = 0 if context == 1 else int(pads.sum())
            for first, last, score in zip(spans.firsts, spans.lasts, spans.scores, strict=True):
                tokens = int(first) - shift, int(last) - shift
                if min(tokens) < -len(window["encoding"]):
                    continue  # padding, scored 0, at which transformers raises IndexError
                start, end = locate_span(window["encoding"], *tokens, context=context, align_to_words=align_to_words)
                text = window["example"].context[start:end]
                answer = answers.setdefault(text.lower(), {"score": 0.0, "start": start, "end": end, "answer": text})
                answer["score"] += score.item()
        ranked = list(answers.values())
        if handle_impossible_answer:
            ranked.append({"score": min(null_scores), "start": 0, "end": 0, "answer": ""})
        ranked = sorted(ranked, key=lambda answer: answer["score"], reverse=True)[:top_k]
        return ranked[0] if len(ranked) == 1 else ranked
