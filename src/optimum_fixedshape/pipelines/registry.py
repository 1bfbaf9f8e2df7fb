"""Our tasks in transformers' registry: new keys beside its own, never in their place."""

from __future__ import annotations

from transformers.pipelines import PIPELINE_REGISTRY

from optimum_fixedshape.models import classes as model_classes
from optimum_fixedshape.tasks import REGISTRY_PREFIX, tasks_with_pipeline

from . import classes


def register_pipelines() -> None:
    """Makes ``transformers.pipeline("fixed-shape-text-classification", ...)`` and its like work.

    Adds one key for each task of `tasks.TASKS` that has a pipeline. Keys that are there already stay as they are, so
    that it can be called any number of times. It runs by itself when a model class or `pipeline` is first imported.
    """
    for task, name in tasks_with_pipeline():
        key = REGISTRY_PREFIX + task.name
        pipeline_class = getattr(classes, name, None)
        if pipeline_class and key not in PIPELINE_REGISTRY.supported_tasks:
            PIPELINE_REGISTRY.register_pipeline(
                key, pipeline_class, pt_model=getattr(model_classes, task.model), type=task.modality
            )
