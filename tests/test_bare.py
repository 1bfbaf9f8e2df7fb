"""`write_config`: a graph that came alone becomes a folder that loads here, and in stock transformers and optimum."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import transformers
from onnx import TensorProto, helper

from optimum_fixedshape import AutoModelForONNX, pipeline, read_contract, write_config
from optimum_fixedshape._compat import has_optimum_onnx
from optimum_fixedshape.config import FixedShapeConfig
from optimum_fixedshape.errors import (
    ExistingFilesError,
    FixedShapeError,
    GraphNotFoundError,
    InvalidInputError,
    ShapeMismatchError,
    UnsupportedTaskError,
)
from optimum_fixedshape.graph.heads import open_head
from optimum_fixedshape.graph.naming import rename_tensors

from . import onnx_models, stock, tiny
from .equality import assert_same
from .graphs import ONNX_MODELS
from .hub import LocalHub
from .pictures import picture

SQUEEZENET = ONNX_MODELS / "light" / "light_squeezenet.onnx"
FRAMES = {"config.json", "fixedshape_config.json"}
TEXT = {"input_ids": "ids", "attention_mask": "real", "token_type_ids": "kinds", "logits": "scores"}


def digests(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def facts(folder: Path) -> dict:
    return json.loads((folder / "config.json").read_text())


@pytest.fixture(scope="module")
def found(specimen, tmp_path_factory) -> Path:
    """A classifier of images as model zoos hand it out: names of its own, probabilities at its end, weights beside."""
    model = onnx.load(specimen("vit").folder / "model.onnx")
    rename_tensors(model, {"pixel_values": "data_0", "logits": "fc6_1"})
    (scores,) = model.graph.output
    rows, labels = (dim.dim_value for dim in scores.type.tensor_type.shape.dim)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([rows, labels, 1, 1]), "shape"))
    model.graph.node.append(helper.make_node("Softmax", ["fc6_1"], ["prob_0"], axis=1))
    model.graph.node.append(helper.make_node("Reshape", ["prob_0", "shape"], ["prob_1"]))
    model.graph.output[0].CopyFrom(onnx_models.value("prob_1", TensorProto.FLOAT, [rows, labels, 1, 1]))
    folder = tmp_path_factory.mktemp("found")
    onnx.save(model, folder / "vit.onnx", save_as_external_data=True, location="vit.weights", size_threshold=512)
    return folder


@pytest.fixture
def graph(found, tmp_path) -> Path:
    return shutil.copytree(found, tmp_path / "found") / "vit.onnx"


@pytest.fixture(scope="module")
def answer(specimen):
    """What transformers' pipeline says of the original."""
    pair = specimen("vit")
    return transformers.pipeline("image-classification", model=pair.original, image_processor=pair.tokenizer)(picture())


@pytest.fixture
def text(exported, tmp_path) -> Path:
    """A classifier of texts with names of its own, and nothing beside it."""
    model = onnx.load(exported("text-classification").folder / "model.onnx")
    rename_tensors(model, TEXT)
    (tmp_path / "text").mkdir()
    onnx.save(model, tmp_path / "text" / "bert.onnx")
    return tmp_path / "text" / "bert.onnx"


# With a source


def test_a_source_completes_the_folder_and_the_graph_is_not_touched(graph, specimen, answer):
    source, before = specimen("vit").folder, digests(graph.parent)
    folder = write_config(graph, source=source)
    assert folder == graph.parent
    after = digests(folder)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == FRAMES | {"preprocessor_config.json"}
    assert after["preprocessor_config.json"] == digests(source)["preprocessor_config.json"]
    assert facts(folder) == facts(source)
    saved = FixedShapeConfig.from_folder(folder)
    assert (saved.graphs, saved.task) == (("vit.onnx",), "image-classification")
    assert saved.names == {"data_0": "pixel_values", "prob_1": "logits"}
    assert type(AutoModelForONNX.from_pretrained(folder)).__name__ == "ORTModelForImageClassification"
    for model in (folder, graph):
        assert_same(pipeline(model=model)(picture()), answer)


def test_a_new_folder_runs_in_stock_optimum_and_transformers(graph, specimen, answer, tmp_path):
    before = digests(graph.parent)
    folder = write_config(graph, output=tmp_path / "new" / "folder", source=specimen("vit").folder)
    assert digests(graph.parent) == before
    assert {path.name for path in folder.iterdir()} == FRAMES | {
        *("model.onnx", "vit.weights", "preprocessor_config.json", "fixed_shape.py")
    }
    contract = read_contract(folder / "model.onnx")
    assert [str(spec) for spec in contract.outputs] == ["logits: float32[2, 3]"]
    assert contract.input_names == ("pixel_values",)
    assert FixedShapeConfig.from_folder(folder).names == {}
    assert_same(pipeline(model=folder)(picture()), answer)
    onnx.checker.check_model(folder / "model.onnx", full_check=True)
    assert_stock_answers(folder, answer)


