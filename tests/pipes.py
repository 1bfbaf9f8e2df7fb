"""Two pipelines side by side: ours on the graphs, and transformers' on the PyTorch model that they came from."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers.pipelines.pt_utils import PipelineIterator

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
        ours, theirs = self.ours(*args, **kwargs), self.ask_original(*args, **kwargs)
        assert_same(list(ours) if isinstance(ours, PipelineIterator) else ours, theirs)

    def ask_original(self, *args: Any, **kwargs: Any) -> Any:
        """Returns the original's answer, or its stream of answers as a list."""
        # transformers lets padding show in features where it runs several texts at once: the original runs one by one.
        given = {name: value for name, value in kwargs.items() if name not in ("batch_size", "num_workers")}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # transformers 4.57's question answering warns at every call
            answer = self.theirs(*args, **copy.deepcopy(given))
            return list(answer) if isinstance(answer, PipelineIterator) else answer


def make_pipes(exported: Exported, task: str) -> Pipes:
    """Returns both pipelines for `task`; the original is cut and windowed at the same length as the graph."""
    shapes = SHAPES.get(task, LADDER)
    pair = exported(task, shapes=shapes)
    tokenizer = copy.deepcopy(pair.tokenizer)
    tokenizer.model_max_length = max(shapes["sequence_length"])
    return Pipes(pipeline(task, model=pair.folder), make_reference(task, pair.original, tokenizer), pair)


def make_reference(task: str, original: Any, tokenizer: Any, **arguments: Any) -> Any:
    """Returns transformers' pipeline on the original; for question answering our own class where it has none."""
    arguments = {name: value for name, value in copy.deepcopy(arguments).items() if name != "batch_size"}
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
