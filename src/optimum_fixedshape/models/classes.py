"""The model classes: optimum's own names, and optimum's own classes as bases where ``optimum-onnx`` is installed."""

from __future__ import annotations

from optimum_fixedshape._compat import model_base, register_with_auto_class
from optimum_fixedshape.tasks import TASKS

from .base import FixedShapeMixin


class ORTModelForSequenceClassification(FixedShapeMixin, model_base("ORTModelForSequenceClassification")):  # type: ignore[misc]
    """A graph that classifies texts or pairs of texts: ``logits`` are ``(rows, labels)``."""


class ORTModelForTokenClassification(FixedShapeMixin, model_base("ORTModelForTokenClassification")):  # type: ignore[misc]
    """A graph that classifies each token: ``logits`` are ``(rows, tokens, labels)``."""


class ORTModelForQuestionAnswering(FixedShapeMixin, model_base("ORTModelForQuestionAnswering")):  # type: ignore[misc]
    """A graph that finds answers in texts: ``start_logits`` and ``end_logits`` are ``(rows, tokens)``."""


class ORTModelForMaskedLM(FixedShapeMixin, model_base("ORTModelForMaskedLM")):  # type: ignore[misc]
    """A graph that fills masked tokens: ``logits`` are ``(rows, tokens, vocabulary)``."""


class ORTModelForMultipleChoice(FixedShapeMixin, model_base("ORTModelForMultipleChoice")):  # type: ignore[misc]
    """A graph that picks one of several texts: inputs are ``(rows, choices, tokens)``."""


class ORTModelForFeatureExtraction(FixedShapeMixin, model_base("ORTModelForFeatureExtraction")):  # type: ignore[misc]
    """A graph that embeds texts: ``last_hidden_state`` is ``(rows, tokens, features)``."""


class ORTModelForCustomTasks(FixedShapeMixin, model_base("ORTModelForCustomTasks")):  # type: ignore[misc]
    """A graph with outputs of its own: they come back under their own names."""


for _task in TASKS:
    register_with_auto_class(_task.auto, globals()[_task.model])
