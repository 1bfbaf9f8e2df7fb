"""`bench_model`: what is timed, and what its report says."""

from __future__ import annotations

import copy
import json
import shutil

import pytest

from optimum_fixedshape.bench import bench_model
from optimum_fixedshape.errors import ShapeMismatchError, UnsupportedTaskError
from optimum_fixedshape.machine import describe_machine

from . import stock
from .shell import run_here


@pytest.fixture(scope="module")
def pair(exported):
    return exported("text-classification")


def test_every_rung_is_timed_with_a_full_batch_and_with_one_row(pair):
    rounds = []
    report = bench_model(pair.folder, rounds=3, original=pair.original, progress=rounds.append)
    assert rounds == [1, 1, 1]
    told = [(line.graph, line.sizes["sequence_length"], line.rows, line.waste) for line in report.lines]
    assert told == [
        ("model.onnx", 16, 2, 0.0),
        ("model.onnx", 16, 1, 0.5),
        ("model_2x8.onnx", 8, 2, 0.0),
        ("model_2x8.onnx", 8, 1, 0.5),
    ]
    for line in report.lines:
        assert min(line.ours, line.bare, line.original) > 0
        assert line.to_bare == line.ours / line.bare
        assert line.to_original == line.original / line.ours
        assert line.rows_per_second == pytest.approx(1000 * line.rows / line.ours)


def test_a_report_says_where_it_was_made(pair):
    report = bench_model(pair.folder, rounds=1)
    facts = json.loads(json.dumps(report.to_dict()))
    assert facts["machine"] == describe_machine()
    assert facts["machine"].keys() >= {"cpu", "cores", "python", "onnxruntime", "transformers", "numpy"}
    assert facts["lines"][0]["rows_per_second"] == report.lines[0].rows_per_second
    assert facts["lines"][0]["original"] is None
    text = str(report)
    for part in ("medians of 1 rounds", facts["machine"]["cpu"], "model_2x8.onnx", "waste 50%"):
        assert part in text


def test_a_dynamic_graph_is_timed_at_the_sizes_asked_for(dynamic):
    report = bench_model(dynamic.folder, rounds=1, shapes={"batch_size": 3, "sequence_length": [4, 8]})
    assert {(line.sizes["sequence_length"], line.rows) for line in report.lines} == {(4, 3), (4, 1), (8, 3), (8, 1)}


def test_images_and_towers_are_timed(specimen):
    assert bench_model(specimen("vit").folder, rounds=1).lines[0].sizes["height"] == 32
    tower = bench_model(specimen("clip").folder, rounds=1, original=specimen("clip").original).lines[0]
    assert tower.sizes.keys() >= {"image_batch_size", "text_batch_size"}
    assert tower.original > 0


def test_models_that_write_are_refused():
    with pytest.raises(UnsupportedTaskError, match="a model that writes"):
        bench_model(stock.graphs("gpt2"))


def test_no_rounds_are_refused(pair):
    with pytest.raises(ShapeMismatchError, match="rounds must be 1 or more, got 0"):
        bench_model(pair.folder, rounds=0)


def test_the_command_prints_a_table_or_json(pair, tmp_path, capfd):
    pair.original.save_pretrained(tmp_path)
    done = run_here(capfd, "bench", pair.folder, "--rounds", 2, "--original", tmp_path)
    assert done.code == 0
    for text in ("medians of 2 rounds", "ours ÷ bare", "PyTorch ÷ ours", "batch_size 2, sequence_length 16", "50%"):
        assert text in done.out
    facts = json.loads(run_here(capfd, "bench", pair.folder, "--rounds", 1, "--json").out)
    assert [line["rows"] for line in facts["lines"]] == [2, 1, 2, 1]


def test_the_class_of_an_original_is_told_by_its_configuration(dynamic, tmp_path):
    original = copy.deepcopy(dynamic.original)
    original.config.output_hidden_states = False
    original.save_pretrained(tmp_path / "original")
    graph = shutil.copy(dynamic.folder / "model.onnx", tmp_path)
    sizes = {"batch_size": 1, "sequence_length": 4}
    (line,) = bench_model(graph, original=tmp_path / "original", rounds=1, shapes=sizes).lines
    assert line.original > 0
    (tmp_path / "original" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UnsupportedTaskError, match=r"cannot be told by its config\.json"):
        bench_model(graph, original=tmp_path / "original", rounds=1, shapes=sizes)
