"""One table: task, model class, pipeline class, and what comes out. Everything that depends on a task reads it here."""

from .finding import (
    REGISTRY_PREFIX,
    REMOTE_PREFIX,
    find_task,
    task_of_architectures,
    task_of_model,
    tasks_called,
    tasks_with_pipeline,
)
from .table import TASKS, Modality, Overflow, Task

__all__ = [
    "REGISTRY_PREFIX",
    "REMOTE_PREFIX",
    "TASKS",
    "Modality",
    "Overflow",
    "Task",
    "find_task",
    "task_of_architectures",
    "task_of_model",
    "tasks_called",
    "tasks_with_pipeline",
]
