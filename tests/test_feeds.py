"""Random inputs: real sessions take them, and they are such as models are given."""

from __future__ import annotations

import io

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, TypeProto, helper, numpy_helper

from optimum_fixedshape import generate_inputs, read_contract
from optimum_fixedshape.errors import InvalidModelError, MissingInputError, ShapeMismatchError

from . import stock
from .graphs import MAP, ONNX_MODELS, ORT_MODELS, typed_value
from .onnx_models import build, embedder, value

INT, FLOAT, BOOL, STRING = TensorProto.INT64, TensorProto.FLOAT, TensorProto.BOOL, TensorProto.STRING
REAL = [
    *sorted((ONNX_MODELS / "light").glob("*.onnx")),
    *sorted(ORT_MODELS.glob("*.onnx")),
    *(path for name in stock.names() for path in sorted(stock.graphs(name).glob("*.onnx"))),
]
SPECIMENS = ["vit", "detr", "wav2vec2", "whisper-encoder", "videomae", "clip", "layoutlmv3"]
TASKS = ["fill-mask", "multiple-choice"]


def run(model, feeds):
    """Returns the outputs of a session by name."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
    session = onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    return dict(zip((output.name for output in session.get_outputs()), session.run(None, feeds), strict=True))


def assert_runs(path, **settings):
    contract = read_contract(path)
    feeds = generate_inputs(contract, **settings)
    assert not contract.mismatches(feeds)
    for name, output in run(path, feeds).items():
        if isinstance(output, np.ndarray) and output.dtype.kind == "f":
            assert np.isfinite(output).all(), name
    return feeds


def saved(model, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("path", REAL, ids=lambda path: f"{path.parent.parent.name}-{path.stem}")
def test_real_graphs_run_on_what_is_made_for_them(path):
    first, again, other = assert_runs(path), generate_inputs(str(path)), generate_inputs(path, 1)
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other[name]) for name in first)


@pytest.mark.parametrize("name", SPECIMENS)
def test_models_that_see_and_hear_run_on_what_is_made_for_them(specimen, name):
    for path in sorted(specimen(name).folder.glob("*.onnx")):
        assert_runs(path)


@pytest.mark.parametrize("task", TASKS)
def test_models_that_read_run_on_what_is_made_for_them(exported, task):
    for path in sorted(exported(task).folder.glob("*.onnx")):
        feeds = assert_runs(path)
        real = feeds["attention_mask"].astype(bool)
        assert real.any(-1).all()
        assert not feeds["input_ids"][~real].any()
        assert 1000 < feeds["input_ids"].max() < 30522
        assert set(np.unique(feeds["token_type_ids"])) == {0, 1}


def test_dynamic_axes_take_the_sizes_that_are_asked_for(dynamic):
    path = dynamic.folder / "model.onnx"
    feeds = assert_runs(path, sizes={"batch_size": 5, "sequence_length": 11})
    assert {name: array.shape for name, array in feeds.items()} == dict.fromkeys(feeds, (5, 11))
    lengths = feeds["attention_mask"].sum(1)
    assert len(set(lengths.tolist())) == 5
    assert 1 <= lengths.min() < lengths.max() == 11
    assert (np.diff(feeds["attention_mask"], axis=1) <= 0).all()
    expected = np.where(feeds["attention_mask"] == 1, np.arange(11), 0)
    np.testing.assert_array_equal(feeds["position_ids"], expected)


def test_nothing_is_padded_where_that_is_not_wanted(dynamic):
    feeds = generate_inputs(dynamic.folder / "model.onnx", padded=False)
    assert feeds["attention_mask"].all()
    assert feeds["input_ids"].all()
    assert not generate_inputs(dynamic.folder / "model.onnx")["attention_mask"].all()


def test_sizes_that_the_graph_does_not_have_are_refused(dynamic):
    path = dynamic.folder / "model.onnx"
    with pytest.raises(ShapeMismatchError, match="sizes of 1 or more for batch_size, sequence_length, got height=9"):
        generate_inputs(path, sizes={"height": 9})
    with pytest.raises(ShapeMismatchError, match="must be 1 or more, got 0"):
        generate_inputs(path, sizes={"batch_size": 0})
    with pytest.raises(ShapeMismatchError, match="baked into the graph as 224"):
        generate_inputs(REAL[0], sizes={"height": 9})


def test_a_mask_covers_the_cache_and_the_new_tokens():
    path = stock.graphs("gpt2") / "model.onnx"
    feeds = assert_runs(path, sizes={"past_sequence_length": 3, "sequence_length": 4, "batch_size": 3})
    assert feeds["attention_mask"].shape == (3, 7)
    assert feeds["attention_mask"][:, :4].all()
    assert len(set(feeds["attention_mask"].sum(1).tolist())) == 3
    real = feeds["attention_mask"][:, 3:]
    np.testing.assert_array_equal(feeds["position_ids"], (3 + np.arange(4)) * real)
    assert np.abs(feeds["past_key_values.0.key"]).max() < 1


def test_the_length_of_a_mask_tells_that_of_the_cache():
    path = stock.graphs("gpt2") / "model.onnx"
    feeds = assert_runs(path, sizes={"total_sequence_length": 7, "sequence_length": 4})
    assert feeds["attention_mask"].shape[1] == 7
    assert feeds["past_key_values.0.key"].shape[2] == 3


def test_sounds_end_before_their_arrays_and_are_long_enough(specimen):
    for path in sorted(specimen("wav2vec2").folder.glob("*.onnx")):
        feeds = generate_inputs(path)
        lengths = feeds["attention_mask"].sum(1)
        assert lengths.max() == feeds["input_values"].shape[1]
        assert lengths.max() / 2 <= lengths.min() < lengths.max()
        assert not feeds["input_values"][feeds["attention_mask"] == 0].any()


def test_pixels_end_where_their_mask_says(specimen):
    (path,) = specimen("detr").folder.glob("*.onnx")
    feeds = generate_inputs(path)
    mask = np.broadcast_to(feeds["pixel_mask"][:, None], feeds["pixel_values"].shape) == 1
    assert not mask.all()
    assert not feeds["pixel_values"][~mask].any()
    assert abs(feeds["pixel_values"][mask].std() - 1) < 0.1


def test_corners_of_boxes_come_in_order(specimen):
    path, *_ = sorted(specimen("layoutlmv3").folder.glob("*.onnx"))
    boxes = generate_inputs(path)["bbox"]
    assert (boxes[..., 0] <= boxes[..., 2]).all()
    assert (boxes[..., 1] <= boxes[..., 3]).all()
    assert 100 < boxes.max() <= 1000


ROWS, WIDTH = 7, 3
TABLE = np.arange(ROWS * WIDTH, dtype=np.float32).reshape(ROWS, WIDTH)
QUANTIZED = TABLE.astype(np.uint8)


def looked_up(nodes, weights, dtype=INT):
    """A graph whose only input chooses rows of a table of seven."""
    return build(nodes, [value("numbers", dtype, ["n", "s"])], [value("y", FLOAT, None)], weights)


GATHER = helper.make_node("Gather", ["table", "row"], ["y"])
TABLES = {
    "plain": looked_up([helper.make_node("Gather", ["table", "numbers"], ["y"])], {"table": TABLE}),
    "cast and reshaped": looked_up(
        [
            helper.make_node("Cast", ["numbers"], ["wide"], to=INT),
            helper.make_node("Reshape", ["wide", "flat"], ["row"]),
            GATHER,
        ],
        {"table": TABLE, "flat": np.array([-1])},
        TensorProto.INT32,
    ),
    "smallest of several": looked_up(
        [
            helper.make_node("Gather", ["large", "numbers"], ["x"]),
            helper.make_node("Gather", ["table", "numbers"], ["z"]),
            helper.make_node("Add", ["x", "z"], ["y"]),
        ],
        {"table": TABLE, "large": np.ones((500, WIDTH), np.float32)},
    ),
    "on its side": looked_up(
        [
            helper.make_node("Transpose", ["sideways"], ["table"]),
            helper.make_node("Identity", ["numbers"], ["row"]),
            GATHER,
        ],
        {"sideways": np.ascontiguousarray(TABLE.T)},
    ),
    "quantized": looked_up(
        [
            helper.make_node("DequantizeLinear", ["quantized", "scale", "zero"], ["table"]),
            helper.make_node("Gather", ["table", "numbers"], ["y"]),
        ],
        {"quantized": QUANTIZED, "scale": np.array(0.5, np.float32), "zero": np.array(3, np.uint8)},
    ),
    "quantized rows": looked_up(
        [
            helper.make_node("Gather", ["quantized", "numbers"], ["rows"]),
            helper.make_node("DequantizeLinear", ["rows", "scale", "zero"], ["y"]),
        ],
        {"quantized": QUANTIZED, "scale": np.array(0.5, np.float32), "zero": np.array(3, np.uint8)},
    ),
    "constant": looked_up(
        [
            helper.make_node("Constant", [], ["table"], value=numpy_helper.from_array(TABLE)),
            helper.make_node("Gather", ["table", "numbers"], ["y"]),
        ],
        {},
    ),
}


@pytest.mark.parametrize("model", TABLES.values(), ids=TABLES)
def test_numbers_choose_rows_that_the_table_has(model, tmp_path):
    feeds = assert_runs(saved(model, tmp_path), sizes={"n": 20, "s": 30})
    assert set(np.unique(feeds["numbers"])) == set(range(ROWS))


def test_a_table_inside_a_branch_counts(tmp_path):
    def branch(name):
        nodes = [helper.make_node("Gather", ["table", "numbers"], [name])]
        return helper.make_graph(nodes, name, [], [value(name, FLOAT, None)])

    nodes = [helper.make_node("If", ["use_cache_branch"], ["y"], then_branch=branch("a"), else_branch=branch("b"))]
    inputs = [value("numbers", INT, [4, 50]), value("use_cache_branch", BOOL, [1])]
    feeds = assert_runs(saved(build(nodes, inputs, [value("y", FLOAT, None)], {"table": TABLE}), tmp_path))
    assert feeds["numbers"].max() == ROWS - 1
    assert feeds["use_cache_branch"].tolist() == [True]


def test_of_ids_kinds_and_masks_with_odd_names_each_is_told(tmp_path):
    nodes = [
        helper.make_node("Gather", ["words", "a"], ["x"]),
        helper.make_node("Gather", ["table", "b"], ["z"]),
        helper.make_node("Cast", ["c"], ["real"], to=FLOAT),
        helper.make_node("Unsqueeze", ["real", "last"], ["column"]),
        helper.make_node("Add", ["x", "z"], ["sum"]),
        helper.make_node("Mul", ["sum", "column"], ["y"]),
    ]
    weights = {"words": np.ones((90, WIDTH), np.float32), "table": TABLE[:2], "last": np.array([-1])}
    inputs = [value(name, INT, ["n", "s"]) for name in "abc"]
    feeds = assert_runs(saved(build(nodes, inputs, [value("y", FLOAT, None)], weights), tmp_path))
    real = feeds["c"].astype(bool)
    assert real[:, 0].all()
    assert not real.all()
    assert (np.diff(feeds["c"], axis=1) <= 0).all()
    assert not feeds["a"][~real].any()
    assert feeds["a"].max() > 1 >= feeds["b"].max()


@pytest.mark.parametrize("name", ["input_ids", "decoder_input_ids", "input_word_ids"])
@pytest.mark.parametrize("mask", ["attention_mask", "mask_ids", "input_mask:0"])
def test_ids_are_never_taken_for_a_mask_nor_masks_for_ids(name, mask):
    names = (name, mask, "input_type_ids")
    model = build([], [value(each, INT, [3, 6]) for each in names], [value("y", INT, [3, 6])])
    feeds = generate_inputs(read_contract(io.BytesIO(model.SerializeToString())))
    real = feeds[mask].astype(bool)
    assert (feeds[name] > 1).tolist() == real.tolist()
    assert set(feeds[mask].flat) == set(feeds["input_type_ids"].flat) == {0, 1}


def test_without_a_file_ids_are_small():
    feeds = generate_inputs(read_contract(io.BytesIO(embedder(3, 200).SerializeToString())))
    assert 50 < feeds["input_ids"].max() < 100
    assert feeds["input_ids"].shape == feeds["attention_mask"].shape == (3, 200)


KINDS = {
    "float32": FLOAT,
    "float16": TensorProto.FLOAT16,
    "float64": TensorProto.DOUBLE,
    "uint8": TensorProto.UINT8,
    "int8": TensorProto.INT8,
    "int32": TensorProto.INT32,
    "uint64": TensorProto.UINT64,
    "bool": BOOL,
    "string": STRING,
}


@pytest.mark.parametrize("dtype", KINDS)
@pytest.mark.parametrize("shape", [[], [3], ["n", "m"], ["n", 3, "h", 5], None], ids=str)
def test_every_type_and_rank(dtype, shape, tmp_path):
    kind = KINDS[dtype]
    tensor = value("x", kind, shape)
    model = build([helper.make_node("Identity", ["x"], ["y"])], [tensor], [value("y", kind, shape)])
    array = assert_runs(saved(model, tmp_path))["x"]
    assert array.dtype == (object if dtype == "string" else dtype)
    if dtype == "string":
        assert all(isinstance(word, str) for word in array.flat)


def test_bytes_of_pixels_take_the_whole_range(tmp_path):
    tensor = value("x", TensorProto.UINT8, [1, 3, 32, 32])
    model = build([helper.make_node("Identity", ["x"], ["y"])], [tensor], [value("y", TensorProto.UINT8, None)])
    pixels = generate_inputs(saved(model, tmp_path))["x"]
    assert (pixels.min(), pixels.max()) == (0, 255)


def test_more_numbers_than_a_model_takes_are_not_made(tmp_path):
    tensor = value("x", FLOAT, ["n", 2**16, 2**16])
    model = build([helper.make_node("Identity", ["x"], ["y"])], [tensor], [value("y", FLOAT, None)])
    with pytest.raises(ShapeMismatchError, match="hold 8589934592 numbers, expected at most 268435456"):
        generate_inputs(saved(model, tmp_path))


@pytest.mark.parametrize("type_", [MAP, value("x", TensorProto.BFLOAT16, [2]).type, TypeProto()], ids=str)
def test_what_no_array_can_hold_is_refused(type_, tmp_path):
    model = build([helper.make_node("Identity", ["x"], ["y"])], [typed_value("x", type_)], [typed_value("y", type_)])
    with pytest.raises(MissingInputError, match=r"No array can be made for x: .* onnxruntime\.OrtValue") as raised:
        generate_inputs(saved(model, tmp_path))
    assert raised.value.missing == ("x",)


def test_what_is_no_graph_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"hello world, this is no model\n")
    with pytest.raises(InvalidModelError):
        generate_inputs(path)


def made_for(*inputs, nodes=(), weights=None):
    model = build(nodes, [value(*each) for each in inputs], [], weights)
    return generate_inputs(read_contract(io.BytesIO(model.SerializeToString())))


def test_a_mask_that_is_added_to_scores_hides_nothing():
    assert not made_for(("attention_mask", FLOAT, [2, 1, 4, 4]))["attention_mask"].any()


def test_patches_of_documents_follow_their_row_and_column():
    patches = made_for(("flattened_patches", FLOAT, [2, 16, 10]), ("attention_mask", INT, [2, 16]))["flattened_patches"]
    assert patches.shape == (2, 16, 10)
    assert patches[..., :2].max() == 4


def test_rows_and_columns_of_patches_are_as_many_as_there_are():
    feeds = made_for(
        ("pixel_values", FLOAT, [2, 12, 48]), ("pixel_attention_mask", INT, [2, 12]), ("spatial_shapes", INT, [2, 2])
    )
    assert feeds["spatial_shapes"].prod(axis=1).tolist() == [12, 12]


def test_a_table_that_something_is_done_to_tells_no_rows(tmp_path):
    """Nor does one that is made in more steps than are followed: numbers are as for any vocabulary then."""
    steps = [helper.make_node("Identity", ["table" if i == 0 else f"t{i - 1}"], [f"t{i}"]) for i in range(20)]
    for nodes in ([helper.make_node("Relu", ["table"], ["t19"])], steps):
        made = looked_up([*nodes, helper.make_node("Gather", ["t19", "numbers"], ["y"])], {"table": TABLE})
        assert generate_inputs(saved(made, tmp_path))["numbers"].max() > ROWS
