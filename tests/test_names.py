"""Names that are not standard: mapped once, known to nobody but the session, saved with the model."""

from __future__ import annotations

import pickle
import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import transformers

from optimum_fixedshape import (
    AutoImageProcessor,
    AutoTokenizer,
    ORTModelForCausalLM,
    ORTModelForFeatureExtraction,
    ORTModelForImageClassification,
    ORTModelForSequenceClassification,
    pipeline,
    read_contract,
)
from optimum_fixedshape.config import FixedShapeConfig
from optimum_fixedshape.errors import InvalidModelError, ShapeMismatchError
from optimum_fixedshape.graph.naming import rename_tensors
from optimum_fixedshape.repo import peek_ladder
from optimum_fixedshape.sessions import contract_of_session

from . import onnx_models, stock, tiny
from .equality import assert_model_equals_original, assert_same
from .graphs import ONNX_MODELS
from .pictures import picture

SQUEEZENET = ONNX_MODELS / "light" / "light_squeezenet.onnx"
PIXELS = {"input_names": {"data_0": "pixel_values"}, "output_names": {"softmaxout_1": "logits"}}
TEXT = {
    "input_names": {"ids:0": "input_ids", "real": "attention_mask", "segment": "token_type_ids"},
    "output_names": {"scores": "logits"},
}
OWN = {standard: own for names in TEXT.values() for own, standard in names.items()}
IDS = np.arange(5, 15).reshape(2, 5)


def renamed(source: Path, target: Path, names: dict[str, str]) -> Path:
    """Writes a graph under other names into a folder that holds its weights."""
    model = onnx.load(source, load_external_data=False)
    rename_tensors(model, names)
    onnx.save(model, target)
    return target


@pytest.fixture(scope="module")
def odd(exported, tmp_path_factory) -> Path:
    """A ladder of BERT with names of its own, which are not saved with it."""
    folder = shutil.copytree(exported("text-classification").folder, tmp_path_factory.mktemp("odd") / "model")
    for graph in folder.glob("*.onnx"):
        renamed(graph, graph, OWN)
    return folder


# Contracts


def test_a_mapped_name_tells_the_roles_and_the_graph_keeps_its_own():
    plain, contract = read_contract(SQUEEZENET), read_contract(SQUEEZENET, names={"data_0": "pixel_values"})
    (spec,) = contract.inputs
    assert (spec.name, spec.graph_name, spec.session_name) == ("pixel_values", "data_0", "data_0")
    assert {axis.evidence for axis in spec.axes} == {"standard name"}
    assert plain.inputs[0].axes[0].evidence.startswith("guessed")
    assert (plain.inputs[0].graph_name, plain.inputs[0].session_name, plain.names) == (None, "data_0", {})
    assert contract.names == {"data_0": "pixel_values"}
    assert contract.to_dict()["inputs"][0]["graph_name"] == "data_0"
    assert contract.renamed({"data_0": "data_0"}).names == {}


def test_describe_shows_both_names():
    described = read_contract(SQUEEZENET, names={"data_0": "pixel_values"}).describe()
    assert "pixel_values: float32[1, 3, 224, 224] (in the graph: data_0)\n" in described
    assert "softmaxout_1: float32[1, 1000, 1, 1]\n" in described


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            {"pixel_values": "data_0"},
            "map pixel_values, and the graph has data_0, softmaxout_1. They map the graph's own names to standard",
        ),
        (
            {"data_0": "softmaxout_1"},
            "Two tensors of the graph would be called softmaxout_1: data_0 and softmaxout_1. Give each a name",
        ),
        ({"data_0": "x", "softmaxout_1": "x"}, "Two tensors of the graph would be called x: data_0 and softmaxout_1"),
    ],
    ids=["unknown", "taken", "twice"],
)
def test_names_that_cannot_be_mapped_are_an_error(names, message):
    with pytest.raises(ShapeMismatchError, match=re.escape(message)):
        read_contract(SQUEEZENET, names=names)
    with pytest.raises(ShapeMismatchError, match=re.escape(message)):
        ORTModelForImageClassification.from_pretrained(SQUEEZENET, input_names=names)


@pytest.mark.parametrize("key", ["scores", "logits"])
def test_roles_may_be_told_by_either_name(odd, key):
    names, roles = {"scores": "logits"}, {key: ["batch_size", "num_choices"]}
    for contract in (
        read_contract(odd / "model.onnx", names=names, roles=roles),
        ORTModelForSequenceClassification.from_pretrained(odd, **TEXT, roles=roles).contract,
    ):
        assert contract.outputs[0].roles() == ("batch_size", "num_choices")
        assert {axis.evidence for axis in contract.outputs[0].axes} == {"set by the caller"}


