"""Exports that are fused and made smaller: what is written, what was measured, and what is refused."""

from __future__ import annotations

import json
import re

import numpy as np
import onnx
import pytest

from optimum_fixedshape import ORTModelForImageClassification, export_model
from optimum_fixedshape.card import model_card
from optimum_fixedshape.changes import Change, changed_model
from optimum_fixedshape.config import FixedShapeConfig
from optimum_fixedshape.errors import InvalidArgumentError, ShapeMismatchError
from optimum_fixedshape.graph.optimize import fused_operators
from optimum_fixedshape.tasks import find_task

from . import stock, tiny, zoo
from .shell import run_here


def test_the_command_line_exports_fused_int8_graphs_and_shows_what_it_costs(tmp_path, capfd):
    tiny.original("bert", "text-classification").save_pretrained(tmp_path / "original")
    tiny.tokenizer("wordpiece").save_pretrained(tmp_path / "original")
    capfd.readouterr()
    shapes = ["--shape", "batch_size=2", "--shape", "sequence_length=8"]
    folder = tmp_path / "out"
    done = run_here(capfd, "export", tmp_path / "original", folder, *shapes, "--optimize", "--dtype", "int8")
    assert done.code == 0, done.err
    assert re.search(r"model\.onnx .*\d\.\de[-+]\d\d", done.out)
    assert re.search(r"numbers of spread \d", done.out)
    assert re.search(r"\d% of answers changed", done.out)
    saved = FixedShapeConfig.from_folder(folder)
    assert (saved.dtype, saved.optimized) == ("int8", True)
    assert saved.difference["model.onnx"] > 1e-3
    facts = saved.fidelity["model.onnx"]
    assert facts.keys() == {"spread", "answers_changed"}
    assert (facts["answers_changed"] * 16).is_integer()  # of sixteen rows, though the graph has two
    operators = [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
    assert operators.count("QAttention") == 2
    weights = sum(path.stat().st_size for path in folder.glob("model.onnx*"))
    assert weights < (tmp_path / "original" / "model.safetensors").stat().st_size / 3
    assert "% of answers changed." in model_card(folder, "acme/some", task=find_task("text-classification"))


def test_images_are_calibrated_with_what_their_processor_makes(tmp_path):
    random = np.random.default_rng(0)
    samples = [{"pixel_values": random.standard_normal((1, 3, zoo.PIXELS, zoo.PIXELS), np.float32)} for _ in range(6)]
    model = zoo.original("resnet-50")
    shapes = {"height": zoo.PIXELS, "width": zoo.PIXELS}
    options = {"shapes": shapes, "dtype": "int8", "calibration": samples}
    folder = export_model(model, tmp_path / "out", **options, progress=False)
    operators = [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
    assert operators.count("QuantizeLinear") >= operators.count("Conv") > 0
    saved = FixedShapeConfig.from_folder(folder)
    assert 0 < saved.difference["model.onnx"] < 10 * saved.fidelity["model.onnx"]["spread"]
    assert ORTModelForImageClassification.from_pretrained(folder)(**samples[0]).logits.shape == (1, 3)


def test_each_rung_is_calibrated_with_the_samples_that_it_holds(exported):
    pair = exported("text-classification")
    random = np.random.default_rng(0)
    samples = tuple({"input_ids": random.integers(5, 30000, (1, length))} for length in (6, 12))
    small = onnx.load(pair.folder / "model_2x8.onnx")
    config = pair.original.config.to_dict()
    made = changed_model(small, Change(True, "int8", samples, config))
    assert fused_operators(made)["MultiHeadAttention"] == 2
    operators = [node.op_type for node in made.graph.node]
    assert operators.count("QuantizeLinear") >= 4
    alone = changed_model(small, Change(True, "int8", samples[:1], config))
    assert made.SerializeToString(deterministic=True) == alone.SerializeToString(deterministic=True)
    with pytest.raises(ShapeMismatchError, match="No sample of calibration= fits the graph of batch_size 2"):
        changed_model(small, Change(True, "int8", samples[1:], config))


def test_without_a_change_the_graph_stays_itself(exported):
    graph = onnx.load(exported("text-classification").folder / "model.onnx")
    assert changed_model(graph, Change(False, None, None, {})) is graph


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "int4"}, 'dtype must be "fp16", "int8" or None, got \'int4\''),
        ({"calibration": []}, 'calibration= is for dtype="int8", got dtype=None'),
    ],
    ids=["dtype", "calibration"],
)
def test_what_cannot_be_is_refused_before_anything_is_written(options, message, tmp_path):
    with pytest.raises(InvalidArgumentError, match=message):
        export_model(tiny.original("bert", "text-classification"), tmp_path / "out", progress=False, **options)
    assert not (tmp_path / "out").exists()


def test_models_that_write_are_not_calibrated(tmp_path):
    with pytest.raises(InvalidArgumentError, match="is not for models that write, such as one for text-generation"):
        export_model(stock.original("gpt2"), tmp_path / "out", dtype="int8", calibration=[{}], progress=False)


def test_models_that_write_are_made_smaller_too(tmp_path):
    model = stock.original("gpt2")
    shapes = {"batch_size": 1, "context_length": 16, "prefill_length": 8}
    folder = export_model(model, tmp_path / "out", shapes=shapes, optimize=True, dtype="int8", progress=False)
    saved = json.loads((folder / "fixedshape_config.json").read_text())
    assert saved["fidelity"].keys() == saved["difference"].keys() == set(saved["graphs"])
    operators = [node.op_type for name in saved["graphs"] for node in onnx.load(folder / name).graph.node]
    assert "MatMulInteger" in operators
