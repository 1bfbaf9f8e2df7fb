"""From a PyTorch model to a folder: which shapes, which task, what is written, and exports on the fly."""

from __future__ import annotations

import copy
import gc
import json
import logging
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from optimum_fixedshape import ORTModelForFeatureExtraction, ORTModelForTokenClassification, export_model
from optimum_fixedshape.config import CONFIG_NAME
from optimum_fixedshape.errors import FixedShapeError, ShapeMismatchError, UnsupportedTaskError
from optimum_fixedshape.export.defaults import positions_of
from optimum_fixedshape.export.shapes import combinations_of, shapes_up_to
from optimum_fixedshape.tasks import find_task, task_of_architectures

from . import tiny
from .equality import assert_same

LADDER = {"batch_size": 2, "sequence_length": [8, 16]}
BERT = transformers.BertConfig(max_position_embeddings=512)


# Shapes


@pytest.mark.parametrize(
    ("task", "shapes", "expected"),
    [
        ("fill-mask", {"sequence_length": 8}, [(1, 8)]),
        ("fill-mask", {"sequence_length": [8, 16, 8]}, [(1, 16), (1, 8)]),
        ("fill-mask", {"sequence_length": (16, 8), "batch_size": [1, 4]}, [(4, 16), (1, 16), (4, 8), (1, 8)]),
        ("multiple-choice", {"sequence_length": 8}, [(1, 4, 8)]),
        ("multiple-choice", {"sequence_length": 8, "num_choices": [2, 3], "batch_size": 5}, [(5, 3, 8), (5, 2, 8)]),
        ("fill-mask", None, [(8, 128), (8, 64), (8, 32), (8, 16)]),
    ],
)
def test_combinations_largest_first(task, shapes, expected):
    assert [tuple(each.values()) for each in combinations_of(shapes, find_task(task), BERT)] == expected


def test_the_default_is_no_longer_than_the_model():
    for positions, expected in ((64, [64, 32, 16]), (10, [10])):
        config = transformers.BertConfig(max_position_embeddings=positions)
        found = combinations_of(None, find_task("fill-mask"), config)
        assert [each["sequence_length"] for each in found] == expected


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"length": 8}, "shapes= knows batch_size, sequence_length for fill-mask, got length"),
        ({"sequence_length": 8, "num_choices": 2}, "knows batch_size, sequence_length for fill-mask, got num_choices"),
        ({"batch_size": 8}, "shapes= needs sequence_length, an int or a list of ints"),
        ({"sequence_length": 0}, "sequence_length must be a size of 1 or more, or a list of such sizes, got 0"),
        ({"sequence_length": []}, "sequence_length must be a size"),
        ({"sequence_length": True}, "sequence_length must be a size of 1 or more, .* got True"),
        ({"sequence_length": 8, "batch_size": "2"}, "batch_size must be a size of 1 or more, .* got '2'"),
        (
            {"sequence_length": [8, 513]},
            r"sequence_length must be 1 to 512, the positions that the model has, got \[513\]",
        ),
    ],
)
def test_shapes_that_cannot_be(shapes, message):
    with pytest.raises(ShapeMismatchError, match=message):
        combinations_of(shapes, find_task("fill-mask"), BERT)


@pytest.mark.parametrize("architecture", sorted(tiny.ARCHITECTURES))
def test_positions_are_counted_as_the_model_counts_them(architecture):
    """One token more than `positions_of` says, and PyTorch itself fails; where it says None, it does not."""
    model = tiny.original(architecture, "text-classification")
    most = positions_of(model.config)

    def run(length):
        with torch.no_grad():
            return model(torch.full((1, length), 7)).logits

    assert torch.isfinite(run(most or 600)).all()
    rotary = architecture == "modernbert"  # has a limit that it was trained for, and computes beyond it
    if most is not None and not rotary:
        with pytest.raises((IndexError, RuntimeError)):
            run(most + 1)


