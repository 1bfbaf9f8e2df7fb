"""Several graphs and one weights file, read back by onnx and by real sessions."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimum_fixedshape.errors import FixedShapeError, InvalidModelError
from optimum_fixedshape.graph.weights import WEIGHTS_NAME, save_rungs, walk_graphs

WIDTH = 64
HUGE = 600  # squared and in float32 above the mebibyte from which tensors start on a page


def weight(seed, *, shape=(WIDTH, WIDTH)):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def rung(length, tensors):
    """A chain of matrix products on ``(length, width)``, one for each initializer."""
    width = next(iter(tensors.values())).shape[0]
    names = ["x", *(f"after_{name}" for name in tensors)]
    nodes = [
        helper.make_node("MatMul", [before, name], [after])
        for before, name, after in zip(names, tensors, names[1:], strict=False)
    ]
    graph = helper.make_graph(
        nodes,
        "rung",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [length, width])],
        [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, [length, width])],
        [numpy_helper.from_array(array, name) for name, array in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def ladder(lengths=(4, 8)):
    return {f"model_{length}.onnx": rung(length, {"a": weight(1), "b": weight(2)}) for length in lengths}


def copy_of(models):
    copies = {name: onnx.ModelProto.FromString(model.SerializeToString()) for name, model in models.items()}
    return copies.items()


def run(model, length, *, width=WIDTH):
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": weight(9, shape=(length, width))})[0]


def entries(path):
    model = onnx.load(path, load_external_data=False)
    return {
        tensor.name: {entry.key: entry.value for entry in tensor.external_data}
        for graph in walk_graphs(model.graph)
        for tensor in graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }


def test_two_rungs_share_one_file_of_one_models_size(tmp_path):
    saved = save_rungs(copy_of(ladder()), folder=tmp_path)
    one_model = 2 * WIDTH * WIDTH * 4
    assert sorted(path.name for path in tmp_path.iterdir()) == [WEIGHTS_NAME, "model_4.onnx", "model_8.onnx"]
    assert saved.weights.stat().st_size == saved.weights_bytes == saved.shared_bytes == one_model
    assert all(path.stat().st_size < 1000 for path in saved.paths)


def test_saved_graphs_answer_as_before(tmp_path):
    models = ladder()
    saved = save_rungs(copy_of(models), folder=tmp_path)
    for path, length in zip(saved.paths, (4, 8), strict=True):
        onnx.checker.check_model(path, full_check=True)
        np.testing.assert_array_equal(run(str(path), length), run(models[path.name].SerializeToString(), length))
        assert onnx.load(path) is not None


def test_equal_tensors_are_written_once_whatever_their_names(tmp_path):
    models = {
        "one.onnx": rung(4, {"a": weight(1), "twin": weight(1)}),
        "two.onnx": rung(4, {"c": weight(1), "d": weight(2)}),
    }
    saved = save_rungs(copy_of(models), folder=tmp_path)
    one, two = map(entries, saved.paths)
    assert one["a"] == one["twin"] == two["c"] != two["d"]
    assert saved.weights_bytes == 2 * WIDTH * WIDTH * 4
    np.testing.assert_array_equal(run(str(saved.paths[0]), 4), run(models["one.onnx"].SerializeToString(), 4))


def test_tensors_start_where_they_can_be_mapped(tmp_path):
    odd = weight(1, shape=(HUGE, HUGE))
    model = rung(2, {"first": odd, "second": weight(2, shape=(HUGE, HUGE))})
    model.graph.initializer.append(numpy_helper.from_array(weight(3, shape=(300,)), "spare"))
    small = numpy_helper.from_array(weight(4, shape=(301,)), "first_in_file")
    model.graph.initializer.insert(0, small)
    path = save_rungs([("model.onnx", model)], folder=tmp_path).paths[0]
    offsets = {name: int(entry["offset"]) for name, entry in entries(path).items()}
    assert offsets.keys() == {"first_in_file", "first", "second", "spare"}
    assert all(offset % 64 == 0 for offset in offsets.values())
    assert offsets["first"] % 4096 == offsets["second"] % 4096 == 0
    np.testing.assert_array_equal(numpy_helper.to_array(onnx.load(path).graph.initializer[1]), odd)


def test_the_same_models_give_the_same_bytes(tmp_path):
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        save_rungs(copy_of(ladder()), folder=folder)
    one, two = ({path.name: path.read_bytes() for path in folder.iterdir()} for folder in folders)
    assert one == two


def test_small_initializers_stay_in_their_graph(tmp_path):
    saved = save_rungs([("model.onnx", rung(2, {"a": weight(1, shape=(16, 16))}))], folder=tmp_path)
    assert (saved.weights, saved.weights_bytes) == (None, 0)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert run(str(saved.paths[0]), 2, width=16).shape == (2, 16)


@pytest.mark.parametrize(
    "tensor",
    [
        helper.make_tensor("a", TensorProto.FLOAT, [300], np.arange(300.0)),
        helper.make_tensor("a", TensorProto.INT64, [300], np.arange(300)),
        helper.make_tensor("a", TensorProto.FLOAT16, [600], np.arange(600.0)),
        helper.make_tensor("a", TensorProto.BFLOAT16, [600], np.arange(600.0)),
        helper.make_tensor("a", TensorProto.UINT4, [3000], np.arange(3000) % 16),
    ],
    ids=lambda tensor: TensorProto.DataType.Name(tensor.data_type),
)
def test_typed_fields_move_as_well(tensor, tmp_path):
    assert not tensor.raw_data
    expected = numpy_helper.to_array(tensor)
    model = helper.make_model(helper.make_graph([], "only", [], [], [tensor]))
    path = save_rungs([("model.onnx", model)], folder=tmp_path).paths[0]
    assert entries(path).keys() == {"a"}
    np.testing.assert_array_equal(numpy_helper.to_array(onnx.load(path).graph.initializer[0]), expected)


def test_strings_stay(tmp_path):
    tensor = helper.make_tensor("a", TensorProto.STRING, [500], [b"word"] * 500)
    model = helper.make_model(helper.make_graph([], "only", [], [], [tensor]))
    path = save_rungs([("model.onnx", model)], folder=tmp_path).paths[0]
    assert list(onnx.load(path).graph.initializer[0].string_data) == [b"word"] * 500


def test_branches_give_up_their_weights_too(tmp_path):
    def branch(name, seed):
        output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, [2, WIDTH])
        node = helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_y"])
        return helper.make_graph([node], name, [], [output], [numpy_helper.from_array(weight(seed), f"{name}_w")])

    choice = helper.make_node("If", ["flag"], ["y"], then_branch=branch("yes", 1), else_branch=branch("no", 2))
    graph = helper.make_graph(
        [choice],
        "choice",
        [
            helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, WIDTH]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, WIDTH])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    path = save_rungs([("model.onnx", model)], folder=tmp_path).paths[0]
    assert entries(path).keys() == {"yes_w", "no_w"}
    x = weight(9, shape=(2, WIDTH))
    session = ort.InferenceSession(str(path))
    for flag, seed in ((True, 1), (False, 2)):
        got = session.run(None, {"flag": np.array(flag), "x": x})[0]
        np.testing.assert_allclose(got, x @ weight(seed), rtol=1e-4, atol=1e-4)


def test_a_generator_never_has_two_models_in_memory(tmp_path):
    alive = set()

    class Watched:
        def __init__(self, name, model):
            self.name, self.graph, self.SerializeToString = name, model.graph, model.SerializeToString
            alive.add(name)

        def __del__(self):
            alive.remove(self.name)

    def produced():
        for name, model in ladder().items():
            assert not alive
            yield name, Watched(name, model)

    save_rungs(produced(), folder=tmp_path)


def test_a_failure_leaves_the_folder_as_it_was(tmp_path):
    save_rungs(copy_of(ladder()), folder=tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def produced():
        yield "model_4.onnx", rung(4, {"a": weight(7)})
        raise FixedShapeError("the second export failed")

    with pytest.raises(FixedShapeError, match="second export"):
        save_rungs(produced(), folder=tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_weights_that_are_elsewhere_are_refused(tmp_path):
    saved = save_rungs(copy_of(ladder()), folder=tmp_path)
    light = onnx.load(saved.paths[0], load_external_data=False)
    with pytest.raises(InvalidModelError, match=r"again\.onnx holds initializer 'a' in a file of its own.*load_model"):
        save_rungs([("again.onnx", light)], folder=tmp_path / "new")
