"""Every architecture, exported and compared with PyTorch around every rung."""

from __future__ import annotations

import pytest

import optimum_fixedshape as fixedshape
from optimum_fixedshape.tasks import TASKS

from . import tiny
from .equality import assert_model_equals_original


@pytest.mark.parametrize("architecture", sorted(tiny.ARCHITECTURES))
def test_architecture_equals_pytorch(exported, architecture):
    pair = exported("text-classification", architecture)
    model = fixedshape.ORTModelForSequenceClassification.from_pretrained(pair.folder)
    assert_model_equals_original(model, pair.original)


@pytest.mark.parametrize("task", [task.name for task in TASKS if task.modality == "text" and not task.writes])
def test_task_equals_pytorch(exported, task):
    shapes = {"batch_size": 2, "sequence_length": [8, 16]}
    pair = exported(task, shapes=shapes | ({"num_choices": 3} if task == "multiple-choice" else {}))
    row = next(row for row in TASKS if row.name == task)
    model = getattr(fixedshape, row.model).from_pretrained(pair.folder)
    assert_model_equals_original(model, pair.original)


@pytest.mark.parametrize("batch", [1, 8])
def test_batch_sizes_equal_pytorch(exported, batch):
    pair = exported("feature-extraction", "roberta", {"batch_size": batch, "sequence_length": [8, 16]})
    model = fixedshape.ORTModelForFeatureExtraction.from_pretrained(pair.folder)
    assert_model_equals_original(model, pair.original)


def test_two_batch_sizes_and_two_lengths_equal_pytorch(exported):
    pair = exported("token-classification", "distilbert", {"batch_size": [1, 4], "sequence_length": [8, 16]})
    model = fixedshape.ORTModelForTokenClassification.from_pretrained(pair.folder)
    assert len(model.ladder) == 4
    assert_model_equals_original(model, pair.original)
