"""Models with two towers run in parts: the whole graph's numbers, and no text runs twice."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from optimum_fixedshape import pipeline
from optimum_fixedshape.contract import SEQUENCE, TEXTS
from optimum_fixedshape.errors import InputTooLongError
from optimum_fixedshape.fitting import Fill
from optimum_fixedshape.graph.loading import load_model
from optimum_fixedshape.graph.reader import read_contract
from optimum_fixedshape.graph.towers import open_rows, split_towers
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.models import classes
from optimum_fixedshape.pipelines.label_tokens import tokenize_labels
from optimum_fixedshape.remembered import Remembered
from optimum_fixedshape.roles import with_roles
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.tasks import find_task
from optimum_fixedshape.tower_parts import ITEMS
from optimum_fixedshape.towers import run_pairs, towers_of

from . import zoo
from .equality import assert_same
from .onnx_models import build, value
from .test_zoo_pipelines import LABELS, PICTURES, tone

NAMES = ("clip", "siglip", "blip", "clap")
TEXT_INPUTS = ("input_ids", "attention_mask")
MORE_LABELS = [*LABELS, "seven engineers who measure a bridge twice", "snow", "two trams", "a boat", "night"]
SOUNDS = [np.tile(tone(2000, seed), 4)[:length] for seed, length in enumerate((3000, 8000, 5000, 7000))]


def folder_of(pair, to):
    return shutil.copytree(pair.folder, to)


def model_of(pair, folder=None):
    return getattr(classes, find_task(pair.task).model).from_pretrained(folder or pair.folder)


def random_items(model, rows, texts, seed=0):
    """Items with images or sounds of their own, and the texts of the same numbers where `texts` has the same."""
    contract = model.contract
    items = []
    for number, (count, chosen) in enumerate(zip(rows, texts, strict=True)):
        item = {}
        for spec in contract.inputs:
            shape = [axis.size for axis in spec.axes]
            if spec.batch_role == TEXTS:
                shape[0] = len(chosen)
                item[spec.name] = np.stack([text_row(spec.name, text, shape[1]) for text in chosen])
            else:
                shape[0] = count
                generator = np.random.default_rng([seed, number])
                item[spec.name] = generator.standard_normal(shape).astype(spec.dtype)
        items.append(item)
    return items


def text_row(name, text, length):
    """Tokens of text number `text`, which has four and more."""
    real = 4 + text % 9
    ids = np.random.default_rng(text).integers(5, 400, length)
    ids[real - 1] = 102
    return np.where(np.arange(length) < real, ids, 0) if name == "input_ids" else (np.arange(length) < real) * 1


def assert_as_whole(model, items):
    """Asserts that the parts answer as the whole graph answers each item by itself."""
    ours = run_pairs(model.runtime, items)
    for mine, item in zip(ours, items, strict=True):
        theirs = model.runtime.run([item])[0]
        assert list(mine) == list(theirs)
        for name, array in theirs.items():
            scale = max(1.0, float(np.abs(array).max()))
            assert_same(mine[name], array, tolerance=1e-6 * scale, where=name)


def rows_run(part):
    return sum(stats.rows for stats in part.stats)


def runs_of(part):
    return sum(stats.runs for stats in part.stats)


@pytest.mark.parametrize("name", NAMES)
def test_parts_hold_what_they_need(specimen, name):
    model = load_model(specimen(name).folder / "model.onnx")
    towers = split_towers(model, texts=TEXT_INPUTS)
    inputs = {value.name for value in model.graph.input}
    assert {value.name for value in towers.texts.graph.input} == inputs & {*TEXT_INPUTS}
    assert {value.name for value in towers.items.graph.input} == inputs - {*TEXT_INPUTS}
    embeds = [*towers.items.graph.output, *towers.texts.graph.output]
    assert list(towers.head.graph.input) == embeds
    weights = {tensor.name for tensor in model.graph.initializer if np.prod(tensor.dims) > 64}
    held = [{t.name for t in part.graph.initializer} & weights for part in (towers.items, towers.texts, towers.head)]
    assert all(held[:2])
    assert not held[0] & held[1]
    assert not held[2]
    for part in (towers.items, towers.texts, towers.head):
        onnx.checker.check_model(part, full_check=True)


@pytest.mark.parametrize("name", NAMES)
def test_numbers_are_those_of_the_whole_graph(specimen, name):
    model = model_of(specimen(name))
    same = [[0, 1, 2]] * 5
    assert_as_whole(model, random_items(model, [1, 1, 1, 1, 1], same))
    assert_as_whole(model, random_items(model, [3, 1, 2], [[7], [3, 4, 5, 6, 7, 8, 9], [9, 9, 3]], seed=1))
    for count in (1, 2, 3, 4, 5, 7):
        assert_as_whole(model, random_items(model, [1], [[*range(count)]], seed=2))


@pytest.mark.parametrize("name", NAMES)
def test_a_text_runs_once(specimen, name):
    model = model_of(specimen(name))
    towers = towers_of(model.runtime)
    texts, batch = towers.parts.texts, model.contract.sizes[TEXTS]
    assert towers_of(model.runtime) is towers
    steps = [([*range(10)], 10), ([*range(10)], 10), ([9, 3, 0], 10), ([3, 20, 9, 20], 11), ([20], 11), ([21, 22], 13)]
    runs = 0
    for number, (chosen, ran) in enumerate(steps):
        before = rows_run(texts)
        run_pairs(model.runtime, random_items(model, [1, 2], [chosen, chosen], seed=number))
        assert rows_run(texts) == ran
        runs += -(-(ran - before) // batch)
        assert runs_of(texts) == runs
    assert rows_run(towers.parts.items) == 3 * len(steps)
    assert runs_of(model.runtime) == 0
    for number, (chosen, _) in enumerate(steps):
        assert_as_whole(model, random_items(model, [1, 2], [chosen, chosen], seed=number))


def test_a_text_is_the_same_with_more_padding(specimen):
    """The tokenizer pads to the longest label of the call, which is another one with other labels."""
    model = model_of(specimen("clip"))
    long = random_items(model, [1], [[2, 8]])[0]
    short = {name: array[:1, :6] if name in TEXT_INPUTS else array for name, array in long.items()}
    assert [long["attention_mask"][0].sum(), short["attention_mask"].sum()] == [6, 6]
    assert_as_whole(model, [long, short])
    assert rows_run(towers_of(model.runtime).parts.texts) == 2


def test_texts_without_a_mask_are_told_apart_by_their_padding(specimen):
    model = model_of(specimen("siglip"))
    item = random_items(model, [1], [[5]])[0]
    other = item | {"input_ids": np.where(item["input_ids"] == 0, 1, item["input_ids"])}
    assert_as_whole(model, [item, other])
    assert rows_run(towers_of(model.runtime).parts.texts) == 2


@pytest.mark.parametrize("most", [0, 700, 2000])
def test_what_is_forgotten_runs_again(specimen, most):
    model = model_of(specimen("clip"))
    towers = towers_of(model.runtime)
    towers.seen.most = most
    for number in range(12):
        chosen = [(5 * number + step) % 17 for step in range(6)]
        assert_as_whole(model, random_items(model, [1], [chosen], seed=number))
        assert towers.seen.stats.size <= most
    assert 17 < rows_run(towers.parts.texts) <= 72


def test_what_was_asked_for_longest_ago_is_forgotten_first():
    remembered = Remembered(3 * (80 + 1))
    arrays = {bytes([key]): np.full(10, float(key)) for key in range(5)}
    for key in (b"\0", b"\1", b"\2"):
        remembered.put((key,), arrays[key])
    assert remembered.get((b"\0",)) is arrays[b"\0"]
    remembered.put((b"\3",), arrays[b"\3"])
    assert [remembered.get((key,)) is not None for key in (b"\0", b"\1", b"\2", b"\3")] == [True, False, True, True]
    remembered.put((b"\4",), np.zeros(1000))
    assert remembered.get((b"\4",)) is None
    assert remembered.stats == (3, 243, 4, 2)


def test_many_threads_share_what_was_seen(specimen):
    model = model_of(specimen("clip"))
    towers = towers_of(model.runtime)
    towers.seen.most = 6000  # some is forgotten meanwhile
    chosen = [[(start + 3 * step) % 11 for step in range(1 + start % 5)] for start in range(11)]
    items = random_items(model, [1 + number % 2 for number in range(11)], chosen)
    expected = [model.runtime.run([item])[0] for item in items]
    start = Barrier(4)

    def work(first):
        start.wait()
        order = [(first + step) % len(items) for step in range(60)]
        return [(number, run_pairs(model.runtime, [items[number]])[0]) for number in order]

    with ThreadPoolExecutor(4) as pool:
        for answers in pool.map(work, range(4)):
            for number, outputs in answers:
                for name, array in expected[number].items():
                    assert_same(outputs[name], array, tolerance=2e-5, where=name)
    assert towers.seen.stats.size <= 6000


def test_weights_stay_where_they_are(specimen, tmp_path):
    """The whole graph is not opened: it may even be gone. Its weights are read where links of the Hub's cache lead."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    shutil.copytree(specimen("clip").folder, blobs)
    snapshot.mkdir()
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(f"../blobs/{file.name}")
    ours = pipeline("zero-shot-image-classification", model=snapshot)
    assert ours.towers is not None
    (blobs / "model.onnx").unlink()
    expected = pipeline("zero-shot-image-classification", model=specimen("clip").folder)
    assert_same(
        ours(PICTURES, candidate_labels=MORE_LABELS), expected(PICTURES, candidate_labels=MORE_LABELS), tolerance=0.0
    )