def test_names_can_be_swapped_and_a_role_goes_to_the_name_in_use(tmp_path):
    onnx.save(onnx_models.embedder(2, 8), tmp_path / "swapped.onnx")
    swap = {"input_ids": "attention_mask", "attention_mask": "input_ids"}
    contract = read_contract(tmp_path / "swapped.onnx", names=swap, roles={"input_ids": ["batch_size", None]})
    assert [(spec.session_name, spec.name) for spec in contract.inputs] == list(swap.items())
    assert contract.input("input_ids").roles() == ("batch_size", None)
    assert contract.input("attention_mask").roles() == ("batch_size", "sequence_length")


# Models


def test_a_ladder_answers_as_under_standard_names(odd, exported):
    pair = exported("text-classification")
    model = ORTModelForSequenceClassification.from_pretrained(odd, **TEXT)
    assert [rung.names for rung in model.ladder.rungs] == [{own: name for name, own in OWN.items()}] * 2
    assert_model_equals_original(model, pair.original)
    assert set(model.input_dtypes) == {"input_ids", "attention_mask", "token_type_ids"}
    assert model.output_dtypes == {"logits": "tensor(float)"}
    assert {node.name for node in model.session.get_inputs()} == {"ids:0", "real", "segment"}


def test_names_are_saved_and_read_again(odd, tmp_path):
    model = ORTModelForSequenceClassification.from_pretrained(odd, **TEXT)
    model.save_pretrained(tmp_path / "saved")
    names = {own: name for mapped in TEXT.values() for own, name in mapped.items()}
    assert FixedShapeConfig.from_folder(tmp_path / "saved").names == names
    for source in (tmp_path / "saved", tmp_path / "saved" / "model.onnx"):
        again = ORTModelForSequenceClassification.from_pretrained(source)
        assert_same(again(IDS).logits, model(IDS).logits)
        assert peek_ladder(source).largest.names == names
    undone = ORTModelForSequenceClassification.from_pretrained(
        tmp_path / "saved", input_names={"real": "attention_mask", "segment": "segment"}
    )
    assert "segment" in undone.input_names
    assert undone.fixed_shape_config.names == {own: name for own, name in names.items() if own != "segment"}


def test_a_copy_in_another_process_knows_the_names(odd):
    model = ORTModelForSequenceClassification.from_pretrained(odd, **TEXT)
    assert_same(pickle.loads(pickle.dumps(model))(IDS).logits, model(IDS).logits)


def test_saved_names_must_be_text(odd, tmp_path):
    (tmp_path / "fixedshape_config.json").write_text('{"graphs": ["model.onnx"], "names": {"x": 1}}')
    with pytest.raises(InvalidModelError, match="names must be standard names by the graph's names"):
        FixedShapeConfig.from_folder(tmp_path)


def test_dynamic_graphs_are_pinned_and_cut_under_mapped_names(dynamic, tmp_path):
    own = {"input_ids": "a", "attention_mask": "b", "token_type_ids": "c", "position_ids": "d", "pooler_output": "e"}
    folder = shutil.copytree(dynamic.folder, tmp_path / "model")
    renamed(dynamic.folder / "model.onnx", folder / "model.onnx", own)
    names = {mine: name for name, mine in own.items()}
    for shapes in (None, {"batch_size": 2, "sequence_length": [4, 8]}):
        model = ORTModelForFeatureExtraction.from_pretrained(folder, input_names=names, shapes=shapes)
        with torch.no_grad():
            expected = dynamic.original(torch.from_numpy(IDS))
        output = model(torch.from_numpy(IDS))
        assert_same(output.last_hidden_state, expected.last_hidden_state)
        assert_same(output.pooler_output, expected.pooler_output)
        assert len(output.hidden_states) == 3


@pytest.mark.parametrize("shapes", [None, {"context_length": 24, "prefill_length": 8}], ids=["open", "pinned"])
def test_a_decoder_writes_the_same_under_mapped_names(shapes, tmp_path):
    source = stock.graphs("gpt2")
    plain = ORTModelForCausalLM.from_pretrained(source, shapes=shapes)
    stated = read_contract(source / "model.onnx")
    own = {name: f"t{place}" for place, name in enumerate((*stated.input_names, *stated.output_names))}
    folder = shutil.copytree(source, tmp_path / "model")
    renamed(source / "model.onnx", folder / "model.onnx", own)
    names = {mine: name for name, mine in own.items()}
    model = ORTModelForCausalLM.from_pretrained(folder, input_names=names, shapes=shapes)
    prompt = {"input_ids": torch.arange(4, 9)[None], "attention_mask": torch.ones(1, 5, dtype=torch.long)}
    options = {"max_new_tokens": 8, "do_sample": False}
    expected = plain.generate(**prompt, **options)
    assert model.generate(**prompt, **options).tolist() == expected.tolist()
    model.save_pretrained(tmp_path / "saved")
    assert ORTModelForCausalLM.from_pretrained(tmp_path / "saved").generate(**prompt, **options).equal(expected)


