"""Folders that are broken: every damage has an error that names the file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from optimum_fixedshape import ORTModelForSequenceClassification
from optimum_fixedshape.config import CONFIG_NAME, FixedShapeConfig
from optimum_fixedshape.errors import GraphNotFoundError, InvalidModelError

IDS = np.arange(5, 15).reshape(2, 5)


@pytest.fixture
def folder(exported, tmp_path):
    """A folder that a test may damage."""
    return shutil.copytree(exported("text-classification").folder, tmp_path / "model")


def truncate(path, size):
    path.write_bytes(path.read_bytes()[:size])


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda f: (f / "model.onnx_data").unlink(), GraphNotFoundError, "keeps its weights in model.onnx_data"),
        (lambda f: (f / "model_2x8.onnx").unlink(), GraphNotFoundError, "lists model_2x8.onnx, which is not there"),
        (lambda f: truncate(f / "model.onnx", 5000), InvalidModelError, "cut short or damaged"),
        (lambda f: (f / "model.onnx").write_bytes(b"<html>404</html>"), InvalidModelError, "not a valid ONNX model"),
        (lambda f: (f / "config.json").write_text("{"), OSError, "config.json' is not a valid JSON file"),
        (
            lambda f: (f / "config.json").write_text("[1]"),
            InvalidModelError,
            "config.json of .* is not a valid config",
        ),
        (lambda f: (f / CONFIG_NAME).write_text("{"), InvalidModelError, "is not a valid fixedshape_config.json"),
        (lambda f: (f / CONFIG_NAME).write_text("[" * 10**5), InvalidModelError, "is not a valid fixedshape_config"),
        (lambda f: (f / CONFIG_NAME).write_text("[]"), InvalidModelError, "is not a valid fixedshape_config.json"),
    ],
)
def test_broken_files(folder, damage, error, message):
    (folder / "model.safetensors").touch()  # PyTorch weights beside it are no reason to export
    damage(folder)
    with pytest.raises(error, match=message):
        ORTModelForSequenceClassification.from_pretrained(folder)


def test_weights_that_are_cut_short(folder):
    whole = (folder / "model.onnx_data").read_bytes()
    model = ORTModelForSequenceClassification.from_pretrained(folder)
    truncate(folder / "model.onnx_data", 1000)
    for call in (lambda: model(IDS), lambda: ORTModelForSequenceClassification.from_pretrained(folder)):
        with pytest.raises(InvalidModelError, match=r"in model\.onnx_data, at offset .* that file has 1000 bytes"):
            call()
    (folder / "model.onnx_data").write_bytes(whole)
    assert model(IDS).logits.shape == (2, 3)


@pytest.mark.parametrize(
    "facts",
    [
        *({"graphs": [name]} for name in ("../model.onnx", "/etc/passwd", "a/model.onnx", "C:\\x.onnx", "..", "", 3)),
        *({"graphs": graphs} for graphs in ([], "model.onnx", None)),
        *({"graphs": ["model.onnx"], "shapes": shapes} for shapes in ({"batch_size": "2"}, {"batch_size": []}, [1], 2)),
        *({"graphs": ["model.onnx"], "roles": roles} for roles in ({"x": "batch_size"}, {"x": [1]}, ["x"], 1)),
        *({"graphs": [name]} for name in ("a\0.onnx", "x" * 70_000, ".. ")),
        *({"graphs": ["model.onnx"], "shapes": {"batch_size": size}} for size in (True, 10**30, 1.5, float("nan"))),
        {"graphs": ["model.onnx"], "shapes": {"batch_size": [*range(1, 100)], "sequence_length": [*range(1, 100)]}},
        *({"graphs": ["model.onnx"], name: 5} for name in ("task", "dtype", "original", "optimized", "names")),
        *({"graphs": ["model.onnx"], "difference": value} for value in ({"model.onnx": "0"}, [1], 1)),
        {"graphs": ["model.onnx"] * 1000},
        {},
    ],
    ids=lambda facts: str(facts)[:60],
)
def test_configs_that_say_what_cannot_be(folder, facts):
    (folder / CONFIG_NAME).write_text(json.dumps(facts))
    with pytest.raises(InvalidModelError, match=f"{CONFIG_NAME} is not a valid"):
        ORTModelForSequenceClassification.from_pretrained(folder)


def test_configs_of_later_versions_are_read(folder):
    facts = json.loads((folder / CONFIG_NAME).read_text())
    (folder / CONFIG_NAME).write_text(json.dumps({**facts, "new": 1}))
    assert FixedShapeConfig.from_folder(folder).graphs == ("model.onnx", "model_2x8.onnx")
    assert FixedShapeConfig.from_folder(folder / "nowhere") is None
