"""Weights that lie about their size, and weights that are elsewhere: refused before a byte is read or allocated."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from optimum_fixedshape import ORTModelForSequenceClassification, pin_shapes, read_contract, write_config
from optimum_fixedshape.errors import GraphNotFoundError, InvalidModelError
from optimum_fixedshape.graph.loading import load_model
from optimum_fixedshape.graph.tensors import check_tensors, list_files
from optimum_fixedshape.sessions import SessionPool

from .graphs import LENGTH, MIB, message, nested_sequences, tag, varint
from .hub import LocalHub

DATA = np.arange(4, dtype=np.float32)
SECRET = "the secret of the folder above"


def external(location="w.bin", *, dims=(4,), data_type=TensorProto.FLOAT, **entries):
    tensor = TensorProto(name="w", data_type=data_type, dims=dims, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def value(name, size=4):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [size])


def adds(tensor):
    """``y = x + w``, with the weight among the initializers."""
    graph = helper.make_graph([helper.make_node("Add", ["x", "w"], ["y"])], "adds", [value("x")], [value("y")])
    graph.initializer.append(tensor)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def of_nodes(*nodes):
    graph = helper.make_graph(list(nodes), "of nodes", [value("x")], [value("y")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def constant(kind, **attribute):
    node = helper.make_node("Constant", [], ["w"])
    node.attribute.add(name="value", type=kind, **attribute)
    return node


def in_an_attribute(tensor):
    add = helper.make_node("Add", ["x", "w"], ["y"])
    return of_nodes(constant(AttributeProto.TENSOR, t=tensor), add)


def in_a_list(tensor):
    holder = constant(AttributeProto.TENSORS, tensors=[tensor])
    holder.domain = "mine"
    model = of_nodes(holder, helper.make_node("Identity", ["x"], ["y"]))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model


def in_a_branch(tensor):
    then = helper.make_graph([helper.make_node("Identity", ["w"], ["a"])], "then", [], [value("a")], [tensor])
    other = helper.make_graph([helper.make_node("Identity", ["x"], ["b"])], "other", [], [value("b")])
    flag = numpy_helper.from_array(np.array(True), "flag")
    choice = helper.make_node("If", ["flag"], ["y"], then_branch=then, else_branch=other)
    model = of_nodes(choice)
    model.graph.initializer.append(flag)
    return model


def in_a_branch_of_a_branch(tensor):
    model = in_a_branch(TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[0]))
    model.graph.node[0].attribute[0].g.node.insert(0, in_a_branch(tensor).graph.node[0])
    return model


def in_a_function(tensor):
    model = of_nodes(helper.make_node("Adds", ["x"], ["y"], domain="mine"))
    body = [constant(AttributeProto.TENSOR, t=tensor), helper.make_node("Add", ["x", "w"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("mine", "Adds", ["x"], ["y"], body, opsets))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    return model


def in_a_sparse_one(tensor):
    model = of_nodes(helper.make_node("Identity", ["x"], ["y"]))
    indices = numpy_helper.from_array(np.arange(4), "")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(tensor, indices, [8]))
    return model


PLACES = [
    adds, in_an_attribute, in_a_list, in_a_branch, in_a_branch_of_a_branch, in_a_function, in_a_sparse_one,
]  # fmt: skip

LIES = {
    "outside, by a link": (external("link.bin"), "outside its folder"),
    "outside, by a linked folder": (external("up/secret.bin"), "outside its folder"),
    "offset behind the end": (external(offset=17), "at offset 17, length 16, and that file has 16 bytes"),
    "offset below zero": (external(offset=-4), "at offset -4"),
    "huge offset": (external(offset=2**64), "at offset 18446744073709551616"),
    "offset in words": (external(offset="zero"), "at offset zero"),
    "offset in other digits": (external(offset="²"), "at offset ²"),
    "length behind the end": (external(length=2**40), "length 1099511627776"),
    "length below zero": (external(length=-16), "length -16"),
    "length that the dims contradict": (external(length=12), "length 12"),
    "dims beyond the file": (external(dims=[2**30]), "keeps the 4294967296 bytes of tensor 'w' in w.bin"),
    "two files": (TensorProto.FromString(external().SerializeToString() + external().SerializeToString()), "a second"),
    "strings": (external(data_type=TensorProto.STRING), "got type 8"),
    "no type": (external(data_type=0), "got type 0"),
    "a type to come": (external(data_type=99), "got type 99"),
    "dims beyond the inline bytes": (
        TensorProto(name="w", data_type=1, dims=[2**33], raw_data=DATA.tobytes()),
        "expected 34359738368 bytes for dims [8589934592], got 16",
    ),
    "fewer dims than inline bytes": (TensorProto(name="w", data_type=1, dims=[3], raw_data=DATA.tobytes()), "got 16"),
    "dims beyond the numbers": (TensorProto(name="w", data_type=1, dims=[2**33], float_data=DATA), "numbers for 34"),
    "dims beyond the strings": (TensorProto(name="w", data_type=8, dims=[2**33], string_data=[b"a"]), "strings for"),
    "dims and no numbers": (TensorProto(name="w", data_type=7, dims=[2**33]), "got 0 bytes"),
    "negative dims": (TensorProto(name="w", data_type=1, dims=[-1], raw_data=b""), "sizes that make sense, got [-1]"),
    "two negative dims": (TensorProto(name="w", data_type=1, dims=[-2, -2], raw_data=DATA.tobytes()), "make sense"),
    "dims that overflow": (TensorProto(name="w", data_type=1, dims=[2**32, 2**32], raw_data=b""), "make sense"),
    "an empty one that is huge": (TensorProto(name="w", data_type=1, dims=[0, 2**62], raw_data=b""), "make sense"),
    "too many dims": (TensorProto(name="w", data_type=1, dims=[1] * 65, raw_data=b"1234"), "at most 64 sizes"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    """A folder with a weights file, and links that lead out of it."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "w.bin").write_bytes(DATA.tobytes())
    (tmp_path / "secret.bin").write_bytes(DATA.tobytes())
    (folder / "link.bin").symlink_to("../secret.bin")
    (folder / "up").symlink_to("..")
    return folder


