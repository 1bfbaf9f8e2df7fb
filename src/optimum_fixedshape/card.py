"""The model card of a repo: what the Hub shows of it, and what a person needs to use its graphs."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from .config import FixedShapeConfig
from .contract import ShapeContract, TensorSpec
from .distances import fidelity_text
from .repo import peek_graphs
from .tasks import Task

CARD_NAME = "README.md"
MARK = "<!-- Written by optimum-fixedshape. Without this line it is never written again. -->"
_REPLACEABLE = (MARK, "This model card has been automatically generated.")  # the latter by transformers

_TAGS = ("onnx", "fixed-shape", "optimum-fixedshape")


class Report(Protocol):
    """What `check_model` found: a `checking.report.Report`."""

    @property
    def provider(self) -> str:
        """The execution provider that was asked for."""

    @property
    def verdict(self) -> Any:
        """The worst verdict of all lines."""

    @property
    def lines(self) -> Sequence[Any]:
        """One for each thing that was checked."""


@dataclass(frozen=True)
class Origin:
    """Where a model comes from.

    Attributes:
        repo: The Hub repo of the original, or None where nobody knows.
        license: The fields of its card that are about its license.
    """

    repo: str | None = None
    license: Mapping[str, Any] = field(default_factory=dict)


def is_replaceable(card: str) -> bool:
    """Whether a model card was written by a program, so that it may be written anew."""
    return any(mark in card for mark in _REPLACEABLE)


def model_card(
    folder: str | Path,
    repo_id: str,
    *,
    task: Task | None,
    origin: Origin | None = None,
    report: Report | str = "Not checked.",
    tags: Iterable[str] = (),
) -> str:
    """Returns the text of the model card of a saved folder.

    Args:
        folder: The folder, with its graphs.
        repo_id: The Hub repo that it goes to.
        task: The row of the task table; None for a task of its own.
        origin: Where the model comes from.
        report: What `check_model` said of the folder, or why there is no report.
        tags: More tags.
    """
    origin = origin or Origin()
    graphs, saved = peek_graphs(folder)
    saved = saved or FixedShapeConfig(tuple(graphs))
    sections = [
        _front_matter(task, origin, saved, tags),
        MARK,
        f"# {repo_id.rpartition('/')[2]}",
        _introduction(origin, graphs),
        f"## Use\n\n{_usage(repo_id, task)}",
        f"## Shapes\n\n{_shapes(graphs, saved)}",
        f"## Numbers\n\n{_numbers(graphs, saved)}",
        f"## Check\n\n{_verdict(report)}",
    ]
    return "\n\n".join(sections) + "\n"


def _front_matter(task: Task | None, origin: Origin, saved: FixedShapeConfig, tags: Iterable[str]) -> str:
    from huggingface_hub import ModelCardData

    facts: dict[str, Any] = {
        # The Hub's button, and transformers' own pipeline, go by it: the code of the repo makes both work.
        "library_name": "transformers" if task else "optimum-fixedshape",
        "pipeline_tag": task.name if task and task.pipeline else None,
        "base_model": origin.repo,
        "base_model_relation": "quantized" if origin.repo and saved.dtype else None,
        **origin.license,
        "tags": list(dict.fromkeys([*_TAGS, *([saved.dtype] if saved.dtype else []), *tags])),
    }
    card = ModelCardData(**{name: value for name, value in facts.items() if value})
    return f"---\n{card.to_yaml()}\n---"


def _introduction(origin: Origin, graphs: Mapping[str, ShapeContract]) -> str:
    of = f" of [{origin.repo}](https://huggingface.co/{origin.repo})" if origin.repo else ""
    are_fixed = all(graph.is_fixed for graph in graphs.values())
    what = "whose input shapes are fixed" if are_fixed else "some of whose input shapes are open"
    return (
        f"ONNX graphs{of}, {what}. [optimum-fixedshape](https://pypi.org/project/optimum-fixedshape) runs them like "
        "the original: any number of items, each of any size that the largest graph holds."
    )


def _usage(repo_id: str, task: Task | None) -> str:
    own = "\n".join(
        line.format(repo=repo_id, model=_class_of(task), task=task and task.name) for line in _snippet(task)
    )
    text = f"```bash\npip install optimum-fixedshape\n```\n\n```python\n{own}\n```"
    if task is None or task.pipeline is None:
        return text
    return (
        f"{text}\n\nInside transformers, which runs the code of this repo to find the classes:\n\n```python\n"
        f'from transformers import pipeline\n\npipe = pipeline(model="{repo_id}", trust_remote_code=True)\n```'
    )


def _class_of(task: Task | None) -> str:
    return task.model if task else "ORTModelForCustomTasks"


_PIPELINE = ("from optimum_fixedshape import pipeline", "", 'pipe = pipeline("{task}", model="{repo}")')
_MODEL = ('model = {model}.from_pretrained("{repo}")',)
_WRITER = (
    "from optimum_fixedshape import AutoTokenizer, {model}",
    "",
    *_MODEL,
    "tokenizer = AutoTokenizer.from_model(model)",
    'written = model.generate(**tokenizer("A text.", return_tensors="pt"), max_new_tokens=20)',
    "print(tokenizer.decode(written[0], skip_special_tokens=True))",
)
_READER = (
    "from optimum_fixedshape import AutoImageProcessor, AutoTokenizer, {model}",
    "from PIL import Image",
    "",
    *_MODEL,
    'pixels = AutoImageProcessor.from_model(model)(Image.open("picture.png"), return_tensors="pt")',
    "written = model.generate(**pixels, max_new_tokens=20)",
    'print(AutoTokenizer.from_pretrained("{repo}").decode(written[0], skip_special_tokens=True))',
)
_OTHERS: Mapping[str, tuple[str, ...]] = {
    # transformers 5 has no pipelines for them
    "text2text-generation": _WRITER,
    "summarization": _WRITER,
    "translation": _WRITER,
    "image-to-text": _READER,
}
_CALLS: Mapping[str, str] = {
    "text-generation": 'print(pipe("Once upon a time", max_new_tokens=20))',
    "question-answering": 'print(pipe(question="Where is the boat?", context="The boat is in the harbour."))',
    "fill-mask": 'print(pipe(f"A glass of {{pipe.tokenizer.mask_token}}."))',
    "zero-shot-classification": 'print(pipe("The tram was late.", candidate_labels=["travel", "cooking"]))',
    "zero-shot-image-classification": 'print(pipe("picture.png", candidate_labels=["a boat", "a cat"]))',
    "zero-shot-audio-classification": 'print(pipe("sound.wav", candidate_labels=["a bell", "a voice"]))',
    "document-question-answering": 'print(pipe("page.png", "What is the date?"))',
    "automatic-speech-recognition": 'print(pipe("sound.wav"))',
}
_CALLS_BY_MODALITY: Mapping[str, str] = {
    "text": 'print(pipe("Any text that the largest graph holds."))',
    "image": 'print(pipe("picture.png"))',
    "audio": 'print(pipe("sound.wav"))',
    "video": 'print(pipe("clip.mp4"))',
}


def _snippet(task: Task | None) -> tuple[str, ...]:
    if task is None or task.pipeline is None:
        return ("from optimum_fixedshape import {model}", "", *_MODEL, "print(model.contract.describe())")
    if task.name in _OTHERS:
        return _OTHERS[task.name]
    return (*_PIPELINE, _CALLS.get(task.name) or _CALLS_BY_MODALITY[task.modality])


def _shapes(graphs: Mapping[str, ShapeContract], saved: FixedShapeConfig) -> str:
    rows = []
    for name, graph in graphs.items():
        cache = {name for tensor in graph.cache for name in (tensor.past, tensor.present)}
        rows.append((f"`{name}`", _sizes(graph), _in_words(graph.inputs, cache), _in_words(graph.outputs, cache)))
    table = _table(("graph", "sizes", "inputs", "outputs"), rows)
    if not saved.shapes:
        return table
    pinned = ", ".join(f"`{key}` {size}" for key, size in saved.shapes.items())
    return f"{table}\n\nOpen sizes are fixed when they are loaded, to {pinned}."


def _sizes(graph: ShapeContract) -> str:
    return "<br>".join(f"{role} {'any' if size is None else size}" for role, size in graph.sizes.items())


def _in_words(specs: Iterable[TensorSpec], cache: Container[str | None]) -> str:
    """Tensors, one a line; those of a cache, of which there are some for each layer, are counted."""
    given = list(specs)
    shown = [f"`{_escaped(str(spec))}`" for spec in given if spec.name not in cache]
    more = len(given) - len(shown)
    return "<br>".join([*shown, *([f"and {more} of the cache"] if more else [])])


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows))


def _numbers(graphs: Mapping[str, ShapeContract], saved: FixedShapeConfig) -> str:
    found = sorted({spec.dtype for graph in graphs.values() for spec in graph.outputs if "float" in spec.dtype})
    how = {"fp16": "float16", "int8": "int8, where that pays"}.get(saved.dtype or "", "those of the original")
    lines = [f"- Weights: {how}. Outputs: {', '.join(found) or 'no floats'}."]
    if saved.optimized:
        lines.append("- Fused by the optimizer of onnxruntime.")
    if saved.difference:
        worst = max(saved.difference.values())
        lines.append(f"- Largest difference from the original, measured on random inputs: {worst:.1e}.")
        lines += [f"  - `{name}`: {fidelity_text(facts)}." for name, facts in saved.fidelity.items() if facts]
    else:
        lines.append("- The difference from the original was not measured.")
    return "\n".join(lines)


def _verdict(report: Report | str) -> str:
    if isinstance(report, str):
        return report
    rows = [(line.name, str(line.verdict), _escaped(line.summary)) for line in report.lines]
    text = f"`check_model` on {report.provider}: **{report.verdict}**."
    return f"{text}\n\n{_table(('line', 'verdict', 'what was seen'), rows)}"


def _escaped(text: str) -> str:
    """A text that stays in its cell of a table: graphs name their tensors as they like."""
    return " ".join(text.replace("|", "\\|").replace("`", "'").replace("<", "&lt;").split())
