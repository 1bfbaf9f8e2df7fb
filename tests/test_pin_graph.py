"""Dynamic graphs made fixed in memory: nothing stays open, nothing changes, and what would change is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from optimum_fixedshape import generate_inputs, read_contract
from optimum_fixedshape.errors import FixedShapeError, InvalidModelError, ShapeMismatchError
from optimum_fixedshape.graph.pin import pin_graph
from optimum_fixedshape.graph.weights import walk_graphs

from . import stock
from .graphs import ONNX_MODELS, ORT_MODELS
from .onnx_models import build, value

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
SIZES = {
    **{"batch_size": 2, "sequence_length": 7, "past_sequence_length": 5, "total_sequence_length": 12},
    **{"encoder_sequence_length": 9, "num_channels": 3, "height": 16, "width": 16},
}
STOCK = [
    *("gpt2/model", "gpt2-plain/model", "llama/model", "bloom/model", "opt/model", "t5/encoder_model"),
    *("t5/decoder_with_past_model", "bart/decoder_model", "whisper/encoder_model", "trocr/encoder_model"),
]
node = helper.make_node


def assert_is_fixed(model: onnx.ModelProto) -> None:
    """Every input, output and result of a node, inside branches too, has a shape of numbers."""
    onnx.checker.check_model(model)
    for graph in walk_graphs(model.graph):
        stated = {each.name: each for each in (*graph.input, *graph.output, *graph.value_info)}
        made = {name for made_by in graph.node for name in made_by.output if name}
        assert made <= stated.keys()
        for name, each in stated.items():
            assert each.type.tensor_type.HasField("shape"), name
            assert all(dim.WhichOneof("value") == "dim_value" for dim in each.type.tensor_type.shape.dim), name


def run(model, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(source, options).run(None, feeds)


def sizes_for(path):
    return {role: SIZES[role] for role, size in read_contract(path).sizes.items() if size is None}


def assert_answers_as(pinned, path, sizes):
    feeds = generate_inputs(path, sizes=sizes)
    for ours, theirs in zip(run(pinned, feeds), run(path, feeds), strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, atol=1e-5 * max(1.0, float(np.abs(theirs).max())))


def shape_of(model, place=0):
    return [dim.dim_value for dim in model.graph.output[place].type.tensor_type.shape.dim]


def ops(model):
    return [each.op_type for graph in walk_graphs(model.graph) for each in graph.node]


@pytest.mark.parametrize("name", STOCK)
def test_stock_exports_are_fixed_throughout_and_answer_as_before(name):
    folder, _, file = name.partition("/")
    path = stock.graphs(folder) / f"{file}.onnx"
    model = onnx.load(path)
    before = model.SerializeToString()
    pinned = pin_graph(model, sizes_for(path))
    assert model.SerializeToString() == before
    assert_is_fixed(pinned)
    assert not {"Shape", "Range", "If"} & set(ops(pinned))
    assert_answers_as(pinned, path, sizes_for(path))
    again = pin_graph(model, sizes_for(path))
    assert again.SerializeToString(deterministic=True) == pinned.SerializeToString(deterministic=True)


def test_an_export_by_dynamo_is_fixed_throughout(dynamic):
    path = dynamic.folder / "model.onnx"
    pinned = pin_graph(onnx.load(path), {"batch_size": 3, "sequence_length": 11})
    assert_is_fixed(pinned)
    assert_answers_as(pinned, path, {"batch_size": 3, "sequence_length": 11})
    assert sum(len(tensor.raw_data) for tensor in pinned.graph.initializer) < 1.01 * path.stat().st_size


@pytest.mark.parametrize(
    "path", [*sorted(ONNX_MODELS.glob("light/*.onnx")), *ORT_MODELS.glob("[ms]*.onnx")], ids=lambda path: path.stem
)
def test_fixed_graphs_are_proven_to_be(path):
    pinned = pin_graph(onnx.load(path), {})
    assert_is_fixed(pinned)
    assert shape_of(pinned) == [axis.size for axis in read_contract(path).outputs[0].axes]


def test_operators_of_onnxruntime_are_proven_by_onnxruntime():
    model = build(
        [
            node("SkipLayerNormalization", ["x", "x", "scale"], ["normed", "", "", "sum"], domain="com.microsoft"),
            node("Shape", ["sum"], ["sizes"]),
            node("Reshape", ["normed", "sizes"], ["back"]),
            node("FusedMatMul", ["back", "back"], ["y"], transB=1, domain="com.microsoft"),
        ],
        [value("x", FLOAT, ["batch", "length", 4])],
        [value("y", FLOAT, ["batch", "length", "length"])],
        {"scale": np.ones(4, np.float32)},
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    pinned = pin_graph(model, {"batch": 2, "length": 3})
    assert shape_of(pinned) == [2, 3, 3]
    assert len(pinned.graph.value_info) == 3
    assert "Shape" not in ops(pinned)


# ---- what is asked for


def two_axes(target, *, outputs=("batch", "length", 64)):
    nodes = [node("Reshape", ["x", "target"], ["folded"], name="fold"), node("Relu", ["folded"], ["y"])]
    inputs = [value("x", FLOAT, ["batch", "length", 64])]
    return build(nodes, inputs, [value("y", FLOAT, list(outputs))], {"target": np.array(target)})


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"batch": 3}, r"left open in x: float32\[3, length, 64\]: give sizes for length"),
        ({"batch": 3, "length": 8, "width": 2}, "no axis 'width' to pin. It has: batch, length"),
        ({"batch": 3, "length": 10**12}, r"x would be an array of 3 x 1000000000000 x 64 numbers, and at most"),
        ({"batch": 0, "length": 8}, "batch must be a whole number of 1 or more, got 0"),
        ({"batch": 1.5, "length": 8}, r"batch must be a whole number of 1 or more, got 1\.5"),
    ],
)
def test_sizes_that_make_no_sense_are_refused(sizes, message):
    with pytest.raises(ShapeMismatchError, match=message):
        pin_graph(two_axes([0, 0, 64]), sizes)


def test_values_that_no_machine_holds_are_refused_before_they_are_made():
    nodes = [node("Shape", ["x"], ["sizes"]), node("Concat", ["sizes", "sizes"], ["twice"], axis=0)]
    nodes += [node("ConstantOfShape", ["twice"], ["y"], name="square")]
    model = build(nodes, [value("x", FLOAT, ["n"])], [value("y", FLOAT, None)])
    with pytest.raises(InvalidModelError, match=r"ConstantOfShape node 'square'.*1000000000000 numbers"):
        pin_graph(model, {"n": 10**6})


def test_axes_of_one_name_have_one_size():
    inputs = [value(name, INT64, ["batch", "n"]) for name in ("input_ids", "other")]
    model = build([node("Add", ["input_ids", "other"], ["y"])], inputs, [value("y", INT64, ["batch", "n"])])
    roles = {"other": ["batch_size", "places"]}
    with pytest.raises(ShapeMismatchError, match=r"calls several axes 'n', which therefore have one size.*4 and 5"):
        pin_graph(model, {"batch_size": 1, "sequence_length": 4, "places": 5}, roles=roles)
    pinned = pin_graph(model, {"batch_size": 1, "n": 4}, roles=roles)
    assert shape_of(pinned) == [1, 4]


def test_what_is_baked_in_need_not_be_named_and_cannot_be_changed():
    inputs = [value("input_ids", INT64, [3, "n"]), value("attention_mask", INT64, ["rows", "n"])]
    model = build([node("Mul", ["input_ids", "attention_mask"], ["y"])], inputs, [value("y", INT64, [3, "n"])])
    pinned = pin_graph(model, {"sequence_length": 5})
    assert [[dim.dim_value for dim in each.type.tensor_type.shape.dim] for each in pinned.graph.input] == [[3, 5]] * 2
    with pytest.raises(ShapeMismatchError, match="batch_size is baked into the graph as 3 and cannot become 2"):
        pin_graph(model, {"batch_size": 2, "sequence_length": 5})


# ---- what is baked in


def test_sizes_that_were_baked_in_are_fine_where_they_are_the_ones_asked_for():
    assert shape_of(pin_graph(two_axes([-1, 8, 64]), {"batch": 4, "length": 8})) == [4, 8, 64]


@pytest.mark.parametrize(("batch", "length"), [(4, 16), (1, 16), (3, 5), (2, 4)])
def test_a_baked_in_reshape_is_named_with_sizes_that_work(batch, length):
    with pytest.raises(ShapeMismatchError) as caught:
        pin_graph(two_axes([-1, 8, 64]), {"batch": batch, "length": length})
    error = caught.value
    assert (error.node, error.op_type, error.works[0]) == ("fold", "Reshape", {"length": 8})
    assert f"Reshape node 'fold' does not allow for batch {batch}, length {length}" in str(error)
    assert "a size baked in: target = [-1, 8, 64]. It would work at length 8" in str(error)


def test_a_size_that_is_baked_in_twice_is_named_for_both_axes():
    with pytest.raises(ShapeMismatchError, match="It would work at batch 1 with length 8") as caught:
        pin_graph(two_axes([1, 8, 64]), {"batch": 2, "length": 16})
    assert caught.value.works == ({"batch": 1, "length": 8},)


def test_reshapes_that_follow_the_sizes_are_no_mistake():
    halves = two_axes([0, -1, 2, 32], outputs=("batch", "length", 2, 32))
    assert shape_of(pin_graph(halves, {"batch": 4, "length": 16})) == [4, 16, 2, 32]
    flat = two_axes([-1, 64], outputs=("places", 64))
    assert shape_of(pin_graph(flat, {"batch": 4, "length": 16})) == [64, 64]


def test_outputs_of_a_quarter_of_the_size_are_no_mistake():
    pool = node("MaxPool", ["pixel_values"], ["y"], kernel_shape=[4, 4], strides=[4, 4])
    axes = ["batch", 3, "height", "width"]  # as exporters write them, though the output is smaller
    model = build([pool], [value("pixel_values", FLOAT, axes)], [value("y", FLOAT, axes)])
    assert shape_of(pin_graph(model, {"batch_size": 2, "height": 32, "width": 48})) == [2, 3, 8, 12]


def positions(length, *, gather):
    """Rows of features with learned positions added, of which there are `length`."""
    ends = {"zero": np.array(0), "one": np.array(1), "table": np.ones((length, 4), np.float32)}
    ranged = [
        node("Shape", ["x"], ["n"], start=1, end=2),
        node("Squeeze", ["n"], ["end"]),
        node("Range", ["zero", "end", "one"], ["places"]),
        node("Gather", ["table", "places"], ["found"], name="lookup"),
    ]
    nodes = (
        [*ranged, node("Add", ["x", "found"], ["y"])] if gather else [node("Add", ["x", "table"], ["y"], name="sum")]
    )
    return build(nodes, [value("x", FLOAT, ["b", "n", 4])], [value("y", FLOAT, ["b", "n", 4])], ends)


@pytest.mark.parametrize(("gather", "name"), [(True, "lookup"), (False, "sum")])
def test_a_table_of_positions_that_is_too_short_is_named(gather, name):
    assert shape_of(pin_graph(positions(8, gather=gather), {"b": 2, "n": 8})) == [2, 8, 4]
    with pytest.raises(ShapeMismatchError, match=r"table of shape \[8, 4\]\. It would work at n.* 8") as caught:
        pin_graph(positions(8, gather=gather), {"b": 2, "n": 9})
    assert caught.value.node == name


def test_a_table_that_given_positions_are_looked_up_in_is_named(dynamic):
    most = dynamic.original.config.max_position_embeddings
    model = onnx.load(dynamic.folder / "model.onnx")
    with pytest.raises(ShapeMismatchError, match=f"Gather node .* table has {most} positions, and a row may have"):
        pin_graph(model, {"batch_size": 1, "sequence_length": most + 1})
    with pytest.raises(ShapeMismatchError) as caught:
        pin_graph(model, {"batch_size": 2, "sequence_length": most + 1})
    assert {"batch_size": 1} not in caught.value.works


# ---- what cannot be fixed


def data_dependent():
    x, y = [value("x", FLOAT, ["n", 4])], [value("y", INT64, None)]
    body = helper.make_graph(
        [node("Identity", ["go"], ["on"]), node("Add", ["carried", "carried"], ["doubled"])],
        "body",
        [value("step", INT64, []), value("go", BOOL, []), value("carried", FLOAT, [3, 4])],
        [value("on", BOOL, []), value("doubled", FLOAT, [3, 4])],
    )
    return {
        "NonZero": build([node("NonZero", ["x"], ["y"], name="found")], x, y),
        "Unique": build([node("Unique", ["x"], ["y"], name="found")], x, [value("y", FLOAT, None)]),
        "Loop": build(
            [node("Loop", ["times", "", "x"], ["y"], name="found", body=body)],
            [*x, value("times", INT64, [])],
            [value("y", FLOAT, None)],
        ),
        "Reshape": build(
            [node("Reshape", ["x", "target"], ["y"], name="found")],
            [*x, value("target", INT64, [2])],
            [value("y", FLOAT, None)],
        ),
        "SequenceEmpty": build(
            [node("SequenceEmpty", [], ["empty"], name="found"), node("SequenceLength", ["empty"], ["y"])], x, y
        ),
    }


@pytest.mark.parametrize("op_type", data_dependent())
def test_shapes_that_depend_on_the_data_are_refused_by_name(op_type):
    with pytest.raises(InvalidModelError, match=f"cannot be fixed: {op_type} node 'found' has no fixed shape, becau"):
        pin_graph(data_dependent()[op_type], {"n": 3})


def test_what_nothing_needs_is_not_looked_at():
    nodes = [node("NonZero", ["x"], ["places"]), node("Relu", ["x"], ["y"])]
    model = build(nodes, [value("x", FLOAT, ["n"])], [value("y", FLOAT, ["n"])])
    assert ops(pin_graph(model, {"n": 3})) == ["Relu"]


def test_a_sequence_of_maps_is_refused_and_what_is_before_it_is_not():
    model = onnx.load(ORT_MODELS / "logreg_iris.onnx")
    with pytest.raises(FixedShapeError, match=r"ZipMap node 'ZipMap' has no fixed shape, because it gives a sequence"):
        pin_graph(model, {})
    model.graph.output.pop()
    model.graph.output.append(value("probability_tensor_normalized", FLOAT, ["n", "labels"]))
    pinned = pin_graph(model, {})
    assert ops(pinned) == ["LinearClassifier", "Normalizer"]
    assert [shape_of(pinned, place) for place in (0, 1)] == [[3], [3, 3]]


# ---- what is folded


def test_sizes_are_computed_as_onnxruntime_does():
    nodes = [
        node("Shape", ["x"], ["n"]),
        node("Neg", ["n"], ["minus"]),
        node("Div", ["minus", "two"], ["half"]),  # rounded to zero, where NumPy rounds down
        node("Neg", ["half"], ["ends"]),
        node("Slice", ["x", "zero", "ends"], ["y"]),
    ]
    model = build(
        nodes,
        [value("x", FLOAT, ["n"])],
        [value("y", FLOAT, ["half"])],
        {"two": np.array([2]), "zero": np.array([0])},
    )
    pinned = pin_graph(model, {"n": 5})
    assert ops(pinned) == ["Slice"]
    assert shape_of(pinned) == list(run(model, {"x": np.ones(5, np.float32)})[0].shape) == [2]


def test_weights_and_what_is_made_of_them_are_not_folded():
    nodes = [node("Transpose", ["w"], ["turned"]), node("MatMul", ["x", "turned"], ["y"])]
    inputs, outputs = [value("x", FLOAT, ["n", 32])], [value("y", FLOAT, ["n", 64])]
    model = build(nodes, inputs, outputs, {"w": np.ones((64, 32), np.float32)})
    pinned = pin_graph(model, {"n": 2})
    assert ops(pinned) == ["Transpose", "MatMul"]
    assert [tensor.name for tensor in pinned.graph.initializer] == ["w"]


def test_a_logarithm_is_left_to_the_machine_that_runs_it():
    nodes = [node("Shape", ["x"], ["n"]), node("Cast", ["n"], ["float"], to=FLOAT), node("Log", ["float"], ["log"])]
    nodes += [node("Mul", ["x", "log"], ["y"])]
    pinned = pin_graph(build(nodes, [value("x", FLOAT, ["n"])], [value("y", FLOAT, ["n"])]), {"n": 5})
    assert ops(pinned) == ["Log", "Mul"]


def choice(condition):
    """``If`` on what `condition` makes, with branches that call their insides the same."""

    def branch(name, op_type):
        nodes = [node(op_type, ["x"], ["inner"]), node("Add", ["inner", "one"], [name])]
        weights = [helper.make_tensor("one", FLOAT, [1], [1.0])]
        return helper.make_graph(nodes, name, [], [value(name, FLOAT, None)], weights)

    chooser = node("If", ["go"], ["y"], then_branch=branch("then", "Relu"), else_branch=branch("else", "Neg"))
    twice = node("If", ["go"], ["z"], then_branch=branch("then2", "Relu"), else_branch=branch("else2", "Neg"))
    inputs = [value("x", FLOAT, ["n"])]
    inputs += [] if condition else [value("go", BOOL, [])]
    outputs = [value("y", FLOAT, ["n"]), value("z", FLOAT, ["n"])]
    return build([*condition, chooser, twice], inputs, outputs, {"three": np.array([3])})


@pytest.mark.parametrize("size", [3, 4])
def test_branches_that_a_size_chooses_take_the_place_of_their_if(size):
    model = choice([node("Shape", ["x"], ["n"]), node("Equal", ["n", "three"], ["go"])])
    pinned = pin_graph(model, {"n": size})
    assert_is_fixed(pinned)
    assert "If" not in ops(pinned)
    feeds = {"x": np.linspace(-1, 1, size, dtype=np.float32)}
    np.testing.assert_array_equal(run(pinned, feeds), run(model, feeds))


@pytest.mark.parametrize("go", [True, False])
def test_branches_that_the_data_chooses_stay_and_are_proven(go):
    model = choice([])
    pinned = pin_graph(model, {"n": 3})
    assert_is_fixed(pinned)
    assert ops(pinned).count("If") == 2
    feeds = {"x": np.linspace(-1, 1, 3, dtype=np.float32), "go": np.array(go)}
    np.testing.assert_array_equal(run(pinned, feeds), run(model, feeds))


def test_functions_of_the_model_are_put_in_place_of_their_calls():
    model = build([node("Twice", ["x"], ["y"], domain="mine")], [value("x", FLOAT, ["n"])], [value("y", FLOAT, ["n"])])
    model.opset_import.append(helper.make_opsetid("mine", 1))
    twice = [node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], twice, [helper.make_opsetid("", 17)]))
    pinned = pin_graph(model, {"n": 3})
    assert (ops(pinned), len(pinned.functions), shape_of(pinned)) == (["Add"], 0, [3])


def test_functions_are_put_in_place_beside_weights():
    nodes = [node("Twice", ["x"], ["b"], domain="mine"), node("Add", ["b", "w"], ["y"])]
    weight = np.array([1, 2, 3], np.float32)
    model = build(nodes, [value("x", FLOAT, ["n"])], [value("y", FLOAT, ["n"])], {"w": weight})
    model.opset_import.append(helper.make_opsetid("mine", 1))
    twice = [node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("mine", "Twice", ["a"], ["b"], twice, [helper.make_opsetid("", 17)]))
    pinned = pin_graph(model, {"n": 3})
    assert (ops(pinned), len(pinned.functions)) == (["Add", "Add"], 0)
    np.testing.assert_array_equal(run(pinned, {"x": weight})[0], 3 * weight)


def test_axes_without_a_name_are_asked_for_by_roles():
    model = build([node("Neg", ["x"], ["y"])], [value("x", FLOAT, [3, None])], [value("y", FLOAT, [3, None])])
    with pytest.raises(ShapeMismatchError, match=r"left open in x.*: say with roles= what the axes without a name"):
        pin_graph(model, {})


def test_inputs_under_other_names_have_the_roles_of_standard_ones():
    model = build(
        [node("Relu", ["data_0"], ["y"])], [value("data_0", FLOAT, ["a", 3, "b", "c"])], [value("y", FLOAT, None)]
    )
    sizes = {"batch_size": 2, "height": 8, "width": 9}
    assert shape_of(pin_graph(model, sizes, names={"data_0": "pixel_values"})) == [2, 3, 8, 9]


def test_the_contract_of_a_pinned_graph_is_fixed(tmp_path):
    path = stock.graphs("gpt2") / "model.onnx"
    onnx.save(pin_graph(onnx.load(path), sizes_for(path)), tmp_path / "model.onnx")
    contract = read_contract(tmp_path / "model.onnx")
    assert contract.is_fixed
    assert {role: contract.sizes[role] for role in sizes_for(path)} == sizes_for(path)


def small(nodes, inputs=None, weights=None):
    """``x`` of open length to ``y``."""
    return build(nodes, inputs or [value("x", FLOAT, ["n"])], [value("y", FLOAT, None)], weights)


def two_shapes():
    branches = (
        helper.make_graph([node(op, ["x"], [op])], op, [], [value(op, FLOAT, None)]) for op in ("Relu", "Flatten")
    )
    then_branch, else_branch = branches
    return small(
        [node("If", ["go"], ["y"], then_branch=then_branch, else_branch=else_branch)],
        [value("x", FLOAT, ["n"]), value("go", BOOL, [])],
    )


def with_a_damaged_constant():
    model = small([node("Add", ["x", "w"], ["y"])], weights={"w": np.ones(1, np.float32)})
    model.graph.initializer[0].raw_data = b"\0\0"
    return model


REFUSED = {
    "If node .* its branches give different shapes": two_shapes(),
    "reads 'z', which nothing before it makes": small([node("Add", ["x", "z"], ["y"])]),
    "Gather node 'y' is malformed": small([node("Gather", ["x"], ["y"])]),
    "constant 'w' is damaged": with_a_damaged_constant(),
}


@pytest.mark.parametrize("problem", REFUSED)
def test_what_does_not_hold_together_is_refused(problem):
    with pytest.raises(InvalidModelError, match=problem):
        pin_graph(REFUSED[problem], {"n": 3})


def test_inputs_without_a_shape_are_refused():
    with pytest.raises(ShapeMismatchError, match="does not say how many axes its input x has"):
        pin_graph(small([node("Relu", ["x"], ["y"])], [value("x", FLOAT, None)]), {})


def test_sizes_that_an_operator_of_onnxruntime_refuses():
    model = small(
        [node("FusedMatMul", ["x", "w"], ["y"], domain="com.microsoft")],
        [value("x", FLOAT, ["n", "m"])],
        {"w": np.ones((4, 2), np.float32)},
    )
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(ShapeMismatchError, match="FusedMatMul node 'y' does not allow for n 2, m 3"):
        pin_graph(model, {"n": 2, "m": 3})


def test_places_that_are_counted_in_a_constant_are_known():
    nodes = [node("NonZero", ["w"], ["places"]), node("Cast", ["places"], ["floats"], to=FLOAT)]
    nodes += [node("Mul", ["x", "floats"], ["y"])]
    pinned = pin_graph(small(nodes, weights={"w": np.array([0, 1, 1])}), {"n": 2})
    assert shape_of(pinned) == [1, 2]
    assert ops(pinned) == ["Mul"]


def test_what_onnxruntime_does_not_compute_is_left_to_the_run():
    """A place outside of its table is known before it runs, and is an error only when it does."""
    nodes = [node("GatherElements", ["w", "far"], ["g"], axis=0), node("Add", ["x", "g"], ["y"])]
    pinned = pin_graph(small(nodes, weights={"w": np.ones(2, np.float32), "far": np.array([9])}), {"n": 2})
    assert ops(pinned) == ["GatherElements", "Add"]


def test_constants_of_other_domains_are_not_computed():
    nodes = [node("Gelu", ["w"], ["g"], domain="com.microsoft"), node("Add", ["x", "g"], ["y"])]
    model = small(nodes, weights={"w": np.ones(2, np.float32)})
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert ops(pin_graph(model, {"n": 2})) == ["Gelu", "Add"]


def test_branches_in_branches_keep_their_insides_apart():
    def inner(name, op_type):
        return helper.make_graph([node(op_type, ["made"], [name])], name, [], [value(name, FLOAT, None)])

    def outer(name):
        nodes = [
            node("LeakyRelu", ["x"], ["made"], alpha=0.5),
            node("If", ["go"], [name], then_branch=inner(f"{name}1", "Neg"), else_branch=inner(f"{name}2", "Abs")),
        ]
        return helper.make_graph(nodes, name, [], [value(name, FLOAT, None)])

    model = small(
        [
            node("Shape", ["x"], ["n"]),
            node("Equal", ["n", "three"], ["is_three"]),
            node("If", ["is_three"], ["chosen"], then_branch=outer("a"), else_branch=outer("b")),
            node("If", ["is_three"], ["again"], then_branch=outer("c"), else_branch=outer("d")),
            node("Add", ["chosen", "again"], ["y"]),
        ],
        [value("x", FLOAT, ["n"]), value("go", BOOL, [])],
        {"three": np.array([3])},
    )
    pinned = pin_graph(model, {"n": 3})
    feeds = {"x": np.linspace(-1, 1, 3, dtype=np.float32), "go": np.array(True)}
    np.testing.assert_array_equal(run(pinned, feeds), run(model, feeds))


def test_a_sequence_cannot_be_pinned():
    model = small([node("SequenceLength", ["x"], ["y"])], [helper.make_tensor_sequence_value_info("x", FLOAT, [2])])
    with pytest.raises(ShapeMismatchError, match=r"does not say how many axes its input x has \(sequence"):
        pin_graph(model, {})


def test_sparse_weights_have_a_shape():
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", FLOAT, [1], [2.0]), helper.make_tensor("places", INT64, [1], [1]), [3]
    )
    model = small([node("Add", ["x", "w"], ["y"])])
    model.graph.sparse_initializer.append(sparse)
    assert shape_of(pin_graph(model, {"n": 3})) == [3]