def test_weights_inside_the_graph(specimen, tmp_path):
    pair = specimen("clip")
    folder = folder_of(pair, tmp_path / "inside")
    onnx.save(load_model(pair.folder / "model.onnx"), folder / "model.onnx")
    (folder / "model.onnx_data").unlink()
    model = model_of(pair, folder)
    assert_as_whole(model, random_items(model, [1, 3], [[0, 1, 2, 3], [3]]))
    assert rows_run(towers_of(model.runtime).parts.texts) == 4


def changed(pair, folder, change):
    """A copy of a folder with another graph."""
    folder_of(pair, folder)
    model = load_model(folder / "model.onnx")
    change(model.graph)
    onnx.save(model, folder / "model.onnx")
    return model_of(pair, folder)


def without_embeddings(graph):
    kept = [value for value in graph.output if value.name != "text_embeds"]
    del graph.output[:]
    graph.output.extend(kept)


def with_a_bridge(graph):
    """The head also looks at the pixels."""
    node = next(node for node in graph.node if "logits_per_image" in node.output)
    node.output[0] = "compared"
    graph.initializer.append(numpy_helper.from_array(np.float32(0.0), "nothing"))
    graph.node.append(helper.make_node("ReduceMax", ["pixel_values"], ["brightest"], keepdims=0))
    graph.node.append(helper.make_node("Mul", ["brightest", "nothing"], ["shift"]))
    graph.node.append(helper.make_node("Add", ["compared", "shift"], ["logits_per_image"]))