def saved(model, folder):
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def result(model):
    session = SessionPool().get(model, read_contract(model))
    return session.run(None, {"x": np.zeros(4, np.float32)})[0]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("tensor", "problem"), LIES.values(), ids=LIES)
def test_a_tensor_that_lies_is_refused_wherever_it_stands(tensor, problem, place, folder):
    path = saved(place(tensor), folder)
    tracemalloc.start()
    for refuse in (check_tensors, load_model, lambda path: SessionPool().get(path, read_contract(path))):
        with pytest.raises(InvalidModelError) as raised:
            refuse(path)
        assert problem in str(raised.value)
        assert raised.value.path == str(path)
    assert tracemalloc.get_traced_memory()[1] < MIB
    tracemalloc.stop()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("location", ["../secret.bin", "/etc/passwd", "C:\\w.bin", "a/../../secret.bin", "", "a\0b"])
def test_names_that_lead_outside_are_refused_wherever_they_stand(location, place, folder):
    path = saved(place(external(location)), folder)
    for refuse in (check_tensors, load_model, list_files):
        with pytest.raises(InvalidModelError, match=r"outside its folder|inside the model's folder"):
            refuse(path)


@pytest.mark.parametrize("place", PLACES)
def test_a_missing_file_is_named_wherever_it_is_missing(place, folder):
    path = saved(place(external("nowhere.bin")), folder)
    for refuse in (check_tensors, load_model):
        with pytest.raises(GraphNotFoundError, match=r"keeps its weights in nowhere\.bin, and the folder"):
            refuse(path)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("entries", [{}, {"offset": 0}, {"length": 16}, {"offset": 0, "length": 16, "checksum": "ab"}])
def test_honest_tensors_come_inside_wherever_they_stand(entries, place, folder):
    path = saved(place(external(**entries)), folder)
    inside = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4], raw_data=DATA.tobytes())
    inside.data_location = TensorProto.DEFAULT
    assert load_model(path) == place(inside)


@pytest.mark.parametrize("place", PLACES)
def test_files_are_found_wherever_they_are_named_and_come_along(place, folder, tmp_path):
    path = saved(place(external("data/w.bin")), folder)
    assert list_files(path) == ("data/w.bin",)
    (folder / "data").mkdir()
    (folder / "w.bin").rename(folder / "data" / "w.bin")
    output = write_config(path, output=tmp_path / "out")
    assert (output / "data" / "w.bin").read_bytes() == DATA.tobytes()