@pytest.mark.parametrize(
    ("config", "lengths"),
    [
        (BERT, [16, 64, 192, 512]),
        (transformers.BertConfig(max_position_embeddings=100), [16, 64, 100]),
        (transformers.RobertaConfig(max_position_embeddings=514, pad_token_id=1), [16, 64, 192, 512]),
        (transformers.ModernBertConfig(), [16, 64, 192, 512, 2048, 8192]),
        (transformers.T5Config(), [16, 64, 192, 512]),
        (transformers.BertConfig(max_position_embeddings=32768), [16, 64, 192, 512, 2048, 8192]),
    ],
)
def test_an_export_on_the_fly_holds_what_the_model_holds(config, lengths):
    assert shapes_up_to(config) == {"batch_size": 1, "sequence_length": lengths}


# Tasks


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("BertForSequenceClassification", "text-classification"),
        ("BertForMultipleChoice", "multiple-choice"),
        ("DistilBertModel", "feature-extraction"),
        ("GPT2LMHeadModel", "text-generation"),
        ("BartForConditionalGeneration", "text2text-generation"),
        ("VisionEncoderDecoderModel", "image-to-text"),
        ("BertForPreTraining", None),
        ("T5ForConditionalGeneration", "text2text-generation"),
        ("AcmeForTokenClassification", "token-classification"),
    ],
)
def test_the_task_of_a_class(architecture, task):
    found = task_of_architectures([architecture])
    assert (found.name if found else None) == task


def test_a_translation_may_name_its_languages():
    assert find_task("translation_en_to_fr") == find_task("translation")


def test_tasks_that_do_not_fit(tmp_path):
    head, encoder = tiny.original("bert", "token-classification"), tiny.original("bert", "feature-extraction")
    with pytest.raises(UnsupportedTaskError, match=r"Token.* is a model for token-classification; for fill-mask"):
        export_model(head, tmp_path, task="fill-mask", shapes=LADDER)
    with pytest.raises(UnsupportedTaskError, match=r"The task 'text-to-audio' is not one of: .*ner, "):
        export_model(head, tmp_path, task="text-to-audio")
    own = type("Own", (transformers.BertModel,), {})(encoder.config)
    with pytest.raises(UnsupportedTaskError, match=r"The task of Own cannot be told. Pass task=."):
        export_model(own, tmp_path)
    with pytest.raises(UnsupportedTaskError, match=r"Own gives last_hidden_state, pooler_output, and .* needs logits"):
        export_model(own, tmp_path, task="text-classification", shapes=LADDER, progress=False)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UnsupportedTaskError):
        export_model(head, tmp_path / "new", task="fill-mask", shapes=LADDER)
    with pytest.raises(NotADirectoryError, match=r"test_export.py is a file, .* For a graph there is pin_shapes"):
        export_model(__file__, tmp_path / "new")
    assert not (tmp_path / "new").exists()


