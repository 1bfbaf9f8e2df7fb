"""`AutoModelForONNX`: the right class and the right names, by what is saved, by the configuration, by the graph."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import transformers

from optimum_fixedshape import AutoModelForONNX, pipeline, write_config
from optimum_fixedshape.config import CONFIG_NAME, FixedShapeConfig
from optimum_fixedshape.errors import GraphNotFoundError, ShapeMismatchError, UnsupportedTaskError
from optimum_fixedshape.graph.naming import rename_tensors

from . import onnx_models, stock, zoo
from .equality import assert_same
from .graphs import ONNX_MODELS, ORT_MODELS
from .hub import LocalHub
from .pictures import picture

LIGHT = sorted((ONNX_MODELS / "light").glob("*.onnx"))
IDS = np.arange(5, 15).reshape(2, 5)


def bare(source: Path, folder: Path, names: dict[str, str] | None = None, name: str = "graph.onnx") -> Path:
    """Copies one graph, with its weights inside and under other names, to a folder where there is nothing else."""
    model = onnx.load(source)
    rename_tensors(model, names or {})
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(model, folder / name)
    return folder / name


# What tells the class


@pytest.mark.parametrize("source", ["folder", "file", "text"])
def test_what_is_saved_with_the_graphs_tells_the_class(exported, source):
    pair = exported("token-classification")
    place = {"folder": pair.folder, "file": pair.folder / "model.onnx", "text": str(pair.folder)}[source]
    model = AutoModelForONNX.from_pretrained(place)
    assert type(model).__name__ == "ORTModelForTokenClassification"
    assert (model.detection, model.fixed_shape_config.task) == (None, "token-classification")
    assert len(model.ladder) == (1 if source == "file" else 2)
    with torch.no_grad():
        assert_same(model(torch.from_numpy(IDS)).logits, pair.original(torch.from_numpy(IDS)).logits)


@pytest.mark.parametrize(("name", "model_class"), [("gpt2", "ORTModelForCausalLM"), ("whisper", "ORTModelForWhisper")])
def test_the_architecture_tells_the_class_of_a_stock_export(name, model_class):
    model = AutoModelForONNX.from_pretrained(stock.graphs(name))
    assert (type(model).__name__, model.detection) == (model_class, None)


@pytest.mark.parametrize("task", ["fill-mask", "token-classification"])
def test_the_architecture_tells_the_class_where_a_task_is_not_saved(exported, tmp_path, task):
    pair = exported(task)
    graph = bare(pair.folder / "model.onnx", tmp_path)
    shutil.copy(pair.folder / "config.json", tmp_path)
    model = AutoModelForONNX.from_pretrained(tmp_path)
    assert type(model) is type(AutoModelForONNX.from_pretrained(pair.folder))
    assert type(AutoModelForONNX.from_pretrained(graph)) is type(model)
    (tmp_path / "config.json").unlink()
    config = transformers.AutoConfig.from_pretrained(pair.folder)
    by_config = AutoModelForONNX.from_pretrained(graph, config), AutoModelForONNX.from_pretrained(graph, config=config)
    for given in (*by_config, AutoModelForONNX.from_pretrained(graph, str(pair.folder))):
        assert type(given) is type(model)
        assert (given.detection, given.config.architectures) == (None, config.architectures)


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_a_bare_graph_tells_its_class_and_its_names(path):
    model = AutoModelForONNX.from_pretrained(path)
    session = ort.InferenceSession(path)
    (given,), (taken,) = session.get_inputs(), session.get_outputs()
    assert type(model).__name__ == "ORTModelForImageClassification"
    assert model.contract.names == {given.name: "pixel_values", taken.name: "logits"}
    assert model.detection.best.task == model.fixed_shape_config.task == "image-classification"
    assert any("4 axes" in evidence for evidence in model.detection.best.evidence)
    pixels = np.random.default_rng(0).standard_normal((1, 3, 224, 224), np.float32)
    assert_same(model(pixel_values=pixels).logits, session.run(None, {given.name: pixels})[0].reshape(1, 1000))


def test_the_class_of_a_graph_that_lost_its_folder_is_found_again(specimen, tmp_path):
    folder = specimen("vit").folder
    guesses = AutoModelForONNX.from_pretrained(bare(folder / "model.onnx", tmp_path)).detection
    assert guesses.best.model == type(AutoModelForONNX.from_pretrained(folder)).__name__


def test_a_saved_guess_is_no_guess_any_more(tmp_path):
    model = AutoModelForONNX.from_pretrained(LIGHT[0])
    model.save_pretrained(tmp_path)
    saved = FixedShapeConfig.from_folder(tmp_path)
    assert (saved.task, saved.names) == ("image-classification", model.contract.names)
    again = AutoModelForONNX.from_pretrained(tmp_path)
    assert (type(again), again.detection, again.contract.names) == (type(model), None, saved.names)


def test_a_graph_that_nothing_is_known_of_is_a_custom_one(caplog):
    with caplog.at_level(logging.WARNING, "optimum_fixedshape"):
        model = AutoModelForONNX.from_pretrained(ORT_MODELS / "mul_1.onnx")
    assert type(model).__name__ == "ORTModelForCustomTasks"
    assert (len(model.detection), model.contract.names) == (0, {})
    assert "Nothing tells what this graph is for" in caplog.text
    assert model.run({"X": np.ones((3, 2), np.float32)})["Y"].shape == (3, 2)


def test_a_graph_that_may_be_for_several_tasks_says_which(tmp_path):
    value, shape = onnx_models.value, {"shape": np.array([1, 50, 320])}
    sound, frames = value("x", onnx.TensorProto.FLOAT, [1, 16000]), value("y", onnx.TensorProto.FLOAT, [1, 50, 320])
    node = onnx.helper.make_node("Reshape", ["x", "shape"], ["y"])
    onnx.save(onnx_models.build([node], [sound], [frames], shape), tmp_path / "graph.onnx")
    with (
        pytest.warns(UserWarning, match="may depend on the padding"),
        pytest.warns(UserWarning, match="does not tell for certain what it is for. It is taken for") as said,
    ):
        model = AutoModelForONNX.from_pretrained(tmp_path / "graph.onnx")
    assert model.detection.is_ambiguous
    choices = [f"task={guess.task!r}" for guess in model.detection.close]
    assert len(choices) > 1
    assert str(said[0].message).endswith(f"pass one of {', '.join(choices)}.")
    assert said[0].filename == __file__


# What the caller says


def test_a_task_that_is_passed_wins(exported, tmp_path):
    pair = exported("text-classification")
    names = {"input_ids": "ids", "attention_mask": "real", "token_type_ids": "kinds", "logits": "scores"}
    model = AutoModelForONNX.from_pretrained(
        bare(pair.folder / "model.onnx", tmp_path, names), task="text-classification"
    )
    assert model.contract.names == {own: name for name, own in names.items()}
    with torch.no_grad():
        assert_same(model(torch.from_numpy(IDS)).logits, pair.original(torch.from_numpy(IDS)).logits)
    zero_shot = AutoModelForONNX.from_pretrained(pair.folder, task="zero-shot-classification")
    assert type(zero_shot) is type(model)
    encoder = AutoModelForONNX.from_pretrained(LIGHT[0], task="image-feature-extraction")
    assert type(encoder).__name__ == "ORTModelForFeatureExtraction"
    assert encoder.fixed_shape_config.task == "image-feature-extraction"


def test_names_that_are_passed_win():
    model = AutoModelForONNX.from_pretrained(LIGHT[0], output_names={"prob_1": "probabilities"})
    assert model.contract.names == {"data_0": "pixel_values", "prob_1": "probabilities"}
    kept = AutoModelForONNX.from_pretrained(LIGHT[0], input_names={"data_0": "data_0"})
    assert kept.contract.names == {"prob_1": "logits"}
    with pytest.raises(ShapeMismatchError, match=r"map x, and the graph has data_0, prob_1\. They map"):
        AutoModelForONNX.from_pretrained(LIGHT[0], input_names={"x": "pixel_values"})


def test_arguments_of_the_class_are_passed_on(dynamic, tmp_path):
    shapes = {"batch_size": 2, "sequence_length": [4, 8]}
    model = AutoModelForONNX.from_pretrained(dynamic.folder, shapes=shapes, provider="CPUExecutionProvider")
    assert (type(model).__name__, len(model.ladder)) == ("ORTModelForFeatureExtraction", 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'nonsense'"):
        AutoModelForONNX.from_pretrained(dynamic.folder, nonsense=1)


# What cannot be


def test_it_is_made_by_from_pretrained_alone_as_transformers_own():
    with pytest.raises(
        OSError, match=r"^AutoModel is designed to be instantiated using the `AutoModel.from_pretrained"
    ):
        transformers.AutoModel()
    with pytest.raises(
        OSError, match=r"^AutoModelForONNX is designed to be instantiated using the `AutoModelForONNX.from_pretrained"
    ):
        AutoModelForONNX()


def test_what_is_not_there_or_not_known_is_an_error(tmp_path):
    with pytest.raises(UnsupportedTaskError, match="The task 'nonsense' is not one of"):
        AutoModelForONNX.from_pretrained(tmp_path / "nothing", task="nonsense")
    with pytest.raises(GraphNotFoundError):
        AutoModelForONNX.from_pretrained(tmp_path)
    for name in ("a.onnx", "b.onnx"):
        shutil.copy(LIGHT[0], tmp_path / name)
    with pytest.raises(GraphNotFoundError, match="several graphs"):
        AutoModelForONNX.from_pretrained(tmp_path)
    assert AutoModelForONNX.from_pretrained(tmp_path, file_name="b.onnx").path.name == "b.onnx"


def test_a_configuration_that_cannot_be_read_is_an_error(tmp_path):
    shutil.copy(LIGHT[0], tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(OSError, match=r"config\.json.* is not a valid JSON file"):
        AutoModelForONNX.from_pretrained(tmp_path)


def test_a_pytorch_model_is_exported_on_the_way(tmp_path):
    original = zoo.original("vit")
    for part in (original, zoo.processor("vit")):
        part.save_pretrained(tmp_path)
    model = AutoModelForONNX.from_pretrained(tmp_path)
    assert type(model).__name__ == "ORTModelForImageClassification"
    pixels = torch.randn(1, 3, *model.contract.inputs[0].shape[2:])
    with torch.no_grad():
        assert_same(model(pixel_values=pixels).logits, original(pixels).logits)


# Pipelines


def test_a_pipeline_of_a_bare_graph_needs_no_task(specimen, tmp_path):
    pair = specimen("vit")
    own = {"pixel_values": "data_0", "logits": "scores"}
    graph = bare(pair.folder / "model.onnx", tmp_path, own)
    ours = pipeline(model=graph, image_processor=pair.tokenizer)
    theirs = transformers.pipeline("image-classification", model=pair.original, image_processor=pair.tokenizer)
    scores = [[each["score"] for each in pipe(picture())] for pipe in (ours, theirs)]
    assert_same(*scores)
    assert ours.model.detection.best.task == "image-classification"
    with pytest.raises(UnsupportedTaskError, match="Pass task=, such as"):
        pipeline(model=ORT_MODELS / "mul_1.onnx")


def test_a_pipeline_leaves_probabilities_as_they_are(tmp_path):
    nodes = [
        onnx.helper.make_node("GlobalAveragePool", ["data_0"], ["pooled"]),
        onnx.helper.make_node("Softmax", ["pooled"], ["prob_1"], axis=1),
    ]
    value = onnx_models.value
    model = onnx_models.build(
        nodes,
        [value("data_0", onnx.TensorProto.FLOAT, [1, 3, 32, 32])],
        [value("prob_1", onnx.TensorProto.FLOAT, [1, 3, 1, 1])],
    )
    onnx.save(model, tmp_path / "graph.onnx")
    with pytest.warns(UserWarning, match="ImageNet"):
        pipe = pipeline(model=tmp_path / "graph.onnx")
    (feed,) = pipe.image_processor.feeds(picture())
    expected = ort.InferenceSession(tmp_path / "graph.onnx").run(None, feed.arrays)[0].reshape(-1)
    assert_same(sorted(each["score"] for each in pipe(picture())), sorted(map(float, expected)))


# The Hub


def test_of_a_repo_on_the_hub_only_what_is_needed_comes(exported, tmp_path):
    repo = tmp_path / "repos" / "my-org" / "many"
    pair = exported("text-classification")
    bare(pair.folder / "model.onnx", repo / "onnx", name="model.onnx")
    (repo / "onnx" / "model_quantized.onnx").write_bytes(b"0" * 10_000_000)
    (repo / "pytorch_model.bin").write_bytes(b"0" * 10_000_000)
    facts = json.loads((pair.folder / "config.json").read_text())
    (repo / "config.json").write_text(json.dumps(facts))
    pair.tokenizer.save_pretrained(repo)
    light = repo.parent / "light"
    light.mkdir()
    shutil.copy(LIGHT[0], light / "alexnet.onnx")
    shutil.copytree(light, light.parent / "light-saved")
    (light.parent / "light-saved" / "alexnet.onnx").rename(light.parent / "light-saved" / "saved.onnx")
    with pytest.warns(UserWarning, match="ImageNet"):
        write_config(light.parent / "light-saved" / "saved.onnx")
    with LocalHub(tmp_path / "repos") as hub:
        hub.run("""
            from optimum_fixedshape import AutoModelForONNX, pipeline, write_config
            model = AutoModelForONNX.from_pretrained("my-org/many")
            assert type(model).__name__ == "ORTModelForSequenceClassification"
            assert pipeline(model="my-org/many")("A text.")[0]["label"] in ("negative", "neutral", "positive")
            model = AutoModelForONNX.from_pretrained("my-org/light", revision="main")
            assert model.contract.input_names == ("pixel_values",)
            assert model.detection.best.task == "image-classification"

            from PIL import Image
            from optimum_fixedshape import AutoImageProcessor
            processor = AutoImageProcessor.from_model("my-org/light-saved")
            assert processor.ladder.largest.names == {"data_0": "pixel_values", "prob_1": "logits"}
            (feed,) = processor.feeds(Image.new("RGB", (300, 200)))
            assert set(feed.arrays) == {"data_0"}
        """)
        assert hub.sent("model_quantized.onnx") == hub.sent("pytorch_model.bin") == 0
        assert not (light / CONFIG_NAME).exists()
