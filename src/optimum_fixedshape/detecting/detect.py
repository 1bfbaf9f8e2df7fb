"""The task of a graph: each row of the table of tasks is held against what the graph takes and gives."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from optimum_fixedshape.caches import place_of
from optimum_fixedshape.contract import ShapeContract, TensorSpec
from optimum_fixedshape.graph.outline import outline_of
from optimum_fixedshape.graph.reader import read_contract
from optimum_fixedshape.roles import OUTPUT_ROLES
from optimum_fixedshape.tasks.table import TASKS, Task

from .axes import fit_axis, fit_end, fit_map
from .clues import Clues, Head
from .guesses import TaskGuess, TaskGuesses
from .inputs import UNKNOWN, plain_name
from .writing import weigh_writing

_LOWEST = 0.12
_OWN_NAME, _HINTED, _OTHER_NAME = 1.0, 0.95, 0.85
_LEFT_OVER, _LEFT_OVER_STANDARD = 0.85, 0.7
_DECIDED = 0.5  # what a guess is worth, at most, beside the one that config.json decides for

_STANDARD: Final = {name for task in TASKS for name in task.outputs} | OUTPUT_ROLES.keys()
_SAME: Final = {
    "token_embeddings": "last_hidden_state",
    **dict.fromkeys(("sentence_embedding", "text_embeds", "image_embeds", "audio_embeds"), "pooler_output"),
}
"""Standard outputs that stand for another one of the table."""
_HINTS: Final[Mapping[str, str]] = {
    "logits": r"logit|prob|score|softmax|class|label",
    "start_logits": r"start",
    "end_logits": r"end",
    "pred_boxes": r"box",
    "predicted_depth": r"depth",
    "last_hidden_state": r"hidden|token_emb|encoder_out",
    "pooler_output": r"pool|emb|feature",
    "embeddings": r"emb",
    "logits_per_image": r"per_image",
    "logits_per_text": r"per_text",
    "logits_per_audio": r"per_audio",
    "image_embeds": r"image_emb",
    "text_embeds": r"text_emb",
    "audio_embeds": r"audio_emb",
}
"""What other names of standard outputs are like."""
_SECONDARY: Final = r"(hidden_states?|attentions?|cross_attentions|decoder_attentions|encoder_.*|loss)\b.*"


def detect_task(contract: ShapeContract | str | Path, *, config: Mapping[str, Any] | None = None) -> TaskGuesses:
    """Returns what a graph may be for, best guess first: told from names, ranks, types, sizes and operators.

    Operators are read from the graph's file, where it is there: sizes alone do not tell embeddings from labels, or a
    vocabulary from a large number of labels.

    Args:
        contract: The graph, or the path of its file.
        config: What ``config.json`` says. The class of the PyTorch model that it names decides, if the graph gives
            what models of that class give.

    Raises:
        InvalidModelError: The file is no ONNX graph.
    """
    if not isinstance(contract, ShapeContract):
        contract = read_contract(contract)
    clues = Clues(contract, outline_of(contract))
    fitting = [(task, guess) for task in TASKS if (guess := _guess(task, clues))]
    fitting.sort(key=lambda pair: -pair[1].score)
    ranked = _decided(fitting, tuple((config or {}).get("architectures") or ()))
    return TaskGuesses(tuple(guess for guess in ranked if guess.score >= _LOWEST))


@dataclass(frozen=True)
class _Match:
    """A graph's output that stands for one of the table."""

    spec: TensorSpec
    name: str
    score: float


def _guess(task: Task, clues: Clues) -> TaskGuess | None:
    """The guess that the graph is for a task, or None where it cannot be."""
    if clues.takes not in task.takes:
        return None
    matches = _matches(task, clues)
    if not matches:
        return None
    score = min((found.certainty for found in clues.inputs), default=1.0)
    score *= math.prod(match.score for match in matches) ** (1 / len(matches))
    matched = {match.spec.name for match in matches}
    rest = [spec for spec in clues.contract.outputs if spec.name not in matched and _is_primary(spec)]
    score *= max(math.prod(_LEFT_OVER_STANDARD if spec.name in _STANDARD else _LEFT_OVER for spec in rest), 0.5)
    weight, told = weigh_writing(task, clues)
    evidence = [*_said_of_inputs(clues), *(_said_of_output(match, clues) for match in matches), *told]
    return TaskGuess(
        task.name,
        task.model,
        round(score * weight, 3),
        tuple(filter(None, evidence)),
        _names(clues, matches),
    )