def assert_stock_answers(folder, answer):
    """Stock optimum, where it is installed, answers as the original; stock transformers loads all that is beside it."""
    config = transformers.AutoConfig.from_pretrained(folder)
    processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    assert len(config.id2label) == len(answer)
    if not has_optimum_onnx():
        session = ort.InferenceSession(folder / "model.onnx")
        pixels = np.repeat(processor(picture().convert("RGB"), return_tensors="np")["pixel_values"], 2, 0)
        logits = torch.from_numpy(session.run(["logits"], {"pixel_values": pixels})[0][0])
        scores = logits.softmax(-1).sort(descending=True).values
    else:
        from optimum.onnxruntime import ORTModelForImageClassification

        model = ORTModelForImageClassification.from_pretrained(folder)
        pipe = transformers.pipeline("image-classification", model=model, image_processor=processor)
        scores = torch.tensor([each["score"] for each in pipe([picture(), picture()], batch_size=2)[0]])
    assert_same(scores, torch.tensor([each["score"] for each in answer]))


def test_a_source_with_other_labels_than_the_graph_is_refused(graph):
    five = {"model_type": "vit", "id2label": {str(index): f"LABEL {index}" for index in range(5)}}
    (graph.parent / "config.json").write_text(json.dumps(five))
    with pytest.raises(ShapeMismatchError, match=r"names 5 labels, and the graph has 3. Pass labels=, or the source"):
        write_config(graph)
    with pytest.warns(UserWarning, match="ImageNet"):
        folder = write_config(graph, labels=["a", "b", "c"], output=graph.parent / "out")
    labels = {"id2label": {"0": "a", "1": "b", "2": "c"}, "label2id": {"a": 0, "b": 1, "c": 2}}
    assert facts(folder).items() >= {**five, **labels}.items()


def test_a_text_pipeline_runs_with_the_tokenizer_of_a_source(text, exported, tmp_path):
    pair = exported("text-classification")
    pair.tokenizer.save_pretrained(tmp_path / "words")
    labels = ["negative", "neutral", "positive"]
    theirs = transformers.pipeline("text-classification", model=pair.original, tokenizer=pair.tokenizer)
    for output in (None, tmp_path / "out"):
        folder = write_config(text, source=tmp_path / "words", labels=labels, task="text-classification", output=output)
        told = {name: facts(folder)[name] for name in ("model_type", "vocab_size", "pad_token_id", "problem_type")}
        assert told == {
            "model_type": "bert",
            "vocab_size": pair.original.config.vocab_size,
            "pad_token_id": 0,
            "problem_type": "single_label_classification",
        }
        assert transformers.AutoConfig.from_pretrained(folder).vocab_size == pair.original.config.vocab_size
        assert_same(pipeline(model=folder)(tiny.SENTENCES), theirs(tiny.SENTENCES))


# Without a source


def test_a_bare_graph_gets_what_it_tells(tmp_path):
    graph = tmp_path / "squeezenet.onnx"
    shutil.copy(SQUEEZENET, graph)
    with pytest.warns(UserWarning, match="ImageNet: shortest edge 256, the middle 224 x 224") as said:
        folder = write_config(graph)
    assert [warning.filename for warning in said] == [__file__]
    assert facts(folder) == {
        "model_type": "vit",
        "image_size": 224,
        "num_channels": 3,
        "num_labels": 1000,
        "problem_type": "single_label_classification",
    }
    assert transformers.AutoConfig.from_pretrained(folder).num_labels == 1000
    processor = transformers.AutoImageProcessor.from_pretrained(folder, use_fast=False)
    assert processor.crop_size == {"height": 224, "width": 224}
    pipe = pipeline(model=folder)
    (feed,) = pipe.image_processor.feeds(picture())
    expected = np.sort(ort.InferenceSession(SQUEEZENET).run(None, feed.arrays)[0].reshape(-1))[:-4:-1]
    assert_same(np.array([each["score"] for each in pipe(picture(), top_k=3)], np.float32), expected)
    assert write_config(graph) == folder  # all there is the same


