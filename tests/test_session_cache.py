"""Sessions that read a cache: the same answers, one copy of the weights, and no harm from whatever lies there."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimum_fixedshape import AutoTokenizer, ORTModelForSequenceClassification, read_contract, session_cache, sessions
from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.graph.prepacked import move_weights
from optimum_fixedshape.graph.quantize import to_float16, to_int8
from optimum_fixedshape.graph.weights import WeightPool, save_rungs
from optimum_fixedshape.session_cache import VARIABLE, evict
from optimum_fixedshape.sessions import CPU, SessionPool

from .onnx_models import build, value

FLOAT, FLOAT16, INT64 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64
WIDTH = 64
node = helper.make_node
numbers = np.random.default_rng(0)
FIRST, SECOND = (numbers.standard_normal(shape, np.float32) for shape in ((WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)))
TAPS = numbers.standard_normal((16, 8, 3, 3), np.float32)
JOINT = numbers.standard_normal((WIDTH, 3 * WIDTH), np.float32)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv(VARIABLE, str(folder))
    monkeypatch.setattr(sessions, "_CACHED_FROM_BYTES", 0)
    return folder


def dense(rows=2):
    nodes = [node("MatMul", ["x", "first"], ["a"]), node("Relu", ["a"], ["b"]), node("MatMul", ["b", "second"], ["y"])]
    weights = {"first": FIRST, "second": SECOND}
    return build(nodes, [value("x", FLOAT, [rows, WIDTH])], [value("y", FLOAT, [rows, WIDTH])], weights)


def convolution():
    nodes = [node("Conv", ["x", "taps"], ["a"], pads=[1, 1, 1, 1]), node("Relu", ["a"], ["y"])]
    return build(nodes, [value("x", FLOAT, [1, 8, 12, 12])], [value("y", FLOAT, [1, 16, 12, 12])], {"taps": TAPS})


def branches():
    """Both branches multiply with weights of their own, and of the graph around them."""

    def branch(name, weight):
        nodes = [node("MatMul", ["x", "first"], [f"{name}_a"]), node("MatMul", [f"{name}_a", f"{name}_w"], [name])]
        outputs = [value(name, FLOAT, [2, WIDTH])]
        return helper.make_graph(nodes, name, [], outputs, [numpy_helper.from_array(weight, f"{name}_w")])

    nodes = [
        node("ReduceMean", ["x"], ["mean"], keepdims=0),
        node("Greater", ["mean", "zero"], ["flag"]),
        node("If", ["flag"], ["y"], then_branch=branch("then", SECOND), else_branch=branch("other", -SECOND)),
    ]
    weights = {"first": FIRST, "zero": np.float32(0)}
    return build(nodes, [value("x", FLOAT, [2, WIDTH])], [value("y", FLOAT, [2, WIDTH])], weights)


def loop():
    inside = [
        node("MatMul", ["state", "first"], ["wide"]),
        node("MatMul", ["wide", "second"], ["narrow"]),
        node("Tanh", ["narrow"], ["next"]),
        node("Identity", ["go"], ["on"]),
    ]
    given = [value("turn", INT64, []), value("go", TensorProto.BOOL, []), value("state", FLOAT, [2, WIDTH])]
    body = helper.make_graph(inside, "body", given, [value("on", TensorProto.BOOL, []), value("next", FLOAT, None)])
    weights = {"first": FIRST, "second": SECOND, "turns": np.array(3)}
    nodes = [node("Loop", ["turns", "", "x"], ["y"], body=body)]
    return build(nodes, [value("x", FLOAT, [2, WIDTH])], [value("y", FLOAT, [2, WIDTH])], weights)


def fused_attention():
    nodes = [node("Attention", ["x", "joint", "bias"], ["y"], domain="com.microsoft", num_heads=4)]
    weights = {"joint": JOINT, "bias": JOINT[0]}
    model = build(nodes, [value("x", FLOAT, [2, 5, WIDTH])], [value("y", FLOAT, [2, 5, WIDTH])], weights)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def calibrated():
    return to_int8(convolution(), calibration=[feed_of([1, 8, 12, 12])])


GRAPHS = {
    "dense": dense,
    "open rows": lambda: dense("batch_size"),
    "half precision": lambda: to_float16(dense()),
    "int8": lambda: to_int8(dense()),
    "int8 with ranges": calibrated,
    "convolution": convolution,
    "If": branches,
    "Loop": loop,
    "fused attention": fused_attention,
}


def feed_of(shape):
    return {"x": np.random.default_rng(1).standard_normal([s if isinstance(s, int) else 3 for s in shape], np.float32)}


def rung(folder, name="model.onnx", model=None):
    """A graph in a folder, with its weights beside it."""
    return save_rungs([(name, model or dense())], folder=folder, weights_name=f"{name}_data").paths[0]


def opened(path, **options):
    return SessionPool(cached=True, **options).get(path, read_contract(path))


def plain(path):
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return opened(path, session_options=options)


def answer(session):
    return session.run(None, feed_of(session.get_inputs()[0].shape))


def is_cached(session):
    return session.get_session_options().graph_optimization_level == ort.GraphOptimizationLevel.ORT_DISABLE_ALL


def entry_in(cache):
    (entry,) = cache.glob("*.entry")
    return entry


def assert_equals_plain(session, path):
    for ours, theirs in zip(answer(session), answer(plain(path)), strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("kind", GRAPHS)
def test_answers_are_the_same_to_the_last_bit(kind, tmp_path):
    model = GRAPHS[kind]()
    onnx.helper.set_model_props(model, {"made": "by hand"})
    path = rung(tmp_path / "model", model=model)
    first, second = opened(path), opened(path)
    assert is_cached(first)
    assert is_cached(second)
    for session in (first, second):
        assert_equals_plain(session, path)
        assert session._model_path == str(path)
        assert session.get_modelmeta().custom_metadata_map == {"made": "by hand"}
        for part in ("get_inputs", "get_outputs"):
            told = [[(each.name, each.type, each.shape) for each in getattr(s, part)()] for s in (session, plain(path))]
            assert told[0] == told[1]


def test_rungs_share_one_file(tmp_path, cache):
    models = [(f"model_{rows}.onnx", dense(rows)) for rows in (1, 2, 8)]
    graphs = save_rungs(models, folder=tmp_path / "model").paths
    opened(graphs[0])
    (weights,) = entry_in(cache).glob("weights-*.bin")
    size = weights.stat().st_size
    assert size >= 2 * (FIRST.nbytes + SECOND.nbytes), "weights, and their packed forms"
    for path in graphs[1:]:
        assert_equals_plain(opened(path), path)
    assert weights.stat().st_size == size
    assert list(cache.glob("*.entry/weights-*.bin")) == [weights]
    assert len(list(entry_in(cache).glob("*.onnx"))) == 3
    assert not list(cache.glob(".saving-*"))


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="there is no other way to see what is mapped")
def test_weights_are_mapped(tmp_path, cache):
    session = opened(rung(tmp_path / "model"))
    (weights,) = entry_in(cache).glob("weights-*.bin")
    assert str(weights) in Path("/proc/self/maps").read_text()
    del session
    assert str(weights) not in Path("/proc/self/maps").read_text()


def test_a_model_says_where_it_comes_from(exported):
    folder = exported("text-classification").folder
    model = ORTModelForSequenceClassification.from_pretrained(folder)
    assert is_cached(model.session)
    assert AutoTokenizer.from_model(model.session)("Short.", return_tensors="np")["input_ids"].shape == (1, 16)


# When there is none


def test_the_cache_can_be_turned_off(tmp_path, monkeypatch):
    path = rung(tmp_path / "model")
    for off in ("", "0"):
        monkeypatch.setenv(VARIABLE, off)
        assert not is_cached(opened(path))
    assert not (tmp_path / "cache").exists()
    monkeypatch.delenv(VARIABLE)
    assert session_cache.cache_folder().name == "optimum-fixedshape"


def test_small_graphs_own_options_and_other_providers_do_without(tmp_path, monkeypatch, cache):
    path = rung(tmp_path / "model")
    assert not is_cached(plain(path))
    assert not is_cached(SessionPool().get(path, read_contract(path)))
    assert not is_cached(opened(path, providers=["AzureExecutionProvider", CPU]))
    monkeypatch.undo()
    monkeypatch.setenv(VARIABLE, str(cache))
    assert not is_cached(opened(path))
    assert not cache.exists()


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("in the way")
    path = rung(tmp_path / "model")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "cache"))
    with caplog.at_level(logging.DEBUG, "optimum_fixedshape"):
        assert_equals_plain(opened(path), path)
    assert f"{path} is opened without the cache" in caplog.text


def test_a_disk_that_is_nearly_full(tmp_path, monkeypatch, caplog, cache):
    path = rung(tmp_path / "model")
    monkeypatch.setattr(session_cache, "_ROOM", 10**15)
    with caplog.at_level(logging.DEBUG, "optimum_fixedshape"):
        assert_equals_plain(opened(path), path)
    assert "bytes left, and" in caplog.text
    assert not list(cache.iterdir())


def test_an_entry_that_another_process_has_removed(tmp_path, caplog):
    path = rung(tmp_path / "model")
    with caplog.at_level(logging.DEBUG, "optimum_fixedshape"):
        assert SessionPool(cached=True)._opened_from_cache(tmp_path / "gone.onnx", path, 1) is None
    assert f"{path} is opened without the cache: onnxruntime cannot open" in caplog.text


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="the system knows no owners")
@pytest.mark.parametrize("harm", ["others write", "other owner"])
def test_a_cache_of_somebody_else_is_not_trusted(tmp_path, cache, caplog, harm):
    path = rung(tmp_path / "model")
    assert is_cached(opened(path))
    for folder in (cache, entry_in(cache)):
        if harm == "others write":
            folder.chmod(0o777)
        elif os.geteuid() == 0:
            os.chown(folder, 12345, -1)
        else:
            pytest.skip("only root can give folders away")
        with caplog.at_level(logging.DEBUG, "optimum_fixedshape"):
            assert not is_cached(opened(path))
        assert f"{folder} belongs to somebody else" in caplog.text
        os.chown(folder, os.geteuid(), -1)
        folder.chmod(0o700)
    assert is_cached(opened(path))


def test_nobody_else_can_read_it(tmp_path, cache):
    opened(rung(tmp_path / "model"))
    assert [folder.stat().st_mode & 0o777 for folder in (cache, entry_in(cache))] == [0o700, 0o700]


# When something is wrong with it


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


def spoil(path):
    path.write_bytes(b"\0" + path.read_bytes()[1:])


def point_outside(path):
    """A graph whose weights are elsewhere, with a record that vouches for it."""
    secret = path.parents[2] / "secret.bin"
    secret.write_bytes(bytes(10**6))
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for place in (each for each in tensor.external_data if each.key == "location"):
            place.value = "../../secret.bin"
    path.write_bytes(model.SerializeToString())
    record = path.with_suffix(".json")
    facts = json.loads(record.read_bytes())
    record.write_text(json.dumps({**facts, "sha256": session_cache._digest(path.read_bytes())}))


HARM = {
    "the graph is cut": ("*.onnx", cut),
    "the graph is another": ("*.onnx", spoil),
    "the graph is gone": ("*.onnx", Path.unlink),
    "the graph leads outside": ("*.onnx", point_outside),
    "the weights are cut": ("weights-*.bin", cut),
    "the weights are gone": ("weights-*.bin", Path.unlink),
    "the record is no JSON": ("[0-9a-f]*.json", spoil),
    "the record says something else": ("[0-9a-f]*.json", lambda path: path.write_text('{"sources": [1]}')),
    "the record is gone": ("[0-9a-f]*.json", Path.unlink),
    "the contents are gone": ("contents.json", Path.unlink),
}


@pytest.mark.parametrize("harm", HARM)
def test_what_is_damaged_is_made_again(tmp_path, cache, harm):
    path = rung(tmp_path / "model")
    opened(path)
    pattern, damage = HARM[harm]
    (file,) = (each for each in entry_in(cache).glob(pattern) if harm[:10] == "the conten" or each.stem != "contents")
    damage(file)
    for _ in range(2):
        session = opened(path)
        assert is_cached(session)
        assert_equals_plain(session, path)
    assert not any(b"secret" in graph.read_bytes() for graph in entry_in(cache).glob("*.onnx"))


def test_what_cannot_be_removed_is_left(tmp_path, cache):
    path = rung(tmp_path / "model")
    opened(path)
    cut(next(entry_in(cache).glob("*.onnx")))
    (entry_in(cache) / "kept").mkdir()  # no file, as little to be unlinked as what Windows has mapped
    assert is_cached(opened(path))
    assert (entry_in(cache) / "kept").is_dir()


def test_weights_that_are_cut_are_not_added_to(tmp_path, cache):
    folder = tmp_path / "model"
    opened(rung(folder))
    cut(next(entry_in(cache).glob("weights-*.bin")))
    second = rung(folder, "second.onnx")
    session = opened(second)
    assert is_cached(session)
    assert_equals_plain(session, second)
    assert len(list(entry_in(cache).glob("weights-*.bin"))) == 2


def test_a_graph_without_weights(tmp_path):
    nodes, shape = [node("Relu", ["x"], ["y"])], [2, WIDTH]
    path = rung(tmp_path / "model", model=build(nodes, [value("x", FLOAT, shape)], [value("y", FLOAT, shape)]))
    assert is_cached(opened(path))
    assert_equals_plain(opened(path), path)


@pytest.mark.parametrize("touched", ["model.onnx", "model.onnx_data"])
def test_what_is_stale_is_made_again(tmp_path, cache, touched):
    folder = tmp_path / "model"
    path = rung(folder)
    before = answer(opened(path))
    changed = dense()
    changed.graph.initializer[0].raw_data = (2 * FIRST).tobytes()
    rung(tmp_path / "changed", model=changed)
    shutil.copy(tmp_path / "changed" / touched, folder / touched)
    session = opened(path)
    assert is_cached(session)
    assert_equals_plain(session, path)
    if touched.endswith("_data"):
        np.testing.assert_allclose(answer(session)[0], 2 * before[0], rtol=1e-4)
        assert len(list(entry_in(cache).glob("weights-*.bin"))) == 1, "the old ones are gone"


def test_a_graph_that_cannot_be_opened_is_told_of_as_ever(tmp_path):
    path = rung(
        tmp_path / "model",
        model=build([node("Nothing", ["x"], ["y"])], [value("x", FLOAT, [1])], [value("y", FLOAT, [1])]),
    )
    with pytest.raises(InvalidModelError, match=f"onnxruntime cannot open {path}"):
        opened(path)


def test_saved_graphs_in_a_form_that_nobody_knows_are_refused(tmp_path):
    with (tmp_path / "pool").open("wb") as file:
        for entries, problem in (
            ({"location": "elsewhere"}, "keeps 'w' in 'elsewhere'"),
            ({"location": "here", "offset": "0", "length": "99"}, "99 bytes at 0, of a file of 64"),
            ({"location": "here", "offset": "0", "length": "64", "prepacked_0": "Gemm+1|0;64"}, "as '0;64', which is"),
            ({"location": "here", "offset": "0", "length": "64", "folded": "1"}, "notes 'folded' of 'w'"),
        ):
            model = onnx.ModelProto()
            tensor = model.graph.initializer.add(name="w", data_location=TensorProto.EXTERNAL)
            for key, told in entries.items():
                tensor.external_data.add(key=key, value=told)
            with pytest.raises(InvalidModelError, match=problem):
                move_weights(model, memoryview(bytes(64)), location="here", pool=WeightPool(file, "pool"))


# Many at once, and too much


OPENING = """
import sys
from pathlib import Path
import numpy as np
from optimum_fixedshape import read_contract, sessions
sessions._CACHED_FROM_BYTES = 0
for place in range(1, 3):
    graph = Path(sys.argv[place])
    session = sessions.SessionPool(cached=True).get(graph, read_contract(graph))
    answer, = session.run(None, {"x": np.ones(session.get_inputs()[0].shape, np.float32)})
    np.save(f"{sys.argv[3]}-{place}.npy", answer)