# What is written


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with PyTorch weights, as training leaves it."""
    folder = tmp_path_factory.mktemp("trained")
    for saved in (tiny.original("bert", "token-classification"), tiny.tokenizer("wordpiece")):
        saved.save_pretrained(folder)
    return folder


def contents(folder: Path):
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_a_folder_from_weights_on_disk(trained, tmp_path, capfd):
    """Task and tokenizer are found; the rungs share one file of weights; every graph was compared with the original."""
    folder = export_model(str(trained), tmp_path / "deep" / "er", shapes=LADDER, progress=False)
    assert folder == tmp_path / "deep" / "er"
    assert "Exporting" not in capfd.readouterr().err
    sizes = contents(folder)
    assert {"model.onnx", "model_2x8.onnx", "model.onnx_data", "config.json", CONFIG_NAME} <= sizes.keys()
    assert sizes["model.onnx_data"] == pytest.approx(contents(trained)["model.safetensors"], rel=0.05)
    saved = json.loads((folder / CONFIG_NAME).read_text())
    difference = saved.pop("difference")
    assert {name: fact for name, fact in saved.items() if fact} == {
        "graphs": ["model.onnx", "model_2x8.onnx"],
        "task": "token-classification",
    }
    assert difference.keys() == {"model.onnx", "model_2x8.onnx"}
    assert 0 < max(difference.values()) < 1e-5
    config = transformers.AutoConfig.from_pretrained(folder)
    assert config.architectures == ["BertForTokenClassification"]
    assert config.id2label[1] == "B-PER"
    words = transformers.AutoTokenizer.from_pretrained(folder)
    assert words("A boat.")["input_ids"] == tiny.tokenizer("wordpiece")("A boat.")["input_ids"]


def test_an_earlier_export_is_replaced(trained, tmp_path, capfd):
    """Graphs of the earlier export go, whose weights would be gone; files that are not ours stay."""
    (tmp_path / "notes.txt").touch()
    (tmp_path / "other.onnx").touch()
    (tmp_path / CONFIG_NAME).write_text('{"graphs": ["model.onnx", "model_9x9.onnx"]}')
    (tmp_path / "model_9x9.onnx").touch()
    model = tiny.original("bert", "feature-extraction")
    export_model(model, tmp_path, task="feature-extraction", shapes={"sequence_length": 8})
    assert "Exporting BertModel" in capfd.readouterr().err
    assert {"notes.txt", "other.onnx", "model.onnx"} < contents(tmp_path).keys()
    assert "model_9x9.onnx" not in contents(tmp_path)
    loaded = ORTModelForFeatureExtraction.from_pretrained(tmp_path)
    assert loaded.contract.sequence_length == 8
    with pytest.raises(FileExistsError, match=r"notes.txt is a file, and a folder is needed to save to"):
        export_model(str(trained), tmp_path / "notes.txt")


def test_the_model_comes_back_as_it_was(tmp_path):
    model = copy.deepcopy(tiny.original("bert", "text-classification")).train()
    model.bert.embeddings.eval()
    modes = {name: module.training for name, module in model.named_modules()}
    config = model.config.to_dict()
    with pytest.raises(FixedShapeError):
        export_model(model, tmp_path, task="question-answering")
    export_model(model, tmp_path, shapes={"sequence_length": 8}, progress=False)
    assert {name: module.training for name, module in model.named_modules()} == modes
    assert model.config.to_dict() == config


def test_the_missing_extra_is_named():
    code = """
        import sys
        sys.modules["onnxscript"] = None
        import optimum_fixedshape
        try:
            optimum_fixedshape.export_model
        except ImportError as error:
            print(type(error).__name__, error)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("MissingExtraError")
    assert 'pip install "optimum-fixedshape[export]"' in done.stdout


# On the fly


def test_a_folder_of_weights_loads_and_leaves_nothing_behind(trained, caplog):
    """The graphs live as long as any model that reads them, copies included."""
    with caplog.at_level(logging.INFO, "optimum_fixedshape"):
        model = ORTModelForTokenClassification.from_pretrained(trained, shapes=LADDER)
    assert [record.getMessage() for record in caplog.records] == [
        f"Exporting {trained} on the fly, for batch_size 2, sequence_length [8, 16]. "
        "This takes a while: keep the graphs with save_pretrained() to do it once."
    ]
    ids = np.arange(5, 20).reshape(3, 5)
    with torch.no_grad():
        theirs = tiny.original("bert", "token-classification")(torch.from_numpy(ids)).logits
    home = model.home
    assert transformers.AutoTokenizer.from_pretrained(home).vocab_size > 0
    for make_copy in (copy.copy, copy.deepcopy):
        model = make_copy(model)
        gc.collect()
        assert_same(model(torch.from_numpy(ids)).logits, theirs)
    del model
    gc.collect()
    assert not home.exists()


def test_export_wins_over_a_graph_that_is_there(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "sub")
    (tmp_path / "sub" / "model.onnx").write_bytes(b"not a graph")
    model = ORTModelForTokenClassification.from_pretrained(
        tmp_path, subfolder="sub", export=True, shapes={"sequence_length": 8}
    )
    assert model.contract.sizes == {"batch_size": 1, "sequence_length": 8}
