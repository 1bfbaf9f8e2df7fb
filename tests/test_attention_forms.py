"""Attention spelled in many ways is made one operator, what is something else is left alone: the answers stay."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from optimum_fixedshape.graph.attention import fuse_attention
from optimum_fixedshape.graph.optimize import fused_operators

from . import legacy, onnx_models

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
BATCH, HEADS, LENGTH, WIDTH = 2, 2, 3, 8
PACKED, APART, LEFT = {"Attention": 1}, {"MultiHeadAttention": 1}, {}
node, value = helper.make_node, onnx_models.value


def weights_of(*, bias=(WIDTH,)):
    random = np.random.default_rng(0)
    made = {name: random.standard_normal((WIDTH, WIDTH), np.float32) / 3 for name in ("w_q", "w_k", "w_v")}
    made |= {name: random.standard_normal(bias).astype(np.float32) for name in ("b_q", "b_k", "b_v")}
    table = {"far": np.float32([-1e9]), "half": np.float32(0.5), "one": np.float32(1), "axes": np.array([1, 2])}
    shapes = {"split": np.array([BATCH, LENGTH, HEADS, -1]), "joined": np.array([BATCH, LENGTH, WIDTH])}
    return {**made, **table, **shapes}


def projected(to, source="x", *, biased=True):
    product = node("MatMul", [source, f"w_{to}"], [f"{to}_product" if biased else to])
    return [product, node("Add", [f"{to}_product", f"b_{to}"], [to])] if biased else [product]


def split(to, *, source=None, perm=(0, 2, 1, 3)):
    return [
        node("Reshape", [source or to, "split"], [f"{to}_split"]),
        node("Transpose", [f"{to}_split"], [f"{to}_heads"], perm=perm),
    ]


PROJECTED = [*projected("q"), *projected("k"), *projected("v")]
SPLIT = [*split("q"), *split("k", perm=(0, 2, 3, 1)), *split("v")]
SCORES = [node("MatMul", ["q_heads", "k_heads"], ["products"]), node("Mul", ["half", "products"], ["scores"])]
X = value("x", FLOAT, [BATCH, LENGTH, WIDTH])
MASK = value("mask", INT64, [BATCH, LENGTH])


def behind(scores, name=""):
    return [
        node("Softmax", [scores], [f"{name}shares"]),
        node("MatMul", [f"{name}shares", "v_heads"], [f"{name}seen"]),
        node("Transpose", [f"{name}seen"], [f"{name}turned"], perm=(0, 2, 1, 3)),
        node("Reshape", [f"{name}turned", "joined"], [f"{name}y"]),
    ]


def graph(*nodes, inputs=(), scores="scores", weights=None):
    made = [*nodes, *behind(scores)]
    names = [name for each in made for name in each.output if name.endswith("y")]
    outputs = [value(name, FLOAT, [BATCH, LENGTH, WIDTH]) for name in names]
    model = onnx_models.build(made, [X, *inputs], outputs, weights or weights_of())
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def plain(*, inputs=(), weights=None, projections=PROJECTED, parts=SPLIT):
    return graph(*projections, *parts, *SCORES, inputs=inputs, weights=weights)


def biased(*nodes, inputs=(), order=("scores", "bias")):
    return graph(*PROJECTED, *SPLIT, *SCORES, *nodes, node("Add", order, ["sum"]), inputs=inputs, scores="sum")


def with_own_operators():
    model = plain()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def of_a_source_without_a_shape():
    model = plain(projections=[node("Relu", ["x"], ["r"]), *(n for to in "qkv" for n in projected(to, "r"))])
    (unstated,) = (each for each in model.graph.value_info if each.name == "r")
    model.graph.value_info.remove(unstated)
    return model


def masked(*first, order=("scores", "bias")):
    """Tokens that a mask of whole numbers hides."""
    hide = [
        *(first or [node("Cast", ["mask"], ["real"], to=FLOAT)]),
        node("Sub", ["one", "real"], ["hidden"]),
        node("Unsqueeze", ["hidden", "axes"], ["wide"]),
        node("Mul", ["wide", "far"], ["bias"]),
    ]
    return biased(*hide, inputs=[MASK], order=order)


WIDE = [node("Unsqueeze", ["mask", "axes"], ["wide"]), node("Cast", ["wide"], ["bias"], to=FLOAT)]
FORMS = {
    "with biases": (plain(), PACKED),
    "beside operators of onnxruntime": (with_own_operators(), PACKED),
    "without biases": (plain(projections=[n for to in "qkv" for n in projected(to, biased=False)]), PACKED),
    "biases of three axes": (plain(weights=weights_of(bias=(1, 1, WIDTH))), APART),
    "biases of one number": (plain(weights=weights_of(bias=(1,))), APART),
    "biases that come in": (
        plain(
            projections=[*projected("q")[:1], node("Add", ["q_product", "z"], ["q"]), *PROJECTED[2:]],
            inputs=[value("z", FLOAT, [WIDTH])],
        ),
        APART,
    ),
    "no projections": (
        plain(
            projections=[],
            parts=[*split("q", source="x"), *split("k", source="x", perm=(0, 2, 3, 1)), *split("v", source="x")],
        ),
        APART,
    ),
    "of something else": (
        plain(
            projections=[*projected("q"), *projected("k", "other"), *projected("v", "other")],
            inputs=[value("other", FLOAT, [BATCH, LENGTH, WIDTH])],
        ),
        APART,
    ),
    "of a source without a shape": (of_a_source_without_a_shape(), APART),
    "a factor behind the split": (
        plain(
            parts=[*split("q", source="q_scaled"), *SPLIT[2:]],
            projections=[*PROJECTED, node("Div", ["q", "half"], ["q_scaled"])],
        ),
        PACKED,
    ),
    "queries times something": (
        plain(
            parts=[*SPLIT[:1], node("Mul", ["q_split", "gate"], ["gated"]), *SPLIT[1:]],
            inputs=[value("gate", FLOAT, [BATCH, LENGTH, HEADS, WIDTH // HEADS])],
        ),
        PACKED,
    ),
    "scores times something": (
        graph(
            *PROJECTED, *SPLIT, *SCORES, node("Mul", ["scores", "gate"], ["gated"]),
            inputs=[value("gate", FLOAT, [1])], scores="gated",
        ),
        LEFT,
    ),
    "no scores": (
        graph(*PROJECTED, *SPLIT, inputs=[value("given", FLOAT, [BATCH, HEADS, LENGTH, LENGTH])], scores="given"),
        LEFT,
    ),
    "a sum without scores": (
        graph(
            *PROJECTED, *SPLIT, node("Add", ["given", "given"], ["sum"]),
            inputs=[value("given", FLOAT, [BATCH, HEADS, LENGTH, LENGTH])], scores="sum",
        ),
        LEFT,
    ),
    "a mask": (masked(), PACKED),
    "a mask before the scores": (masked(order=("bias", "scores")), PACKED),
    "a bias that comes in": (biased(inputs=[value("bias", FLOAT, [BATCH, 1, 1, LENGTH])]), APART),
    "a bias of two inputs": (
        biased(
            node("Add", ["a", "b"], ["bias"]),
            inputs=[value(name, FLOAT, [BATCH, 1, 1, LENGTH]) for name in "ab"],
        ),
        APART,
    ),
    "a mask of floats": (
        biased(
            node("Unsqueeze", ["mask", "axes"], ["wide"]), node("Mul", ["wide", "far"], ["bias"]),
            inputs=[value("mask", FLOAT, [BATCH, LENGTH])],
        ),
        APART,
    ),
    "two with one bias": (
        graph(
            *PROJECTED, *SPLIT, *SCORES, node("Add", ["scores", "bias"], ["sum"]),
            *behind("sum", "first_"),
            inputs=[value("bias", FLOAT, [BATCH, 1, 1, LENGTH])], scores="sum",
        ),
        {"MultiHeadAttention": 2},
    ),
    "a bias that is no mask": (biased(*WIDE, inputs=[MASK]), APART),
}  # fmt: skip


def feeds_of(model):
    random = np.random.default_rng(1)
    feeds = {}
    for each in model.graph.input:
        shape = [dim.dim_value for dim in each.type.tensor_type.shape.dim]
        feeds[each.name] = random.standard_normal(shape).astype(np.float32)
        if each.type.tensor_type.elem_type == INT64:
            feeds[each.name] = np.array([[1, 1, 0], [1, 0, 0]])
    return feeds


@pytest.mark.parametrize(("model", "expected"), FORMS.values(), ids=FORMS)
def test_answers_stay_the_same(model, expected):
    fused = fuse_attention(model)
    onnx.checker.check_model(fused)
    assert fused_operators(fused) == expected
    feeds = feeds_of(model)
    for before, after in zip(*(legacy.opened(each).run(None, feeds) for each in (model, fused)), strict=True):
        np.testing.assert_allclose(after, before, atol=2e-5)


def test_a_bias_that_cannot_be_tried_as_a_mask_stays(caplog):
    """A table with a row for nothing but 0: there is no bias for any token, whatever the graph says."""
    model = biased(
        node("Gather", ["far", "mask"], ["hidden"]), node("Unsqueeze", ["hidden", "axes"], ["bias"]), inputs=[MASK]
    )
    with caplog.at_level(logging.DEBUG, "optimum_fixedshape"):
        fused = fuse_attention(model)
    assert fused_operators(fused) == APART
    assert "bias was not tried as a mask" in caplog.text
    feeds = {**feeds_of(model), "mask": np.zeros((BATCH, LENGTH), np.int64)}
    (before,), (after,) = (legacy.opened(each).run(None, feeds) for each in (model, fused))
    np.testing.assert_allclose(after, before, atol=2e-5)