def test_files_that_only_a_branch_names_are_downloaded_and_saved(tmp_path):
    """To a folder of their own: onnxruntime follows no link of the Hub's cache from inside a branch."""
    home = tmp_path / "hub" / "acme" / "branches"
    home.mkdir(parents=True)
    saved(in_a_branch(external()), home)
    (home / "w.bin").write_bytes(DATA.tobytes())
    (home / "config.json").write_text('{"model_type": "bert"}')
    with LocalHub(tmp_path / "hub") as hub:
        printed = hub.run("""
            import numpy as np
            from optimum_fixedshape import ORTModelForCustomTasks, write_config
            model = ORTModelForCustomTasks.from_pretrained(write_config("acme/branches", output="whole"))
            model.save_pretrained("saved")
            for each in (model, ORTModelForCustomTasks.from_pretrained("saved")):
                print(each.run({"x": np.zeros(4, np.float32)})["y"].tolist())
        """)
    assert printed.splitlines() == [str(DATA.tolist())] * 2


def test_every_way_to_store_numbers_is_read(tmp_path):
    for data_type in set(TensorProto.DataType.values()) - {0}:
        for count in (0, 1, 3, 5):
            numbers = [b"a"] * count if data_type == TensorProto.STRING else [1] * count
            stored = [helper.make_tensor("w", data_type, [count], numbers)]
            if data_type != TensorProto.STRING:
                stored.append(numpy_helper.from_array(numpy_helper.to_array(stored[0]), "w"))
            for tensor in stored:
                path = saved(adds(tensor), tmp_path)
                assert load_model(path) == onnx.load(path), (TensorProto.DataType.Name(data_type), count)


@pytest.mark.parametrize("kind", ["file of the cache", "file of the folder", "folder of the folder"])
def test_links_that_stay_are_followed(kind, tmp_path, folder):
    if kind == "file of the cache":  # as huggingface_hub keeps what it downloads
        folder = tmp_path / "models--acme--adds" / "snapshots" / "0123"
        blobs = folder.parents[1] / "blobs"
        for made in (folder / "onnx", blobs):
            made.mkdir(parents=True)
        saved(adds(external()), blobs).rename(blobs / "aaaa")
        (blobs / "bbbb").write_bytes(DATA.tobytes())
        path = folder / "onnx" / "model.onnx"
        path.symlink_to("../../../blobs/aaaa")
        (folder / "onnx" / "w.bin").symlink_to("../../../blobs/bbbb")
    elif kind == "file of the folder":
        (folder / "other.bin").symlink_to("w.bin")
        path = saved(adds(external("other.bin")), folder)
    else:
        (folder / "real").mkdir()
        (folder / "w.bin").rename(folder / "real" / "w.bin")
        (folder / "other").symlink_to("real")
        path = saved(adds(external("other/w.bin")), folder)
    np.testing.assert_array_equal(numpy_helper.to_array(load_model(path).graph.initializer[0]), DATA)
    np.testing.assert_array_equal(result(path), DATA)


def test_a_folder_that_is_a_link_itself_is_read(tmp_path, folder):
    saved(adds(external()), folder)
    (tmp_path / "link").symlink_to(folder)
    np.testing.assert_array_equal(result(tmp_path / "link" / "model.onnx"), DATA)


@pytest.mark.parametrize("target", ["loop.bin", "."])
def test_links_to_no_file_are_no_weights(target, folder):
    (folder / "loop.bin").symlink_to(target)
    with pytest.raises(GraphNotFoundError):
        load_model(saved(adds(external("loop.bin")), folder))


def test_tensors_may_share_all_their_bytes_and_not_some(folder):
    (folder / "w.bin").write_bytes(np.arange(6, dtype=np.float32).tobytes())
    model = adds(external(offset=0))
    model.graph.initializer.append(external(offset=0))
    model.graph.initializer[1].name = "twin"
    twin = load_model(saved(model, folder)).graph.initializer[1]
    np.testing.assert_array_equal(numpy_helper.to_array(twin), DATA)
    model.graph.initializer[1].CopyFrom(external(offset=8))
    with pytest.raises(InvalidModelError, match=r"bytes 0 to 16 of w\.bin, and another one from 8 on"):
        load_model(saved(model, folder))


