"""Graphs that do not hold together are refused with the flaw in words; healthy ones pass."""

from __future__ import annotations

import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper

from optimum_fixedshape.graph.structure import find_flaw

from .graphs import ONNX_MODELS


def value(name):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])


def graph(nodes, inputs=("x",), outputs=("y",), weights=()):
    tensors = [helper.make_tensor(name, TensorProto.FLOAT, [1], [0.0]) for name in weights]
    return helper.make_graph(nodes, "graph", list(map(value, inputs)), list(map(value, outputs)), tensors)


def model(nodes, opset=17, functions=(), **kwargs):
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph(nodes, **kwargs), opset_imports=opsets, functions=list(functions))


def node(op_type, inputs, outputs, **kwargs):
    return helper.make_node(op_type, inputs, outputs, name="n", **kwargs)


def with_attributes(made, *attributes):
    made.attribute.extend(attributes)
    return made


def choice(*outputs):
    """A node that has a branch for each of true and false, each of which makes these outputs."""
    branch = graph([helper.make_node("Identity", ["x"], [name]) for name in outputs], inputs=(), outputs=outputs)
    return node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)


def function(*nodes):
    return helper.make_function("own", "Twice", ["a"], ["b"], nodes, [helper.make_opsetid("", 17)])


RELU = node("Relu", ["x"], ["y"])
NO_VALUE = AttributeProto(name="alpha", type=AttributeProto.FLOAT)
TWICE = node("Twice", ["x"], ["y"], domain="own")

FLAWED = {
    "it is of version 20000 of an operator set": model([RELU], opset=20_000),
    "two inputs have the same name": model([RELU], inputs=("x", "x")),
    "two initializers have the same name, or one has none": model([RELU], weights=("",)),
    "nothing makes the output 'z'": model([RELU], outputs=("y", "z")),
    "the Relu node 'n' reads 'z', which nothing before it makes": model([node("Relu", ["z"], ["y"])]),
    "makes 'y', which was made before": model([RELU, RELU]),
    "the If node 'n' makes 1 tensors, and a branch 2": model([choice("one", "two")]),
    "has no operator, or an attribute twice": model([node("", ["x"], ["y"])]),
    "has no value for its attribute 'alpha'": model([with_attributes(node("Elu", ["x"], ["y"]), NO_VALUE)]),
    "is of the domain 'own', whose version the model does not tell": model([TWICE]),
    "has 2 inputs, and its operator takes 1 to 1": model([node("Relu", ["x", "x"], ["y"])]),
    "the Constant node 'n' has 2 values": model([node("Constant", [], ["y"], value_int=1, value_float=1.0)]),
    "has no attribute 'to'": model([node("Cast", ["x"], ["y"])]),
    "has an attribute 'alpha' of another type": model([node("Elu", ["x"], ["y"], alpha="high")]),
    "reads 'z', which nothing": model([TWICE], functions=[function(node("Relu", ["z"], ["b"]))]),
}


@pytest.mark.parametrize("flaw", FLAWED)
def test_a_flaw_is_told_in_words(flaw):
    assert flaw in find_flaw(FLAWED[flaw])


@pytest.mark.parametrize(
    "healthy",
    [
        model([RELU]),
        model([choice("one")]),
        model([TWICE], functions=[function(node("Relu", ["a"], ["b"]))]),
        model([node("NewerThanOnnx", ["x"], ["y"])]),
        onnx.load(ONNX_MODELS / "light" / "light_squeezenet.onnx"),
    ],
)
def test_a_healthy_graph_has_none(healthy):
    assert find_flaw(healthy) is None