def _matches(task: Task, clues: Clues) -> list[_Match]:
    """The graph's outputs that stand for those of the task, or none if one is missing that must be there."""
    left = [spec for spec in clues.contract.outputs if _is_primary(spec)]
    found = []
    for name, axes in zip(task.outputs, task.axes, strict=False):
        scored = [_Match(spec, name, _fit(spec, name, axes.strip("[]"), clues)) for spec in left]
        best = max(scored, key=lambda match: match.score, default=None)
        if best is not None and best.score > 0:
            found.append(best)
            left.remove(best.spec)
        elif not axes.startswith("["):
            return []
    return found


def _is_primary(spec: TensorSpec) -> bool:
    """Whether an output is not one of those that come beside any other: caches, and what layers in between give."""
    return not place_of(spec.name) and not re.fullmatch(_SECONDARY, plain_name(spec.name))


def _fit(spec: TensorSpec, name: str, axes: str, clues: Clues) -> float:
    """How well an output of the graph stands for the output `name` of the table, from 0 to 1."""
    if not spec.dtype.startswith(("float", "bfloat", "undefined")):
        return 0.0
    named = _fit_name(spec.name, name)
    shape = max((_fit_axes(spec, row.split(), clues) for row in axes.split("|")), default=0.0)
    if named == _OWN_NAME and shape and name != "logits":  # the name tells enough; logits come in all shapes
        return max(shape, 0.9)
    return named * shape


def _fit_name(own: str, wanted: str) -> float:
    if wanted in (own, _SAME.get(own)):
        return _OWN_NAME
    if own in _STANDARD:
        return 0.0
    return _HINTED if re.search(_HINTS.get(wanted, r"$^"), plain_name(own)) else _OTHER_NAME


def _fit_axes(spec: TensorSpec, words: list[str], clues: Clues) -> float:
    if spec.axes is None:
        return 0.3
    if len(spec.axes) != len(words):
        return 0.0
    score = math.prod(fit_axis(word, axis, clues) for word, axis in zip(words, spec.axes, strict=True))
    return score * fit_map(spec.axes, words, clues) * fit_end(words, clues.end(spec.session_name))


def _said_of_inputs(clues: Clues) -> Iterator[str]:
    standard = [found.name for found in clues.inputs if not found.evidence and found.certainty != UNKNOWN]
    caches = [name for name in standard if place_of(name)]
    if names := [name for name in standard if name not in caches]:
        yield f"takes {', '.join(names)}" + (", and a cache" if caches else "")
    yield from (found.evidence for found in clues.inputs)
    if unknown := [found.spec.name for found in clues.inputs if found.certainty == UNKNOWN]:
        yield f"what {', '.join(unknown)} is for is not known"


def _said_of_output(match: _Match, clues: Clues) -> str:
    sizes = ", ".join("rows" if i == 0 else str(axis) for i, axis in enumerate(match.spec.axes or ()))
    end = clues.end(match.spec.session_name)
    vocabulary, width = clues.words
    last = match.spec.axes[-1].size if match.spec.axes else None
    said = [f"gives {match.spec.name} ({sizes})"]
    if last and last == vocabulary:
        said.append(f"{last} is the size of the vocabulary")
    elif last and last == width:
        said.append(f"{last} is the width of the embeddings")
    if end.head is not Head.UNKNOWN:
        said.append(str(end))
    return ", ".join(said)


def _names(clues: Clues, matches: Iterable[_Match]) -> dict[str, str]:
    """The graph's names to the standard ones, where they differ; none that would make two of one name."""
    wanted = {found.spec.session_name: found.name for found in clues.inputs}
    for spec in clues.contract.outputs:
        wanted[spec.session_name] = spec.name
    for match in matches:
        if match.spec.name not in _SAME:
            wanted[match.spec.session_name] = match.name
    uses = Counter(wanted.values())
    return {own: name for own, name in wanted.items() if own != name and uses[name] == 1}


def _decided(fitting: list[tuple[Task, TaskGuess]], architectures: tuple[str, ...]) -> list[TaskGuess]:
    """The guesses, with those first whose models have a class that the config names."""
    guesses = [guess for _, guess in fitting]
    named = next((name for name in architectures if any(task.is_of(name) for task, _ in fitting)), None)
    if named is None:
        return guesses
    chosen = [guess for task, guess in fitting if task.is_of(named)]
    why = f"config.json names the class {named}"
    first = [
        replace(guess, score=round(guess.score / chosen[0].score, 3), evidence=(why, *guess.evidence))
        for guess in chosen
    ]
    return [*first, *(replace(guess, score=min(guess.score, _DECIDED)) for guess in guesses if guess not in chosen)]