def test_a_file_is_not_taken_into_memory_again_and_again(folder):
    (folder / "w.bin").write_bytes(bytes(MIB))
    model = adds(external(dims=[MIB // 4]))
    for _ in range(32):
        model.graph.initializer.append(external(dims=[MIB // 4]))
    with pytest.raises(InvalidModelError, match=r"takes 34603008 bytes of weights from w\.bin, which has 1048576"):
        load_model(saved(model, folder))


def test_a_sparse_tensor_is_not_blown_up(folder):
    def model(size):
        dense = in_an_attribute(numpy_helper.from_array(DATA, "v"))
        values, indices = numpy_helper.from_array(DATA, "s"), numpy_helper.from_array(np.arange(4), "")
        dense.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [size]))
        return dense

    assert load_model(saved(model(1000), folder)) == model(1000)
    with pytest.raises(
        InvalidModelError, match="at most 1000 elements for each of the 4 that are stored, got 8589934592"
    ):
        load_model(saved(model(2**33), folder))


@pytest.mark.parametrize(("depth", "refused"), [(15, False), (17, True), (2000, True)])
def test_graphs_in_graphs_have_an_end(depth, refused, folder):
    graph = message(1, message(4, b"Identity"))
    for _ in range(depth):
        graph = message(1, message(4, b"If"), message(5, message(6, graph)))
    path = folder / "model.onnx"
    path.write_bytes(message(7, graph))
    if refused:
        for refuse in (check_tensors, load_model):
            with pytest.raises(InvalidModelError, match="graphs nested at most 16 deep"):
                refuse(path)
    else:
        assert check_tensors(path) == ()


def test_numbers_are_counted(folder):
    for field, data_type in (("float_data", 1), ("int32_data", 10), ("int64_data", 7), ("uint64_data", 13)):
        for count in (4, 6):
            tensor = TensorProto(name="w", data_type=data_type, dims=[5], **{field: [300] * count})
            with pytest.raises(InvalidModelError, match=f"tensor 'w' has {count} numbers, and its dims say 5"):
                load_model(saved(adds(tensor), folder))


@pytest.mark.parametrize("change", [b"\xff\xfe\xff", b"\xed\xa0\x80"])
def test_names_that_are_no_text_are_refused(change, folder):
    path = saved(adds(numpy_helper.from_array(DATA, "w")), folder)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"Add", change))
    with pytest.raises(InvalidModelError, match="op_type is not in UTF-8"):
        load_model(path)


def test_types_that_only_protobuf_looks_into_are_refused_by_it(folder):
    path = saved(adds(numpy_helper.from_array(DATA, "w")), folder)
    with path.open("ab") as file:
        file.write(message(25, message(12, message(2, nested_sequences(200)))))  # the value_info of a function
    with pytest.raises(InvalidModelError, match=r"is not a valid ONNX model: .*parsing"):
        load_model(path)


def test_more_than_protobuf_reads_is_refused_before_it_is_read(folder):
    path = saved(adds(numpy_helper.from_array(DATA, "w")), folder)
    with path.open("ab") as file:  # a field of 2 GiB, of which the disk has nothing
        file.write(tag(99, LENGTH) + varint(2**31))
        file.truncate(file.tell() + 2**31)
    with pytest.raises(InvalidModelError, match=r"2147483647 \(2 GiB\).*save_as_external_data=True"):
        load_model(path)


def test_saving_takes_nothing_from_outside_along(exported, tmp_path):
    folder = shutil.copytree(exported("text-classification").folder, tmp_path / "model")
    model = ORTModelForSequenceClassification.from_pretrained(folder)
    data = folder / "model.onnx_data"
    data.rename(tmp_path / "outside")
    data.symlink_to("../outside")
    with pytest.raises(InvalidModelError, match="outside its folder"):
        model.save_pretrained(tmp_path / "saved")
    with pytest.raises(InvalidModelError, match="outside its folder"):
        ORTModelForSequenceClassification.from_pretrained(folder)
    assert not list(Path(tmp_path / "saved").glob("*_data"))


def test_weights_without_bytes_may_be_in_a_file(tmp_path):
    (tmp_path / "w.bin").write_bytes(b"")
    path = tmp_path / "model.onnx"
    path.write_bytes(adds(external(dims=(0,), offset=0, length=0)).SerializeToString())
    (weight,) = load_model(path).graph.initializer
    assert numpy_helper.to_array(weight).shape == (0,)


def test_no_file_from_outside_comes_along_with_a_graph(exported, tmp_path):
    folder = shutil.copytree(exported("text-classification").folder, tmp_path / "model")
    (tmp_path / "secret.txt").write_text("nobody is to read this")
    (folder / "vocab.txt").unlink(missing_ok=True)  # which tokenizers of transformers 4 save
    (folder / "vocab.txt").symlink_to("../secret.txt")
    for make in (
        lambda output: pin_shapes(folder, output, {}, progress=False),
        lambda output: write_config(folder, output=output),
    ):
        with pytest.raises(InvalidModelError, match=r"vocab.txt is a link to somewhere else\. If you trust it"):
            make(tmp_path / "out")
        assert not list(tmp_path.glob("out/**/vocab.txt"))