def with_sizes_in_the_head(graph):
    node = next(node for node in graph.node if "logits_per_image" in node.output)
    node.output[0] = "compared"
    graph.initializer.append(numpy_helper.from_array(np.array([2, 3]), "sizes"))
    graph.node.append(helper.make_node("Reshape", ["compared", "sizes"], ["logits_per_image"]))


@pytest.mark.parametrize("change", [without_embeddings, with_a_bridge])
def test_graphs_that_cannot_be_cut_run_as_a_whole(specimen, tmp_path, change):
    pair = specimen("clip")
    model = changed(pair, tmp_path / "whole", change)
    assert towers_of(model.runtime) is None
    assert_as_whole(model, random_items(model, [1, 1, 2], [[0, 1, 2, 3], [0, 1, 2, 3], [5]]))
    assert runs_of(model.runtime) > 0


def test_a_head_of_one_size_is_filled(specimen, tmp_path):
    model = changed(specimen("clip"), tmp_path / "sizes", with_sizes_in_the_head)
    head = towers_of(model.runtime).parts.head
    assert head.ladder.largest.sizes == {ITEMS[0]: 2, TEXTS: 3}
    assert_as_whole(model, random_items(model, [1, 3], [[0, 1, 2, 3], [3]]))
    assert runs_of(head) == 1 * 2 + 2 * 1