@pytest.mark.parametrize("kind", ["list", "mapping", "mapping of text", "file"])
def test_labels_come_in_several_forms(graph, tmp_path, kind):
    names = ["cat", "dog", "llama (not the model)"]
    (tmp_path / "labels.txt").write_text("cat\n  dog\nllama (not the model)\n\n", encoding="utf-8")
    labels = {
        "list": names,
        "mapping": {2: names[2], 0: names[0], 1: names[1]},
        "mapping of text": {str(index): name for index, name in enumerate(names)},
        "file": tmp_path / "labels.txt",
    }[kind]
    with pytest.warns(UserWarning, match="ImageNet"):
        folder = write_config(graph, labels=labels)
    assert facts(folder)["id2label"] == {"0": "cat", "1": "dog", "2": "llama (not the model)"}
    assert transformers.AutoConfig.from_pretrained(folder).label2id["dog"] == 1
    assert {each["label"] for each in pipeline(model=folder)(picture())} == set(names)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (["a", "b"], ShapeMismatchError, "labels= names 2 labels, and the graph has 3: logits: float32[2, 3, 1, 1]."),
        ({"a": 0, "b": 1, "c": 2}, ShapeMismatchError, "labels= must map the numbers 0 to 2 to labels, got a, b, c."),
        ({0: "a", 2: "b", 3: "c"}, ShapeMismatchError, "labels= must map the numbers 0 to 2 to labels, got 0, 2, 3."),
        ("nowhere.txt", InvalidInputError, "a text file with one label on each line; nowhere.txt cannot be read"),
    ],
)
def test_labels_that_cannot_be_are_an_error(graph, labels, error, message):
    before = digests(graph.parent)
    with pytest.raises(error, match=re.escape(message)):
        write_config(graph, labels=labels)
    assert digests(graph.parent) == before


def test_what_a_graph_cannot_tell_is_said(text):
    with pytest.warns(UserWarning, match=r"does not tell what its tokenizer is.* Pass source=") as said:
        folder = write_config(text, task="text-classification")
    assert [warning.filename for warning in said] == [__file__]
    assert {path.name for path in folder.iterdir()} == FRAMES | {"bert.onnx"}
    assert facts(folder)["num_labels"] == 3


def test_a_graph_of_waveforms_gets_a_feature_extractor(tmp_path):
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["pieces"]),
        helper.make_node("ReduceMean", ["pieces"], ["y"], axes=[2], keepdims=0),
    ]
    value = onnx_models.value
    sound, scores = value("x", TensorProto.FLOAT, [1, 1600]), value("y", TensorProto.FLOAT, [1, 4])
    onnx.save(onnx_models.build(nodes, [sound], [scores], {"shape": np.array([1, 4, 400])}), tmp_path / "sound.onnx")
    with pytest.warns(UserWarning, match="Wav2Vec2FeatureExtractor"):
        folder = write_config(tmp_path / "sound.onnx", task="audio-classification")
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    config = transformers.AutoConfig.from_pretrained(folder)
    assert (extractor.sampling_rate, config.num_labels, config.model_type) == (
        16000,
        4,
        "audio-spectrogram-transformer",
    )
    with pytest.warns(UserWarning, match="may depend on the padding: the graph takes no attention_mask"):
        pipe = pipeline(model=folder)
    assert len(pipe(np.random.default_rng(0).standard_normal(1600).astype(np.float32))) == 4


def test_a_decoder_gets_what_its_cache_tells(tmp_path):
    source = stock.graphs("gpt2")
    for name in ("model.onnx", *read_contract(source / "model.onnx").external_data):
        shutil.copy(source / name, tmp_path)
    original = json.loads((source / "config.json").read_text())
    with pytest.warns(UserWarning, match="does not tell what its tokenizer is"):
        folder = write_config(tmp_path / "model.onnx")
    told = facts(folder)
    assert (told["model_type"], told["vocab_size"]) == ("llama", original["vocab_size"])
    assert (told["num_hidden_layers"], told["num_attention_heads"]) == (original["n_layer"], original["n_head"])
    assert told["hidden_size"] == original["n_embd"]
    prompt = {"input_ids": torch.arange(4, 9)[None], "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    answers = [
        AutoModelForONNX.from_pretrained(place).generate(**prompt, max_new_tokens=6) for place in (source, folder)
    ]
    assert answers[0].tolist() == answers[1].tolist()


def test_graphs_in_several_parts_need_a_source(tmp_path):
    source = stock.graphs("bart")
    for path in source.glob("*.onnx*"):
        shutil.copy(path, tmp_path)
    with pytest.raises(UnsupportedTaskError, match=r"need the configuration of their original.* Pass source="):
        write_config(tmp_path, task="text2text-generation")
    folder = write_config(tmp_path, source=source)
    assert type(AutoModelForONNX.from_pretrained(folder)).__name__ == "ORTModelForSeq2SeqLM"


# What is there already


