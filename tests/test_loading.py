"""Loading and saving: every argument, every layout of files, every way to pin, and every way for files to be broken."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import transformers

from optimum_fixedshape import (
    AutoModelForSequenceClassification,
    ORTModelForCustomTasks,
    ORTModelForFeatureExtraction,
    ORTModelForSequenceClassification,
)
from optimum_fixedshape.config import CONFIG_NAME
from optimum_fixedshape.errors import GraphNotFoundError, ShapeMismatchError
from optimum_fixedshape.models.remote_code import CODE_NAME

from . import onnx_models
from .equality import assert_same

IDS = np.arange(5, 15).reshape(2, 5)


@pytest.fixture
def folder(exported, tmp_path):
    """A folder that a test may change."""
    return shutil.copytree(exported("text-classification").folder, tmp_path / "model")


@pytest.fixture(scope="module")
def answer(exported):
    with torch.no_grad():
        return exported("text-classification").original(torch.from_numpy(IDS)).logits


def assert_answers(model, answer):
    assert_same(model(torch.from_numpy(IDS)).logits, answer)


# Arguments


def test_folders_files_and_other_names_for_it(folder, answer):
    for load in (
        ORTModelForSequenceClassification.from_pretrained,
        ORTModelForSequenceClassification.from_model,
        AutoModelForSequenceClassification.from_pretrained,
    ):
        for source in (folder, str(folder), folder / "model.onnx", str(folder / "model.onnx")):
            model = load(source)
            assert type(model) is ORTModelForSequenceClassification
            assert_answers(model, answer)
            assert len(model.ladder) == (2 if str(source) == str(folder) else 1)
            assert (model.home, model.model_save_dir) == (folder, folder)
            assert model.config.id2label == {0: "negative", 1: "neutral", 2: "positive"}


def test_the_config_may_be_an_object_a_folder_or_a_file(folder, answer):
    bert = transformers.BertConfig.from_pretrained(folder, id2label={0: "a", 1: "b", 2: "c"})
    bert.save_pretrained(folder / "other")
    for config in (bert, folder / "other", str(folder / "other"), folder / "other" / "config.json"):
        model = ORTModelForSequenceClassification.from_pretrained(folder, config=config)
        assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
        assert_answers(model, answer)
    (folder / "config.json").unlink()
    bare = ORTModelForSequenceClassification.from_pretrained(folder / "model.onnx")
    assert (bare.config.num_labels, type(bare.config)) == (3, transformers.PretrainedConfig)
    assert_answers(bare, answer)


def test_code_in_the_folder_runs_only_if_it_is_trusted(folder, answer, tmp_path, monkeypatch):
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    facts = json.loads((folder / "config.json").read_text())
    facts |= {"model_type": "own", "auto_map": {"AutoConfig": "own_config.OwnConfig"}}
    (folder / "config.json").write_text(json.dumps(facts))
    code = 'import transformers\n\n\nclass OwnConfig(transformers.BertConfig):\n    model_type = "own"\n'
    (folder / "own_config.py").write_text(code)
    with pytest.raises(ValueError, match="trust_remote_code"):
        ORTModelForSequenceClassification.from_pretrained(folder, trust_remote_code=False)
    model = ORTModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    assert type(model.config).__name__ == "OwnConfig"
    assert_answers(model, answer)


def test_arguments_of_transformers_that_mean_nothing_to_a_graph(folder):
    load = ORTModelForSequenceClassification.from_pretrained
    load(folder, low_cpu_mem_usage=False, device_map=None, torch_dtype="auto", use_io_binding=False, revision="main")
    with pytest.warns(UserWarning, match="dtype=torch.float16 has no meaning for a graph and is ignored") as caught:
        load(folder, dtype=torch.float16)
    assert caught[0].filename == __file__
    with pytest.raises(TypeError, match="unexpected keyword argument 'shape'"):
        load(folder, shape={"batch_size": 1})


def test_values_of_the_config_may_be_changed(folder):
    config = transformers.AutoConfig.from_pretrained(folder)
    for model in (
        ORTModelForSequenceClassification.from_pretrained(folder, id2label={0: "a", 1: "b", 2: "c"}),
        ORTModelForSequenceClassification.from_pretrained(folder, config=config, id2label={0: "a", 1: "b", 2: "c"}),
    ):
        assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    assert config.id2label[0] == "negative", "the caller's own object stays as it is"


# Which graph


def test_the_graph_may_lie_where_transformers_js_puts_it(folder, answer):
    """``onnx/model.onnx`` below the config and the tokenizer, with or without a config of ours."""
    (folder / "onnx").mkdir()
    for name in ("model.onnx", "model_2x8.onnx", "model.onnx_data", CONFIG_NAME):
        (folder / name).rename(folder / "onnx" / name)
    for source in (folder, folder / "onnx" / "model.onnx"):
        model = ORTModelForSequenceClassification.from_pretrained(source)
        assert model.home == folder
        assert_answers(model, answer)
    assert len(ORTModelForSequenceClassification.from_pretrained(folder).ladder) == 2
    assert len(ORTModelForSequenceClassification.from_pretrained(folder, subfolder="onnx").ladder) == 2
    (folder / "onnx" / CONFIG_NAME).unlink()
    assert len(ORTModelForSequenceClassification.from_pretrained(folder).ladder) == 1


def test_a_graph_is_chosen_by_its_name(folder):
    load = ORTModelForSequenceClassification.from_pretrained
    assert load(folder, file_name="model_2x8.onnx").contract.sequence_length == 8
    assert len(load(folder, file_name="model.onnx").ladder) == 2
    with pytest.raises(
        GraphNotFoundError, match=r"no graph called x.onnx. Graphs there: model.onnx, model_2x8"
    ) as caught:
        load(folder, file_name="x.onnx")
    assert caught.value.found == ("model.onnx", "model_2x8.onnx")
    (folder / CONFIG_NAME).unlink()
    assert load(folder).contract.sequence_length == 16
    (folder / "model.onnx").rename(folder / "long.onnx")
    with pytest.raises(GraphNotFoundError, match="several graphs; choose one with file_name= or subfolder="):
        load(folder)
    (folder / "model_2x8.onnx").unlink()
    assert load(folder).path == folder / "long.onnx"


def test_two_subfolders_are_not_guessed_between(folder, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(folder, tmp_path / "both" / name)
    load = ORTModelForSequenceClassification.from_pretrained
    with pytest.raises(GraphNotFoundError, match=r"several graphs.*a/model\.onnx.*b/model\.onnx"):
        load(tmp_path / "both")
    assert load(tmp_path / "both", subfolder="b").home == tmp_path / "both" / "b"


@pytest.mark.parametrize("source", ["empty", "not/there", "no such id!"])
def test_nothing_there(tmp_path, monkeypatch, source):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(GraphNotFoundError, match=source) as caught:
        ORTModelForSequenceClassification.from_pretrained(source)
    assert isinstance(caught.value, FileNotFoundError)


# Pinning


def test_a_dynamic_graph_becomes_a_ladder(dynamic, tmp_path):
    shapes = {"batch_size": 1, "sequence_length": [12, 4, 12]}
    model = ORTModelForFeatureExtraction.from_pretrained(dynamic.folder, shapes=shapes)
    assert [rung.sizes for rung in model.ladder.rungs] == [{"batch_size": 1, "sequence_length": n} for n in (12, 4)]
    model(IDS), model(IDS[:, :3])
    assert [stats.runs for stats in model.stats] == [2, 2]
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / CONFIG_NAME).read_text())
    assert saved["shapes"] == {"batch_size": 1, "sequence_length": [12, 4]}
    assert saved["task"] == "feature-extraction"
    again = ORTModelForFeatureExtraction.from_pretrained(tmp_path)
    assert [rung.sizes for rung in again.ladder.rungs] == [rung.sizes for rung in model.ladder.rungs]
    assert_same(again(IDS).to_tuple(), model(IDS).to_tuple(), tolerance=0.0)
    other = ORTModelForFeatureExtraction.from_pretrained(tmp_path, shapes={"sequence_length": 6})
    assert other.contract.sizes == {"batch_size": None, "sequence_length": 6}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"sequence_length": 32}, "sequence_length is baked into the graph as .* and cannot become 32"),
        ({"sequence_length": [8, 32]}, "baked into the graph"),
        ({"height": 32}, "has no axis 'height' to pin. It has: batch_size, sequence_length"),
        ({"sequence_length": 0}, "sequence_length must be a size of 1 or more, or a list of such sizes, got 0"),
        ({"batch_size": [2, -1]}, r"batch_size must be .* got \[2, -1\]"),
        ({"batch_size": []}, r"batch_size must be .* got \[\]"),
        ({"batch_size": "two"}, "batch_size must be .* got 'two'"),
    ],
)
def test_shapes_that_contradict_the_graph(folder, shapes, message):
    with pytest.raises(ShapeMismatchError, match=message):
        ORTModelForSequenceClassification.from_pretrained(folder, shapes=shapes)


def test_shapes_that_are_baked_in_may_be_said(folder):
    model = ORTModelForSequenceClassification.from_pretrained(folder, shapes={"batch_size": 2})
    assert len(model.ladder) == 2


def test_roles_are_said_and_saved(tmp_path):
    """Time first, as no name tells: the caller says so, and the saved folder remembers."""
    shape = [4, 2]
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    values = [onnx_models.value(name, onnx.TensorProto.INT64, shape) for name in ("x", "y")]
    onnx.save(onnx_models.build([node], values[:1], values[1:]), tmp_path / "model.onnx")
    roles = dict.fromkeys(("x", "y"), ("sequence_length", "batch_size"))
    model = ORTModelForCustomTasks.from_pretrained(tmp_path, roles=roles)
    three_tokens_of_five_rows = np.arange(15).reshape(3, 5)
    assert model(x=three_tokens_of_five_rows)["y"].tolist() == three_tokens_of_five_rows.tolist()
    model.save_pretrained(tmp_path / "saved")
    again = ORTModelForCustomTasks.from_pretrained(tmp_path / "saved")
    assert again.contract.sizes == {"sequence_length": 4, "batch_size": 2}
    with pytest.raises(ShapeMismatchError, match="names 1 axes"):
        ORTModelForCustomTasks.from_pretrained(tmp_path, roles={"x": ["batch_size"]})
    with pytest.raises(ShapeMismatchError, match="roles= names z, and the graph has x, y"):
        ORTModelForCustomTasks.from_pretrained(tmp_path, roles={"z": ["batch_size"]})


# Saving


def test_what_is_saved_loads_again(folder, answer, tmp_path):
    model = ORTModelForSequenceClassification.from_pretrained(folder)
    model.save_pretrained(tmp_path / "a" / "b")
    names = {path.name for path in (tmp_path / "a" / "b").iterdir()}
    assert names == {"model.onnx", "model_2x8.onnx", "model.onnx_data", "config.json", CONFIG_NAME, CODE_NAME}
    again = ORTModelForSequenceClassification.from_pretrained(tmp_path / "a" / "b")
    assert again.fixed_shape_config == model.fixed_shape_config
    assert_answers(again, answer)
    again.save_pretrained(tmp_path / "a" / "b")
    assert_answers(ORTModelForSequenceClassification.from_pretrained(tmp_path / "a" / "b"), answer)
    with pytest.raises(FileExistsError, match="is a file, and a folder is needed"):
        model.save_pretrained(folder / "model.onnx")


def test_one_graph_is_saved_under_the_name_that_optimum_loads(folder, tmp_path):
    (folder / "model_2x8.onnx").rename(folder / "short.onnx")
    model = ORTModelForSequenceClassification.from_pretrained(folder / "short.onnx")
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.onnx").read_bytes() == (folder / "short.onnx").read_bytes()
    assert ORTModelForSequenceClassification.from_pretrained(tmp_path).contract.sequence_length == 8


def test_a_session_of_ones_own(folder, answer, tmp_path):
    config = transformers.AutoConfig.from_pretrained(folder)
    session = ort.InferenceSession(folder / "model.onnx")
    model = ORTModelForSequenceClassification(config=config, session=session, use_io_binding=False)
    assert model.session is model.model is session
    assert (model.path, model.home, model.model_name) == (folder / "model.onnx", folder, "model.onnx")
    assert_answers(model, answer)
    model.save_pretrained(tmp_path)
    assert_answers(ORTModelForSequenceClassification.from_pretrained(tmp_path), answer)
    graph = onnx_models.embedder("b", "s")
    from_bytes = ORTModelForCustomTasks(config=config, session=ort.InferenceSession(graph.SerializeToString()))
    assert from_bytes(IDS).token_embeddings.shape == (2, 5, 4)
    with pytest.raises(GraphNotFoundError, match="no file"):
        from_bytes.save_pretrained(tmp_path / "bytes")
