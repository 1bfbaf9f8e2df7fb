"""The line ``files``: what lies beside a graph agrees with it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from optimum_fixedshape.checking.files import check_files
from optimum_fixedshape.checking.report import Line, Verdict, conclude
from optimum_fixedshape.checking.subject import find_subject
from optimum_fixedshape.hub import HubOptions
from optimum_fixedshape.sessions import SessionPool

from . import broken


def line_of(folder: Path) -> Line:
    """The line alone: no graph is run for it."""
    nothing = dict.fromkeys(("original", "roles", "names", "file_name"))
    subject = find_subject(folder, pool=SessionPool(), hub=HubOptions(), seed=0, **nothing)
    return conclude("files", check_files(subject))


@pytest.fixture
def text(exported, tmp_path) -> Path:
    return shutil.copytree(exported("text-classification").folder, tmp_path / "text")


@pytest.fixture
def picture(specimen, tmp_path) -> Path:
    return shutil.copytree(specimen("vit").folder, tmp_path / "picture")


def test_healthy_folders_pass(text, picture):
    (evidence,) = line_of(text).evidence
    assert evidence.startswith("read: config.json, fixedshape_config.json, tokenizer.json, tokenizer_config.json")
    assert {line_of(folder).verdict for folder in (text, picture)} == {Verdict.PASS}


def test_a_graph_alone_has_nothing_to_disagree_with(dynamic, tmp_path):
    shutil.copy(dynamic.folder / "model.onnx", tmp_path)
    assert line_of(tmp_path / "model.onnx").verdict is Verdict.SKIPPED


NAMES = {"0": "negative", "1": "neutral"}
CONFIGS = {
    "too few labels": (
        {"id2label": NAMES, "label2id": {"negative": 0, "neutral": 1}},
        "config.json has another number of labels than the graph.",
        "model.onnx: 2 labels, and logits for 3",
    ),
    "labels that do not agree": (
        {"label2id": {"negative": 2, "neutral": 1, "positive": 0}},
        "config.json names labels in two ways: id2label and label2id do not agree.",
        "",
    ),
    "a larger vocabulary": (
        {"vocab_size": 40000},
        "config.json says another size of the vocabulary than the graph has embeddings.",
        "model.onnx: vocab_size 40000, and the table has 30522 rows",
    ),
    "padding from nowhere": (
        {"pad_token_id": 30522},
        "The id that pads is not in the vocabulary.",
        "model.onnx: pad_token_id 30522, and 30522 rows",
    ),
}


@pytest.mark.parametrize(("changes", "summary", "evidence"), CONFIGS.values(), ids=CONFIGS)
def test_configs_of_other_models_are_caught(text, changes, summary, evidence):
    line = line_of(broken.change_json(text / "config.json", **changes))
    assert (line.verdict, line.summary) == (Verdict.FAIL, summary)
    assert evidence in line.evidence[0]


def test_tokenizers_with_more_ids_than_embeddings_are_caught(text):
    tokens = json.loads((text / "tokenizer.json").read_text(encoding="utf-8"))["added_tokens"]
    tokens = [*tokens, {**tokens[-1], "id": 30600, "content": "<new>"}]
    line = line_of(broken.change_json(text / "tokenizer.json", added_tokens=tokens))
    assert line.summary == "The tokenizer has more ids than the graph has embeddings."
    assert line.evidence == ("model.onnx: tokenizer.json has ids up to 30600, and the table 30522 rows",)
    assert line.facts == {"ids": 30601, "rows": 30522}


@pytest.mark.parametrize(
    ("file", "changes", "summary"),
    [
        (
            "tokenizer_config.json",
            {"model_max_length": 8},
            "The tokenizer cuts texts that the graph could hold: model_max_length is smaller than sequence_length.",
        ),
        (
            "config.json",
            {"max_position_embeddings": 12},
            "The graph is longer than the positions that config.json says the model has learned.",
        ),
    ],
)
def test_lengths_that_do_not_meet_are_a_warning(text, file, changes, summary):
    line = line_of(broken.change_json(text / file, **changes))
    assert (line.verdict, line.summary) == (Verdict.WARNING, summary)


@pytest.mark.parametrize(
    ("changes", "summary"),
    [
        (
            {"size": {"height": 64, "width": 32}},
            "The image processor makes images of another size than the graph takes.",
        ),
        ({"image_mean": [0.5]}, "The image processor has other channels than the graph."),
    ],
)
def test_image_processors_of_other_models_are_caught(picture, changes, summary):
    line = line_of(broken.change_json(picture / "preprocessor_config.json", **changes))
    assert (line.verdict, line.summary) == (Verdict.FAIL, summary)


def test_feature_extractors_of_other_models_are_caught(specimen, tmp_path):
    folder = shutil.copytree(specimen("ast").folder, tmp_path / "sound")
    assert line_of(folder).verdict is Verdict.PASS
    line = line_of(broken.change_json(folder / "preprocessor_config.json", num_mel_bins=128, max_length=1024))
    assert line.summary == (
        "The feature extractor makes spectrograms of other filters than the graph takes. "
        "The feature extractor makes spectrograms of another length than the graph takes."
    )


def test_damaged_json_is_passed_over(text):
    (text / "tokenizer.json").write_text("{", encoding="utf-8")
    (text / "tokenizer_config.json").write_text("[1]", encoding="utf-8")
    assert line_of(text).verdict is Verdict.PASS


def test_plain_vocabularies_are_counted_too(text):
    (text / "tokenizer.json").unlink()
    (text / "vocab.txt").write_text("word\n" * 30601, encoding="utf-8")
    assert line_of(text).evidence == ("model.onnx: vocab.txt has ids up to 30600, and the table 30522 rows",)


def test_images_that_are_not_resized_have_any_size(picture):
    folder = broken.change_json(picture / "preprocessor_config.json", do_resize=False, size={"height": 64, "width": 32})
    assert line_of(folder).verdict is Verdict.PASS


def test_configurations_of_other_sizes_are_caught(picture, exported, tmp_path):
    line = line_of(broken.change_json(picture / "config.json", num_channels=1))
    assert (line.summary, line.evidence[0]) == (
        "config.json says another size than the graph has.",
        "num_channels 1, and the graph has 3",
    )
    folder = shutil.copytree(exported("feature-extraction").folder, tmp_path / "states")
    line = line_of(broken.change_json(folder / "config.json", hidden_size=64))
    assert line.evidence == ("hidden size 64, and last_hidden_state has 32",)


def test_sampling_rates_that_differ_are_caught(specimen, tmp_path):
    folder = shutil.copytree(specimen("ast").folder, tmp_path / "sound")
    line = line_of(broken.change_json(folder / "config.json", sampling_rate=8000))
    assert line.summary == "The feature extractor and config.json name different sampling rates."
