"""Folders, configurations and graphs that few have: each is refused in words, or used as far as it goes."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
import transformers
from onnx import TensorProto

from optimum_fixedshape import (
    ORTModelForCausalLM,
    bench_model,
    export_model,
    pin_shapes,
    read_contract,
    write_config,
)
from optimum_fixedshape.card import model_card
from optimum_fixedshape.config import CONFIG_NAME, FixedShapeConfig
from optimum_fixedshape.errors import ExistingFilesError, GraphNotFoundError, InvalidModelError
from optimum_fixedshape.export.defaults import image_size
from optimum_fixedshape.export.examples import axes_of
from optimum_fixedshape.roles import MEL, MEL_FRAMES
from optimum_fixedshape.tasks import find_task

from . import broken, stock, tiny
from .onnx_models import build, embedder, value

# Bare graphs


def test_a_folder_without_a_graph_cannot_be_completed(tmp_path):
    with pytest.raises(GraphNotFoundError):
        write_config(tmp_path)


def test_a_folder_of_weights_alone_cannot_be_completed(exported, tmp_path):
    exported("text-classification").original.save_pretrained(tmp_path)
    with pytest.raises(GraphNotFoundError, match="Graphs there: none"):
        write_config(tmp_path)


def test_files_that_are_no_json_are_not_overwritten(specimen, tmp_path):
    shutil.copytree(specimen("vit").folder, tmp_path / "source")
    graph = shutil.copy(tmp_path / "source" / "model.onnx", tmp_path)
    for weights in (tmp_path / "source").glob("*.onnx_data"):
        shutil.copy(weights, tmp_path)
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ExistingFilesError, match=r"preprocessor_config\.json"):
        write_config(graph, source=tmp_path / "source")
    assert (tmp_path / "preprocessor_config.json").read_text() == "{"


@pytest.mark.parametrize("held", ["{", "[1]"])
@pytest.mark.filterwarnings("ignore:A graph does not tell what its tokenizer is")
def test_a_damaged_configuration_of_a_source_is_named(held, tmp_path):
    onnx.save(embedder(2, 8), tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(held)
    with pytest.raises(InvalidModelError, match=r"config\.json is not a valid configuration"):
        write_config(tmp_path / "model.onnx", task="feature-extraction")


@pytest.mark.filterwarnings("ignore:A graph does not tell what its tokenizer is")
def test_a_graph_is_written_under_standard_names(tmp_path):
    model = embedder(2, 8)
    for each in model.graph.node:
        each.input[:] = ["data_0" if name == "input_ids" else name for name in each.input]
    model.graph.input[0].name = "data_0"
    onnx.save(model, tmp_path / "found.onnx")
    folder = write_config(
        tmp_path / "found.onnx",
        output=tmp_path / "out",
        task="feature-extraction",
        input_names={"data_0": "input_ids"},
    )
    (path,) = folder.glob("*.onnx")
    assert [each.name for each in onnx.load(path).graph.input] == ["input_ids", "attention_mask"]


# Configurations


@pytest.mark.parametrize(
    ("field", "wrong", "message"),
    [
        ("pipeline", ["top_k"], "pipeline must be arguments by name"),
        ("fidelity", {"answers": {"model.onnx": "all"}}, "fidelity must be numbers by name and graph"),
    ],
)
def test_configurations_of_other_types_are_refused(field, wrong, message):
    with pytest.raises(ValueError, match=message):
        FixedShapeConfig(("model.onnx",), **{field: wrong})


def test_the_card_says_to_which_sizes_open_axes_are_pinned(tmp_path):
    onnx.save(embedder("batch_size", 8), tmp_path / "model.onnx")
    FixedShapeConfig(("model.onnx",), shapes={"batch_size": 2}).save_pretrained(tmp_path)
    card = model_card(tmp_path, "my-org/some", task=find_task("feature-extraction"))
    assert "Open sizes are fixed when they are loaded, to `batch_size` 2." in card


# Caches


@pytest.mark.parametrize(
    ("pasts", "presents", "message"),
    [
        (["past_key_values.0.key"], [], "takes the cache past_key_values.0.key and gives none back"),
        (
            ["past_key_values.0.key", "past_key_values.0.decoder.key"],
            ["present.0.key"],
            "names two tensors for one place of its cache",
        ),
    ],
)
def test_caches_that_are_not_whole_are_refused(pasts, presents, message, tmp_path):
    shape = [1, 2, "past_sequence_length", 4]
    onnx.save(
        build(
            [onnx.helper.make_node("Neg", [pasts[0]], [name]) for name in [*presents, "logits"]],
            [value(name, TensorProto.FLOAT, shape) for name in pasts],
            [value(name, TensorProto.FLOAT, shape) for name in [*presents, "logits"]],
        ),
        tmp_path / "model.onnx",
    )
    with pytest.raises(InvalidModelError, match=message):
        _ = read_contract(tmp_path / "model.onnx").cache


def test_errors_of_a_step_that_say_nothing_of_positions_are_as_they_were(tmp_path):
    edit = broken.output(
        "logits",
        onnx.helper.make_node("Reshape", ["logits" + broken.HONEST, "broken/shape"], ["logits"]),
        shape=np.array([7, 11, 13]),
    )
    model = ORTModelForCausalLM.from_pretrained(broken.folder(stock.graphs("gpt2"), tmp_path / "broken", edit))
    with pytest.raises(Exception, match="Reshape"):
        model(input_ids=np.array([[1, 2, 3]]))


# Export and pinning


def test_sizes_of_images_may_be_two_numbers():
    assert image_size(transformers.ViTConfig(image_size=[8, 12]), None) == (8, 12)


def test_some_models_take_frames_before_filters():
    config = transformers.Wav2Vec2BertConfig(
        vocab_size=16, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    axes = axes_of(transformers.Wav2Vec2BertForCTC(config), find_task("automatic-speech-recognition"))
    assert axes["input_features"][1:] == (MEL_FRAMES, MEL)


def test_a_damaged_configuration_is_written_again(tmp_path):
    (tmp_path / CONFIG_NAME).write_text("{")
    model, words = tiny.original("bert", "text-classification"), tiny.tokenizer("wordpiece")
    shapes = {"batch_size": 1, "sequence_length": 4}
    export_model(model, tmp_path, task="text-classification", shapes=shapes, processor=words, progress=False)
    assert FixedShapeConfig.from_folder(tmp_path).graphs == ("model.onnx",)
    (tmp_path / CONFIG_NAME).write_text("{")
    onnx.save(embedder("batch_size", 8), tmp_path.parent / "open.onnx")
    pin_shapes(tmp_path.parent / "open.onnx", tmp_path, shapes={"batch_size": 2}, progress=False)
    assert FixedShapeConfig.from_folder(tmp_path).graphs == ("model.onnx",)


def test_a_damaged_configuration_of_the_original_is_named(tmp_path):
    (tmp_path / "found").mkdir()
    onnx.save(embedder("batch_size", 8), tmp_path / "found" / "model.onnx")
    (tmp_path / "found" / "config.json").write_text("{")
    with pytest.raises(InvalidModelError, match="is not a valid configuration"):
        pin_shapes(tmp_path / "found", tmp_path / "out", shapes={"batch_size": 2}, progress=False)


def test_long_graphs_are_not_measured(tmp_path):
    onnx.save(embedder("batch_size", "sequence_length"), tmp_path / "open.onnx")
    shapes = {"batch_size": 1, "sequence_length": 4096}
    folder = pin_shapes(tmp_path / "open.onnx", tmp_path / "out", shapes=shapes, progress=False)
    assert FixedShapeConfig.from_folder(folder).difference == {}
    assert read_contract(folder / "model.onnx").sizes == shapes


def test_a_batch_of_one_is_timed_once(tmp_path):
    onnx.save(embedder(1, 8), tmp_path / "model.onnx")
    assert [line.rows for line in bench_model(tmp_path / "model.onnx", rounds=1).lines] == [1]
