"""Rows of the table of tasks by names: of tasks, of model classes, of PyTorch classes."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

from optimum_fixedshape.errors import UnsupportedTaskError

from .table import TASKS, Task

REGISTRY_PREFIX = "fixed-shape-"
"""What our tasks are called in transformers' registry: the prefix and transformers' own name."""

REMOTE_PREFIX = f"remote-{REGISTRY_PREFIX}"
"""What they are called in the configurations of saved models. Under names of the registry, or transformers' own,
transformers would ask everybody to trust the repo's code first."""


def find_task(name: str | None, *, model: str | None = None) -> Task:
    """Returns the row of the task called `name`, which may be an alias or carry one of our prefixes.

    Args:
        name: The task. ``translation_en_to_fr`` is a ``translation``, as in transformers.
        model: The model class, which decides where several have the task; by default the first.

    Raises:
        UnsupportedTaskError: There is none.
    """
    if rows := tasks_called(name):
        return next((row for row in rows if row.model == model), rows[0])
    known = tuple(sorted({alias for task in TASKS for alias in (task.name, *task.aliases)}))
    raise UnsupportedTaskError(f"The task {name!r} is not one of: {', '.join(known)}.", task=name, known=known)


def tasks_called(name: str | None) -> list[Task]:
    """Returns the rows of the task called `name`, one for each kind of model; see `find_task`."""
    wanted = str(name or "").removeprefix(REMOTE_PREFIX).removeprefix(REGISTRY_PREFIX)
    if wanted.startswith("translation_"):
        wanted = "translation"
    return [task for task in TASKS if wanted in (task.name, *task.aliases)]


def tasks_with_pipeline() -> Iterator[tuple[Task, str]]:
    """Yields each task that has a pipeline, with the pipeline class's name."""
    return ((task, task.pipeline) for task in TASKS if task.pipeline)


def task_of_model(model_class: str) -> Task | None:
    """Returns the first task that the model class called `model_class` serves, or None for custom tasks."""
    return next((task for task in TASKS if task.model == model_class), None)


def task_of_architectures(architectures: Iterable[str]) -> Task | None:
    """Returns the task of the first PyTorch class whose head tells it, such as ``"BertForMaskedLM"``, or None."""
    for architecture in architectures:
        for task in TASKS:
            if architecture in task.architectures or architecture in _classes_of(task.auto):
                return task
        for task in TASKS:
            if task.auto != "AutoModel" and architecture.endswith(task.auto.removeprefix("AutoModel")):
                return task
        if architecture.endswith("Model") and "Head" not in architecture:
            return find_task("feature-extraction")
    return None


@functools.cache
def _classes_of(auto: str) -> frozenset[str]:
    """The PyTorch classes that one of transformers' Auto classes loads, but for `AutoModel`, which loads any."""
    import transformers

    if auto == "AutoModel":
        return frozenset()
    names = getattr(transformers, auto)._model_mapping._model_mapping.values()
    return frozenset(name for each in names for name in ([each] if isinstance(each, str) else each))