"""


def test_threads_and_processes_make_one_entry(tmp_path, cache):
    models = [(f"model_{rows}.onnx", dense(rows)) for rows in (1, 2)]
    graphs = save_rungs(models, folder=tmp_path / "model").paths
    elsewhere = [
        subprocess.Popen([sys.executable, "-c", OPENING, *map(str, graphs), str(tmp_path / name)]) for name in "ab"
    ]
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda graph: answer(opened(graph)), graphs * 4))
    assert [process.wait() for process in elsewhere] == [0, 0]
    for place, ours in enumerate(answers):
        np.testing.assert_array_equal(ours[0], answer(plain(graphs[place % 2]))[0])
    for place, graph in enumerate(graphs, 1):
        (ours,) = plain(graph).run(None, {"x": np.ones((place, WIDTH), np.float32)})
        for name in "ab":
            np.testing.assert_array_equal(np.load(tmp_path / f"{name}-{place}.npy"), ours)
    (weights,) = entry_in(cache).glob("weights-*.bin")
    told = json.loads((entry_in(cache) / "contents.json").read_text())
    assert (told["weights"], told["bytes"]) == (weights.name, weights.stat().st_size)


def test_what_was_not_used_for_longest_goes_first(tmp_path, cache):
    paths = [rung(tmp_path / f"model{i}") for i in range(3)]
    entries = []
    for when, path in enumerate(paths):
        opened(path)
        (entry,) = set(cache.glob("*.entry")) - set(entries)
        os.utime(entry, (when, when))
        entries.append(entry)
    oldest = opened(paths[0])  # uses it again
    size = sum(file.stat().st_size for file in entries[0].iterdir())
    evict(cache, most_bytes=2 * size + size // 2)
    assert [entry.exists() for entry in entries] == [True, False, True]
    evict(cache, keep=entries[2], most_bytes=0)
    assert [entry.exists() for entry in entries] == [False, False, True]
    np.testing.assert_array_equal(answer(oldest)[0], answer(plain(paths[0]))[0])
    assert is_cached(opened(paths[0])), "and is made again"


def test_what_was_left_half_made_is_removed(tmp_path, cache):
    opened(rung(tmp_path / "model"))
    old, new = cache / ".saving-old", cache / ".saving-new"
    for left in (old, new):
        left.mkdir()
    os.utime(old, (0, 0))
    evict(cache)
    assert (old.exists(), new.exists()) == (False, True)
