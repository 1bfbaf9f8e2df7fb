"""Two pipelines side by side: ours on the graphs, and transformers' on the PyTorch model that they came from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers

from optimum_fixedshape import pipeline
from optimum_fixedshape.pipelines import question_answering
from optimum_fixedshape.tasks import find_task
from optimum_fixedshape.windows import plan_windows

from . import tiny
from .conftest import LADDER, Exported
from .equality import assert_same

WIDE = {"batch_size": 4, "sequence_length": [16, 32]}
SHAPES: Mapping[str, Mapping[str, Any]] = {"zero-shot-classification": WIDE, "question-answering": WIDE}
TASKS = (
    "text-classification",
    "token-classification",
    "question-answering",
    "fill-mask",
    "feature-extraction",
    "zero-shot-classification",
)
WORDS = ("harbour", "bridge", "1874", "the", "quiet,", "Zürich", "tram's", "engineers", "bells", "of", "St. Anne")


@dataclass(frozen=True)
class Pipes:
    """The two, and what they were made from."""

    ours: Any
    theirs: Any
    pair: tiny.Pair

    def assert_same(self, *args: Any, **kwargs: Any) -> None:
        """Asserts that both give the same answer, or the same stream of answers."""
        answers = [pipe(*copy.copy(args), **copy.deepcopy(kwargs)) for pipe in (self.ours, self.theirs)]
        streams = [answer for answer in answers if hasattr(answer, "__next__")]
        assert len(streams) in (0, 2)
        assert_same(*(list(answer) for answer in streams) if streams else answers)


def make_pipes(exported: Exported, task: str, **arguments: Any) -> Pipes:
    """Returns both pipelines for `task`; the original is cut and windowed at the same length as the graph."""
    shapes = SHAPES.get(task, LADDER)
    pair = exported(task, shapes=shapes)
    tokenizer = copy.deepcopy(pair.tokenizer)
    tokenizer.model_max_length = max(shapes["sequence_length"])
    theirs = make_reference(task, pair.original, tokenizer, **copy.deepcopy(arguments))
    return Pipes(pipeline(task, model=pair.folder, **arguments), theirs, pair)


def make_reference(task: str, original: Any, tokenizer: Any, **arguments: Any) -> Any:
    """Returns transformers' pipeline on the original; for question answering our own class where it has none."""
    name = find_task(task).pipeline or ""
    if hasattr(transformers, name):
        return transformers.pipeline(task, model=original, tokenizer=tokenizer, device=-1, **arguments)
    return getattr(question_answering, name)(model=original, tokenizer=tokenizer, device=-1, **arguments)


def text_of(tokens: int, tokenizer: Any) -> str:
    """Returns a text that has exactly `tokens` tokens, special ones included."""
    text = ""
    for word in WORDS * tokens:
        if len(tokenizer(text)["input_ids"]) >= tokens:
            break
        text = f"{text} {word}".strip()
    while len(tokenizer(text)["input_ids"]) > tokens:
        text = text[:-1]
    assert len(tokenizer(text)["input_ids"]) == tokens
    return text


def run_in_windows(pipes: Pipes, text: str, pair_text: str | None = None) -> tuple[Any, Any, list[Any]]:
    """Returns a text's encoding, the windows that the graph needs for it, and what the original answers to each."""
    encoded = pipes.pair.tokenizer(
        text, pair_text, return_special_tokens_mask=True, return_offsets_mapping=True, return_tensors="pt"
    )
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in encoded]
    windows = plan_windows(encoded["special_tokens_mask"][0], pipes.ours.tokenizer.limit)
    with torch.no_grad():
        outputs = [
            pipes.pair.original(**{name: encoded[name][:, torch.from_numpy(places)] for name in names})
            for places in windows.tokens
        ]
    return encoded, windows, outputs
