"""`pin`, `check` and `init`: what they print, and what they leave behind."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from optimum_fixedshape import AutoImageProcessor, ORTModelForImageClassification, read_contract
from optimum_fixedshape.cli.changes import read_samples
from optimum_fixedshape.cli.init import read_labels
from optimum_fixedshape.errors import InvalidInputError

from . import pictures
from .shell import run_here

CLASSIFIER = """
<ir_version: 9, opset_import: ["" : 17]>
dynamic (float[batch_size, 3, height, width] data_0) => (float[batch_size, 3] prob)
{ mean = GlobalAveragePool (data_0) prob = Flatten <axis = 1> (mean) }
"""


@pytest.fixture
def graph(tmp_path) -> Path:
    path = tmp_path / "dynamic.onnx"
    onnx.save(onnx.parser.parse_model(CLASSIFIER), path)
    return path


SHAPES = [part for size in ("batch_size=2", "height=32", "width=32") for part in ("--shape", size)]


def test_pin_writes_graphs_without_a_dynamic_size_and_shows_them(graph, tmp_path, capfd):
    before = graph.read_bytes()
    name = ["--input-name", "data_0=pixel_values"]
    done = run_here(capfd, "pin", graph, tmp_path / "out", *SHAPES, *name)
    assert done.code == 0, done.err
    assert "batch_size 2, num_channels 3, height 32, width 32" in done.out
    assert read_contract(tmp_path / "out" / "model.onnx").is_fixed
    assert graph.read_bytes() == before


def test_pin_makes_smaller_graphs_and_says_how_far_they_are_off(dynamic, tmp_path, capfd):
    shapes = ["--shape", "batch_size=2", "--shape", "sequence_length=8,16"]
    done = run_here(capfd, "pin", dynamic.folder, tmp_path, *shapes, "--dtype", "int8", "--json")
    assert done.code == 0, done.err
    facts = json.loads(done.out)
    assert sorted(each["sizes"]["sequence_length"] for each in facts["graphs"]) == [8, 16]
    assert all(each["difference"] > 0 for each in facts["graphs"])


def test_pin_makes_a_fixed_graph_smaller_without_sizes(exported, tmp_path, capfd):
    done = run_here(capfd, "pin", exported("text-classification").folder, tmp_path / "out", "--dtype", "int8", "--json")
    assert done.code == 0, done.err
    assert all(each["difference"] > 0 for each in json.loads(done.out)["graphs"])


def test_pin_refuses_a_size_that_is_left_open(graph, tmp_path, capfd):
    done = run_here(capfd, "pin", graph, tmp_path / "out", "--shape", "batch_size=2")
    assert (done.code, done.out) == (3, "")
    assert "height" in done.err


def test_samples_are_arrays_of_files_and_objects_of_lines(tmp_path):
    np.savez(tmp_path / "one.npz", input_ids=np.array([[1, 2]]))
    (tmp_path / "two.jsonl").write_text('{"input_ids": [[3]]}\n{"input_ids": [[4]]}\n')
    found = list(read_samples([tmp_path / "one.npz", tmp_path / "two.jsonl"]))
    assert [sample["input_ids"].tolist() for sample in found] == [[[1, 2]], [[3]], [[4]]]
    np.savez(tmp_path / "object.npz", input_ids=np.array([None], dtype=object))
    (tmp_path / "list.jsonl").write_text("[1]\n")
    for wrong in ("object.npz", "list.jsonl"):
        with pytest.raises(InvalidInputError, match=wrong):
            list(read_samples([tmp_path / wrong]))


def test_check_exits_with_0_where_all_is_well_and_shows_each_line(exported, capfd):
    folder = exported("text-classification").folder
    done = run_here(capfd, "check", folder)
    assert (done.code, done.err) == (0, "")
    for text in ("slots", "padding", "Every slot gives the same answer for the same row."):
        assert text in done.out


def test_check_exits_with_1_where_a_line_fails_and_names_it_in_json(exported, tmp_path, capfd):
    shutil.copytree(exported("text-classification").folder, tmp_path / "broken")
    config = json.loads((tmp_path / "broken" / "config.json").read_text())
    config["id2label"] = {"0": "the only one"}
    config["label2id"] = {"the only one": 0}
    (tmp_path / "broken" / "config.json").write_text(json.dumps(config))
    done = run_here(capfd, "check", tmp_path / "broken", "--json")
    report = json.loads(done.out)
    assert (done.code, report["exit_code"], report["verdict"]) == (1, 1, "fail")
    assert [line["name"] for line in report["lines"] if line["verdict"] == "fail"] == ["files"]


def test_init_makes_a_folder_that_loads(graph, tmp_path, capfd):
    named = ["--input-name", "data_0=pixel_values", "--labels", "red, green, blue"]
    done = run_here(capfd, "init", graph, "--output", tmp_path / "out", "--task", "image-classification", *named)
    assert done.code == 0, done.err
    for name in ("config.json", "preprocessor_config.json", "model.onnx"):
        assert name in done.out
    assert done.err == "" or done.err.startswith("warning: ")
    model = ORTModelForImageClassification.from_pretrained(tmp_path / "out")
    assert model.config.id2label == {0: "red", 1: "green", 2: "blue"}
    inputs = AutoImageProcessor.from_model(model)(pictures.picture(), return_tensors="np")
    assert model(**inputs).logits.shape == (1, 3)


def test_init_as_json_lists_the_files(graph, tmp_path, capfd):
    args = ["--output", tmp_path / "out", "--task", "image-classification", "--json"]
    facts = json.loads(run_here(capfd, "init", graph, *args).out)
    assert facts["folder"] == str(tmp_path / "out")
    assert {"config.json", "model.onnx"} <= set(facts["files"])


def test_labels_are_a_file_or_spelled_out(tmp_path):
    (tmp_path / "labels.txt").write_text("a\nb\n")
    assert read_labels(str(tmp_path / "labels.txt")) == tmp_path / "labels.txt"
    assert read_labels("a, b c") == ["a", "b c"]