def test_nothing_is_overwritten(graph, specimen):
    folder = write_config(graph, source=specimen("vit").folder)
    (folder / "preprocessor_config.json").write_text("{}")
    before = digests(folder)
    with pytest.raises(ExistingFilesError, match=r"exist and hold something else, and nothing is overwritten") as error:
        write_config(graph, source=specimen("vit").folder, labels=["a", "b", "c"])
    assert isinstance(error.value, (FileExistsError, FixedShapeError))
    assert [Path(file).name for file in error.value.files] == ["config.json", "preprocessor_config.json"]
    assert digests(folder) == before
    with pytest.raises(ExistingFilesError, match=re.escape(str(folder / "config.json"))):
        write_config(graph, output=folder, source=specimen("vit").folder, labels=["a", "b", "c"])
    assert digests(folder) == before


def test_what_is_in_the_folder_is_the_source_where_there_is_none(text, exported):
    pair = exported("text-classification")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(pair.folder / name, text.parent)
    before = digests(text.parent)
    folder = write_config(text)
    assert {name: digests(folder)[name] for name in before} == before
    assert digests(folder).keys() - before.keys() == {"fixedshape_config.json"}
    assert type(AutoModelForONNX.from_pretrained(folder)).__name__ == "ORTModelForSequenceClassification"


# The Hub


def test_graph_and_source_may_be_on_the_hub(found, specimen, tmp_path):
    with pytest.raises(GraphNotFoundError, match=r"is no file or folder on this machine.* pass output="):
        write_config("my-org/found")
    repos = tmp_path / "repos" / "my-org"
    shutil.copytree(found, repos / "found")
    shutil.copytree(specimen("vit").folder, repos / "vit", ignore=shutil.ignore_patterns("*.onnx*"))
    (repos / "vit" / "pytorch_model.bin").write_bytes(b"0" * 1_000_000)
    with LocalHub(tmp_path / "repos") as hub:
        hub.run(f"""
            from optimum_fixedshape import AutoModelForONNX, write_config
            folder = write_config("my-org/found", source="my-org/vit", output={str(tmp_path / "out")!r})
            assert type(AutoModelForONNX.from_pretrained(folder)).__name__ == "ORTModelForImageClassification"
        """)
        assert hub.sent("pytorch_model.bin") == 0
    assert (tmp_path / "out" / "vit.weights").is_file()
    assert facts(tmp_path / "out") == facts(repos / "vit")


# The end of a graph


def classifier(nodes, shape, *, more=()):
    value = onnx_models.value
    outputs = [value("y", TensorProto.FLOAT, shape), *(value(name, TensorProto.FLOAT, shape) for name in more)]
    return onnx_models.build(nodes, [value("x", TensorProto.FLOAT, [2, 3])], outputs, {"shape": np.array([2, 3, 1, 1])})


@pytest.mark.parametrize(
    ("nodes", "shape", "is_opened"),
    [
        ([helper.make_node("Softmax", ["x"], ["y"])], [2, 3], True),
        ([helper.make_node("Sigmoid", ["x"], ["y"])], [2, 3], True),
        ([helper.make_node("Softmax", ["x"], ["y"], axis=0)], [2, 3], False),
        ([helper.make_node("Softmax", ["x"], ["p"]), helper.make_node("Log", ["p"], ["y"])], [2, 3], False),
        (
            [helper.make_node("Softmax", ["x"], ["p"], axis=1), helper.make_node("Reshape", ["p", "shape"], ["y"])],
            [2, 3, 1, 1],
            True,
        ),
        (
            [helper.make_node("Reshape", ["x", "shape"], ["r"]), helper.make_node("Softmax", ["r"], ["y"], axis=1)],
            [2, 3, 1, 1],
            True,
        ),
    ],
)
def test_scores_become_logits_where_they_were_made_probabilities_of_labels(nodes, shape, is_opened):
    model = classifier(nodes, shape)
    array = np.array([[1, 2, 3], [-1, 0, 4]], np.float32)
    (before,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": array})
    open_head(model, "y")
    onnx.checker.check_model(model, full_check=True)
    (after,) = ort.InferenceSession(model.SerializeToString()).run(None, {"x": array})
    assert_same(after, array if is_opened else before)


def test_probabilities_that_are_used_elsewhere_stay():
    nodes = [helper.make_node("Softmax", ["x"], ["y"]), helper.make_node("Identity", ["y"], ["again"])]
    model = classifier(nodes, [2, 3], more=["again"])
    before = model.SerializeToString()
    open_head(model, "y")
    assert model.SerializeToString() == before


def test_scores_of_more_than_labels_stay():
    x, y = (onnx_models.value(name, TensorProto.FLOAT, [2, 3, 4]) for name in "xy")
    model = onnx_models.build([helper.make_node("Softmax", ["x"], ["y"], axis=1)], [x], [y])
    before = model.SerializeToString()
    open_head(model, "y")
    assert model.SerializeToString() == before
