"""Attention of our own exports in one operator: the same answers under any mask, and nothing fused that is another."""

from __future__ import annotations

import shutil

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import optimum_fixedshape as fixedshape
from optimum_fixedshape.config import FixedShapeConfig
from optimum_fixedshape.graph.attention import fuse_attention
from optimum_fixedshape.graph.optimize import fused_operators, optimize_graph
from optimum_fixedshape.graph.quantize import to_int8
from optimum_fixedshape.graph.weights import save_rungs

from . import legacy, onnx_models
from .equality import assert_model_equals_original

WITH_PROJECTIONS, WITH_BIAS, NONE = {"Attention": 2}, {"MultiHeadAttention": 2}, {}
FUSED = {
    **dict.fromkeys(("albert", "bert", "distilbert", "electra", "roberta", "xlm-roberta"), WITH_PROJECTIONS),
    "mpnet": WITH_BIAS,  # relative positions
    "deberta-v2": NONE,  # relative positions that are products of their own
}


def attention_in(model):
    return {name: count for name, count in fused_operators(model).items() if "Attention" in name}


@pytest.mark.parametrize("architecture", FUSED)
def test_every_rung_of_a_fused_ladder_answers_as_pytorch(architecture, exported, tmp_path):
    pair = exported("text-classification", architecture)
    folder = shutil.copytree(pair.folder, tmp_path / "fused")
    names = FixedShapeConfig.from_folder(folder).graphs
    graphs = {name: onnx.load(pair.folder / name) for name in names}
    fused = {name: optimize_graph(graph, config=pair.original.config.to_dict()) for name, graph in graphs.items()}
    for graph in fused.values():
        assert attention_in(graph) == FUSED[architecture]
        assert not any("Skip" in node.op_type or "Embed" in node.op_type for node in graph.graph.node)
    saved = save_rungs(fused.items(), folder=folder)
    assert saved.weights_bytes < 1.2 * (pair.folder / "model.onnx_data").stat().st_size
    model = fixedshape.ORTModelForSequenceClassification.from_pretrained(folder)
    assert_model_equals_original(model, pair.original)


@pytest.mark.parametrize("architecture", ["bert", "mpnet"])
def test_every_mask_hides_what_it_hid(architecture, exported):
    graph = onnx.load(exported("text-classification", architecture).folder / "model.onnx")
    fused = fuse_attention(graph)
    before, after = legacy.opened(graph), legacy.opened(fused)
    names = [value.name for value in graph.graph.input]
    for side, mask in legacy.masks().items():
        mask = np.tile(mask, (1, 2))[:2, :16]
        given = legacy.feed(mask)
        (expected,), (got,) = (each.run(None, {name: given[name] for name in names}) for each in (before, after))
        np.testing.assert_allclose(got, expected, atol=2e-5, err_msg=side)
        other = given | {"input_ids": np.where(mask == 1, given["input_ids"], 99)}
        (changed,) = after.run(None, {name: other[name] for name in names})
        if architecture == "bert" and mask[:, 0].all():  # whose position depends on no token; its first one answers
            np.testing.assert_allclose(changed, got, atol=2e-5, err_msg=side)


def test_the_graph_is_left_alone_and_its_ends_stay(exported):
    graph = onnx.load(exported("text-classification").folder / "model.onnx")
    before = graph.SerializeToString(deterministic=True)
    fused = fuse_attention(graph)
    assert graph.SerializeToString(deterministic=True) == before
    assert legacy.interface(fused) == legacy.interface(graph)
    onnx.checker.check_model(fused)
    assert len(fused.graph.node) < len(graph.graph.node) / 1.8
    read = {name for node in fused.graph.node for name in node.input}
    assert {tensor.name for tensor in fused.graph.initializer} <= read


def test_images_have_no_mask_and_causal_texts_have_more_than_one_of_tokens(specimen):
    vit, clip = (onnx.load(specimen(name).folder / "model.onnx") for name in ("vit", "clip"))
    assert attention_in(fuse_attention(vit)) == {"Attention": 2}
    both = fuse_attention(clip)
    assert attention_in(both) == {"Attention": 2, "MultiHeadAttention": 2}
    feeds = {
        value.name: np.random.default_rng(0).integers(1, 9, [dim.dim_value for dim in value.type.tensor_type.shape.dim])
        for value in clip.graph.input
    }
    feeds = {name: array.astype(np.float32 if "pixel" in name else np.int64) for name, array in feeds.items()}
    feeds["attention_mask"] = np.minimum(np.arange(feeds["input_ids"].shape[1]) % 5, 1)[None].repeat(
        len(feeds["input_ids"]), 0
    )
    for expected, got in zip(legacy.opened(clip).run(None, feeds), legacy.opened(both).run(None, feeds), strict=True):
        np.testing.assert_allclose(got, expected, atol=1e-4)


def test_where_nothing_is_found_it_says_so(exported):
    graph = onnx.load(exported("text-classification", "modernbert").folder / "model.onnx")
    with pytest.warns(UserWarning, match="found nothing to fuse in this graph of modernbert"):
        optimize_graph(graph, config={"model_type": "modernbert"})


def test_open_shapes_are_left_as_they_are():
    graph = legacy.bert()
    assert fuse_attention(graph).SerializeToString() == graph.SerializeToString()


def test_a_bias_of_attention_is_not_lost_in_int8(exported):
    graph = onnx.load(exported("text-classification", "mpnet").folder / "model.onnx")
    quantized = to_int8(fuse_attention(graph))
    biased = [node for node in quantized.graph.node if node.op_type == "MultiHeadAttention"]
    assert len(biased) == 2
    assert all(node.input[5] for node in biased)
    random = np.random.default_rng(0)
    weights = {
        "weights": random.standard_normal((8, 24), np.float32),
        "biases": np.zeros(24, np.float32),
        "scores": np.float32([[[[0, -1e9], [0, -1e9]]]]),
        "out": random.standard_normal((8, 8), np.float32),
    }
    nodes = [
        helper.make_node(
            "Attention", ["x", "weights", "biases", "", "", "scores"], ["y"], domain="com.microsoft", num_heads=1
        ),
        helper.make_node("MatMul", ["y", "out"], ["z"]),
    ]
    ends = [onnx_models.value(name, TensorProto.FLOAT, [1, 2, 8]) for name in "xz"]
    model = onnx_models.build(nodes, ends[:1], ends[1:], weights)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    made = [node for node in to_int8(model).graph.node if "Attention" in node.op_type]
    assert [(node.op_type, len(node.input)) for node in made] == [("Attention", 6)]


def test_a_mask_reaches_quantized_attention(exported):
    quantized = to_int8(fuse_attention(onnx.load(exported("text-classification").folder / "model.onnx")))
    made = [node for node in quantized.graph.node if node.op_type == "QAttention"]
    assert [node.input[5] for node in made] == ["attention_mask.int32"] * 2


def test_projections_stay_apart_where_a_quantizer_has_to_see_them(exported):
    graph = onnx.load(exported("text-classification").folder / "model.onnx")
    assert attention_in(fuse_attention(graph, packs_projections=False)) == {"MultiHeadAttention": 2}