def test_a_graph_that_onnxruntime_has_fused(specimen, tmp_path):
    pair = specimen("clip")
    folder = folder_of(pair, tmp_path / "fused")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(folder / "model.onnx")
    onnxruntime.InferenceSession(pair.folder / "model.onnx", options, providers=["CPUExecutionProvider"])
    model = model_of(pair, folder)
    assert_as_whole(model, random_items(model, [1, 3], [[0, 1, 2, 3], [3]]))
    assert towers_of(model.runtime).parts.head.ladder.largest.sizes == {ITEMS[0]: None, TEXTS: None}


def test_a_session_of_a_graph_in_memory(specimen):
    pair = specimen("clip")
    content = load_model(pair.folder / "model.onnx").SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    model = SimpleNamespace(runtime=Runtime.of_session(session, fill=Fill()))
    assert towers_of(model.runtime) is None
    assert_as_whole(model, random_items(model_of(pair), [1, 3], [[0, 1, 2, 3], [3]]))


def test_heads_of_exporters_take_any_number_of_rows(specimen):
    for name in NAMES:
        head = split_towers(load_model(specimen(name).folder / "model.onnx"), texts=TEXT_INPUTS).head
        assert open_rows(head), name
        onnx.checker.check_model(head, full_check=True)


def test_a_head_with_a_weight_per_row_stays_as_it_is():
    nodes = [helper.make_node("MatMul", ["a", "b"], ["c"]), helper.make_node("Add", ["c", "w"], ["y"])]
    shapes = {"a": [2, 4], "b": [4, 3], "y": [2, 3]}
    a, b, y = (value(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items())
    head = build(nodes, [a, b], [y], {"w": np.ones((2, 1), np.float32)})
    before = head.SerializeToString()
    assert not open_rows(head)
    assert head.SerializeToString() == before


def open_towers():
    """A small graph that takes any number of images, of texts, and of tokens, with its weights inside."""
    random = np.random.default_rng(0)
    weights = {
        "table": random.standard_normal((400, 8)).astype(np.float32),
        "filters": random.standard_normal((48, 8)).astype(np.float32),
        "flat": np.array([0, -1]),
        "scale": np.float32(2.5),
        "last": np.array([-1]),
        "tokens": np.array([1]),
    }
    nodes = [
        helper.make_node("Reshape", ["pixel_values", "flat"], ["pixels"]),
        helper.make_node("MatMul", ["pixels", "filters"], ["image_embeds"]),
        helper.make_node("Gather", ["table", "input_ids"], ["vectors"]),
        helper.make_node("Cast", ["attention_mask"], ["real"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["real", "last"], ["column"]),
        helper.make_node("Mul", ["vectors", "column"], ["masked"]),
        helper.make_node("ReduceSum", ["masked", "tokens"], ["text_embeds"], keepdims=0),
        helper.make_node("Transpose", ["image_embeds"], ["columns"], perm=[1, 0]),
        helper.make_node("MatMul", ["text_embeds", "columns"], ["products"]),
        helper.make_node("Mul", ["products", "scale"], ["logits_per_text"]),
        helper.make_node("Transpose", ["logits_per_text"], ["logits_per_image"], perm=[1, 0]),
    ]
    row = ["texts", "length"]
    inputs = [value(name, onnx.TensorProto.INT64, row) for name in TEXT_INPUTS]
    inputs.append(value("pixel_values", onnx.TensorProto.FLOAT, ["images", 3, 4, 4]))
    shapes = {
        "logits_per_image": ["images", "texts"],
        "logits_per_text": ["texts", "images"],
        "text_embeds": ["texts", 8],
        "image_embeds": ["images", 8],
    }
    outputs = [value(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    return build(nodes, inputs, outputs, weights)


@pytest.mark.parametrize("sizes", [[{}], [{TEXTS: 4, SEQUENCE: 16, ITEMS[0]: 2}, {TEXTS: 4, SEQUENCE: 8, ITEMS[0]: 2}]])
def test_graphs_of_open_sizes(tmp_path, sizes):
    onnx.save(open_towers(), tmp_path / "model.onnx")
    contract = with_roles(read_contract(tmp_path / "model.onnx"), {})
    ladder = ShapeLadder(tuple(contract.pinned(each) for each in sizes))
    model = SimpleNamespace(runtime=Runtime(ladder, [tmp_path / "model.onnx"] * len(sizes), fill=Fill()))
    full = contract.pinned({TEXTS: 5, SEQUENCE: 13, ITEMS[0]: 1})
    texts = [[0, 1, 2, 3, 4], [4, 9], [*range(12)]]
    assert_as_whole(model, random_items(SimpleNamespace(contract=full), [1, 3, 2], texts))
    towers = towers_of(model.runtime)
    assert rows_run(towers.parts.texts) == 12
    assert [stats.sizes.get(SEQUENCE) for stats in towers.parts.texts.stats] == [each.get(SEQUENCE) for each in sizes]
    assert all(stats.rows for stats in towers.parts.texts.stats)
    assert runs_of(towers.parts.head) == 3


@pytest.mark.parametrize("name", ["clip", "siglip", "clap"])
def test_pipelines_know_labels_again(specimen, name):
    pair = specimen(name)
    ours = pipeline(pair.task, model=pair.folder)
    items = SOUNDS if name == "clap" else PICTURES[:4]
    first = ours(items, candidate_labels=MORE_LABELS)
    ran = runs_of(ours.towers.parts.texts)
    assert_same(ours(items, candidate_labels=MORE_LABELS), first, tolerance=0.0)
    for item, expected in zip(items, first, strict=True):
        assert_same(ours(item, candidate_labels=MORE_LABELS), expected, tolerance=1e-6)
        backwards = {each["label"]: each["score"] for each in ours(item, candidate_labels=MORE_LABELS[::-1])}
        assert_same(backwards, {each["label"]: each["score"] for each in expected}, tolerance=1e-6)
    assert runs_of(ours.towers.parts.texts) == ran
    assert runs_of(ours.model.runtime) == 0
    ours(items[0], candidate_labels=["snow", "a harbour"])
    assert runs_of(ours.towers.parts.texts) == ran + 1


def test_labels_that_are_too_long(specimen):
    model = model_of(specimen("clip"))
    item = random_items(model, [1], [[0]])[0]
    limit = model.ladder.limit(SEQUENCE)
    too_long = item | {name: np.ones((1, limit + 1), np.int64) for name in TEXT_INPUTS}
    with pytest.raises(InputTooLongError, match=f"has sequence_length {limit + 1}"):
        run_pairs(model.runtime, [too_long])


def test_labels_are_tokenized_once():
    tokenizer = zoo.processor("clip").tokenizer
    first = tokenize_labels(tokenizer, LABELS, padding=True)
    assert dict(first) == dict(tokenizer(LABELS, padding=True))
    assert tokenize_labels(tokenizer, list(LABELS), padding=True) is first
    assert dict(tokenize_labels(tokenizer, LABELS, padding="max_length")) != dict(first)
    side = tokenizer.padding_side
    try:
        tokenizer.padding_side = "left"
        assert dict(tokenize_labels(tokenizer, LABELS, padding=True)) == dict(tokenizer(LABELS, padding=True))
    finally:
        tokenizer.padding_side = side
    for number in range(20):
        tokenize_labels(tokenizer, [f"label {number}"], padding=True)
    assert tokenize_labels(tokenizer, LABELS, padding=True) is not first  # those of long ago are not kept
