"""One table: task, model class, pipeline class, and what comes out. Everything that depends on a task reads it here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from .errors import UnsupportedTaskError

Overflow = Literal["error", "truncate", "window"]


@dataclass(frozen=True)
class Task:
    """A row of the table.

    Attributes:
        name: transformers' name of the task.
        model: Our model class, which is also the name of optimum's.
        auto: transformers' Auto class that loads the PyTorch model.
        output: The class in ``transformers.modeling_outputs`` that the model returns.
        outputs: The fields of `output` that an export writes, in order, where the model gives them.
        pipeline: The pipeline class, or None where transformers has no pipeline for the task.
        aliases: Other names of the task.
        overflow: What a pipeline does by default with an item larger than the largest rung.
    """

    name: str
    model: str
    auto: str
    output: str
    outputs: tuple[str, ...]
    pipeline: str | None = None
    aliases: tuple[str, ...] = ()
    overflow: Overflow = "error"


_CLASSIFIER = ("ORTModelForSequenceClassification", "AutoModelForSequenceClassification", "SequenceClassifierOutput")

TASKS: tuple[Task, ...] = (
    Task(
        "text-classification",
        *_CLASSIFIER,
        ("logits",),
        "TextClassificationPipeline",
        aliases=("sentiment-analysis",),
    ),
    Task(
        "token-classification",
        "ORTModelForTokenClassification",
        "AutoModelForTokenClassification",
        "TokenClassifierOutput",
        ("logits",),
        "TokenClassificationPipeline",
        aliases=("ner",),
        overflow="window",
    ),
    Task(
        "question-answering",
        "ORTModelForQuestionAnswering",
        "AutoModelForQuestionAnswering",
        "QuestionAnsweringModelOutput",
        ("start_logits", "end_logits"),
        "QuestionAnsweringPipeline",
        overflow="window",
    ),
    Task(
        "fill-mask",
        "ORTModelForMaskedLM",
        "AutoModelForMaskedLM",
        "MaskedLMOutput",
        ("logits",),
        "FillMaskPipeline",
    ),
    Task(
        "feature-extraction",
        "ORTModelForFeatureExtraction",
        "AutoModel",
        "BaseModelOutputWithPooling",
        ("last_hidden_state", "pooler_output"),
        "FeatureExtractionPipeline",
    ),
    Task("zero-shot-classification", *_CLASSIFIER, ("logits",), "ZeroShotClassificationPipeline"),
    Task(
        "multiple-choice",
        "ORTModelForMultipleChoice",
        "AutoModelForMultipleChoice",
        "MultipleChoiceModelOutput",
        ("logits",),
    ),
)


def find_task(name: str | None) -> Task:
    """Returns the row of the task called `name`, which may be an alias or carry the ``fixed-shape-`` prefix.

    Raises:
        UnsupportedTaskError: There is none.
    """
    wanted = (name or "").removeprefix(REGISTRY_PREFIX)
    for task in TASKS:
        if wanted in (task.name, *task.aliases):
            return task
    known = tuple(sorted(alias for task in TASKS for alias in (task.name, *task.aliases)))
    raise UnsupportedTaskError(f"The task {name!r} is not one of: {', '.join(known)}.", task=name, known=known)


def tasks_with_pipeline() -> Iterator[tuple[Task, str]]:
    """Yields each task that has a pipeline, with the pipeline class's name."""
    return ((task, task.pipeline) for task in TASKS if task.pipeline)


def task_of_architectures(architectures: Iterable[str]) -> Task | None:
    """Returns the task of the first PyTorch class whose head tells it, such as ``"BertForMaskedLM"``, or None."""
    for architecture in architectures:
        for task in TASKS:
            if task.auto != "AutoModel" and architecture.endswith(task.auto.removeprefix("AutoModel")):
                return task
        if architecture.endswith("Model") and "Head" not in architecture:
            return find_task("feature-extraction")
    return None


def task_of_model(model_class: str) -> Task | None:
    """Returns the first task that the model class called `model_class` serves, or None for custom tasks."""
    return next((task for task in TASKS if task.model == model_class), None)


REGISTRY_PREFIX = "fixed-shape-"
"""What our tasks are called in transformers' registry: the prefix and transformers' own name."""