# Processors and pipelines


def test_feeds_go_to_a_bare_session_under_its_own_names(odd):
    session = ort.InferenceSession(SQUEEZENET)
    mapped = read_contract(SQUEEZENET, names={"data_0": "pixel_values"})
    assert contract_of_session(session).input_names == ("data_0",)
    for source in (session, mapped):
        with pytest.warns(UserWarning, match="ImageNet"):
            processor = AutoImageProcessor.from_model(source)
        (feed,) = processor.feeds([picture()])
        assert set(feed.arrays) == {"data_0"}
        assert session.run(None, feed.arrays)[0].shape == (1, 1000, 1, 1)
    assert set(processor(picture(), return_tensors="np")) == {"pixel_values"}
    texts = read_contract(odd / "model.onnx", names=TEXT["input_names"])
    (feed,) = AutoTokenizer.from_model(texts, tokenizer=tiny.tokenizer("wordpiece")).feeds(["A text.", "Two."])
    assert set(feed.arrays) == {"ids:0", "real", "segment"}
    assert ort.InferenceSession(odd / "model.onnx").run(None, feed.arrays)[0].shape == (2, 3)


def test_an_image_pipeline_runs_a_bare_graph_with_mapped_names():
    model = ORTModelForImageClassification.from_pretrained(SQUEEZENET, **PIXELS)
    assert model.config.num_labels == 1000
    with pytest.warns(UserWarning, match="ImageNet"):
        pipe = pipeline("image-classification", model=model)
    pictures = [picture(), picture(30, 50)]
    for answer, image in zip(pipe(pictures, top_k=3, function_to_apply="none"), pictures, strict=True):
        (feed,) = pipe.image_processor.feeds([image])
        expected = np.sort(model.session.run(None, {"data_0": feed.arrays["data_0"]})[0].reshape(-1))[::-1][:3]
        assert_same(np.array([each["score"] for each in answer]), expected.astype(np.float64))


def test_a_text_pipeline_answers_as_pytorch_under_mapped_names(odd, exported):
    pair = exported("text-classification")
    model = ORTModelForSequenceClassification.from_pretrained(odd, **TEXT)
    ours = pipeline("text-classification", model=model)
    stock_pipe = transformers.pipeline("text-classification", model=pair.original, tokenizer=pair.tokenizer)
    for mine, theirs in zip(ours(tiny.SENTENCES), stock_pipe(tiny.SENTENCES), strict=True):
        assert mine["label"] == theirs["label"]
        assert mine["score"] == pytest.approx(theirs["score"], abs=1e-5)


# Renaming a graph itself


def test_a_renamed_graph_keeps_its_meaning_where_an_inner_tensor_has_the_name(tmp_path):
    model = onnx_models.embedder(2, 4)
    plain = ort.InferenceSession(model.SerializeToString())
    rename_tensors(model, {"input_ids": "floats", "sentence_embedding": "masked", "unknown": "x"})
    onnx.checker.check_model(model)
    other = ort.InferenceSession(model.SerializeToString())
    ids, mask = np.arange(8).reshape(2, 4), np.ones((2, 4), np.int64)
    expected = plain.run(["sentence_embedding"], {"input_ids": ids, "attention_mask": mask})
    assert_same(other.run(["masked"], {"floats": ids, "attention_mask": mask})[0], expected[0])


def test_annotations_of_quantized_tensors_follow():
    model = onnx_models.embedder(2, 4)
    model.graph.quantization_annotation.add(tensor_name="input_ids")
    model.graph.quantization_annotation.add(tensor_name="masked")
    rename_tensors(model, {"input_ids": "ids"})
    assert [each.tensor_name for each in model.graph.quantization_annotation] == ["ids", "masked"]


def test_names_inside_subgraphs_follow():
    inner = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "x"], ["inner"])],
        "then",
        [],
        [onnx_models.value("inner", onnx.TensorProto.FLOAT, [2])],
    )
    other = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", ["x"], ["other"])],
        "else",
        [],
        [onnx_models.value("other", onnx.TensorProto.FLOAT, [2])],
    )
    node = onnx.helper.make_node("If", ["flag"], ["y"], then_branch=inner, else_branch=other)
    model = onnx_models.build(
        [node],
        [onnx_models.value("x", onnx.TensorProto.FLOAT, [2]), onnx_models.value("flag", onnx.TensorProto.BOOL, [])],
        [onnx_models.value("y", onnx.TensorProto.FLOAT, [2])],
    )
    rename_tensors(model, {"x": "inner", "flag": "x", "y": "other"})
    session = ort.InferenceSession(model.SerializeToString())
    array = np.array([1.0, 2.0], np.float32)
    assert_same(session.run(["other"], {"inner": array, "x": np.array(True)})[0], array * 2)
    assert_same(session.run(["other"], {"inner": array, "x": np.array(False)})[0], -array)
