"""Dynamic graphs made a folder of fixed ones: the original's answers, one file of weights, nothing lost on the way."""

from __future__ import annotations

import json
import logging
import shutil
import signal
import subprocess
import sys
import time
from itertools import product

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import optimum_fixedshape as fixedshape
from optimum_fixedshape import ORTModelForCausalLM, ORTModelForFeatureExtraction, pin_shapes, read_contract
from optimum_fixedshape.config import CONFIG_NAME, FixedShapeConfig
from optimum_fixedshape.errors import GraphNotFoundError, InvalidArgumentError, InvalidModelError, ShapeMismatchError
from optimum_fixedshape.graph.weights import WEIGHTS_NAME

from . import onnx_models, stock
from .equality import assert_model_equals_original, assert_writes_as_original, lengths_around
from .graphs import ONNX_MODELS
from .hub import LocalHub
from .onnx_models import build, value
from .test_causal_models import prompts
from .test_models import SIDES, answer_of, assert_equal, rows
from .test_pin_graph import assert_is_fixed
from .test_seq2seq_models import CLASSES, sources

FLOAT = TensorProto.FLOAT
LADDER = {"batch_size": 2, "sequence_length": [8, 16]}
node = helper.make_node


def pin(source, output, shapes, **options):
    return pin_shapes(source, output, shapes, progress=False, **options)


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def config_of(folder):
    return FixedShapeConfig.from_folder(folder)


@pytest.fixture(scope="module")
def ladder(dynamic, tmp_path_factory):
    before = contents(dynamic.folder)
    folder = pin(dynamic.folder, tmp_path_factory.mktemp("pinned") / "ladder", LADDER)
    assert contents(dynamic.folder) == before
    return folder


def test_every_rung_answers_as_the_original(ladder, dynamic):
    model = ORTModelForFeatureExtraction.from_pretrained(ladder)
    assert [rung.sizes for rung in model.ladder.rungs] == [{"batch_size": 2, "sequence_length": s} for s in (16, 8)]
    for count, length, padded in product((1, 2, 3, 5), (2, 7, 8, 9, 15, 16), SIDES):
        assert_equal(model, dynamic.original, rows(count, length, padded=padded))


def test_every_graph_is_fixed_throughout(ladder):
    for name in config_of(ladder).graphs:
        assert_is_fixed(onnx.load(ladder / name))


def test_the_folder_has_all_that_its_model_needs_and_nothing_else(ladder, dynamic):
    beside = {path.name for path in dynamic.folder.iterdir() if path.suffix != ".onnx"}
    graphs = {"model.onnx", "model_2x8.onnx", WEIGHTS_NAME, "fixedshape_config.json"}
    assert {path.name for path in ladder.iterdir()} == beside | graphs | {"fixed_shape.py"}
    config = config_of(ladder)
    assert (config.graphs, config.shapes) == (("model.onnx", "model_2x8.onnx"), {})
    assert (config.dtype, config.optimized) == (None, False)
    assert all(0 <= config.difference[name] < 1e-5 for name in config.graphs)


def test_rungs_share_their_weights(ladder, dynamic):
    whole = (dynamic.folder / "model.onnx").stat().st_size
    assert (ladder / WEIGHTS_NAME).stat().st_size < 1.05 * whole
    assert all((ladder / name).stat().st_size < whole / 4 for name in config_of(ladder).graphs)


def test_the_same_input_gives_the_same_bytes(ladder, dynamic, tmp_path):
    assert contents(pin(dynamic.folder / "model.onnx", tmp_path / "again", LADDER)) == contents(ladder)


@pytest.mark.parametrize("baked", [{"batch_size": 2}, {"sequence_length": 8}, {"batch_size": 2, "sequence_length": 8}])
def test_graphs_that_are_fixed_in_part(baked, dynamic, tmp_path):
    (tmp_path / "source").mkdir()
    onnx_models.with_dims(dynamic.folder / "model.onnx", tmp_path / "source" / "model.onnx", baked)
    dynamic.original.config.save_pretrained(tmp_path / "source")
    left = {key: size for key, size in {"batch_size": 2, "sequence_length": 8}.items() if key not in baked}
    model = ORTModelForFeatureExtraction.from_pretrained(pin(tmp_path / "source", tmp_path / "out", left))
    assert model.contract.sizes == {"batch_size": 2, "sequence_length": 8}
    for count, length in product((1, 2, 3), (2, 7, 8)):
        assert_equal(model, dynamic.original, rows(count, length))


def test_a_fixed_graph_is_copied_with_a_proof(tmp_path):
    source = ONNX_MODELS / "light" / "light_squeezenet.onnx"
    folder = pin(source, tmp_path / "out", {})
    assert {path.name for path in folder.iterdir()} == {"model.onnx", "fixedshape_config.json"}
    assert config_of(folder).difference == {"model.onnx": 0.0}
    assert_is_fixed(onnx.load(folder / "model.onnx"))


def test_a_ladder_of_ours_keeps_its_names(exported, tmp_path):
    pair = exported("text-classification")
    folder = pin(pair.folder, tmp_path / "out", {})
    before, after = config_of(pair.folder), config_of(folder)
    assert (after.graphs, after.task) == (before.graphs, before.task)
    assert_model_equals_original(fixedshape.ORTModelForSequenceClassification.from_pretrained(folder), pair.original)


def test_axes_without_a_role_go_by_the_graphs_own_name(tmp_path):
    model = build([node("Neg", ["x"], ["y"])], [value("x", FLOAT, ["N", 7])], [value("y", FLOAT, ["N", 7])])
    onnx.save(model, tmp_path / "model.onnx")
    folder = pin(tmp_path / "model.onnx", tmp_path / "out", {"N": [2, 5]})
    assert config_of(folder).graphs == ("model.onnx", "model_2.onnx")
    assert [read_contract(folder / name).inputs[0].shape for name in config_of(folder).graphs] == [(5, 7), (2, 7)]


# ---- models that write


def test_a_decoder_writes_as_the_original(tmp_path):
    shapes = {"batch_size": 2, "context_length": [12, 24], "prefill_length": [4]}
    folder = pin(stock.graphs("gpt2"), tmp_path / "out", shapes)
    names = [f"model_2x{size}.onnx" for size in ("24x1", "12x4", "12x1")]
    assert config_of(folder).graphs == ("model.onnx", *names)
    model = ORTModelForCausalLM.from_pretrained(folder)
    assert model.context_length == 24
    lengths = lengths_around(4, 12, most=23)
    assert_writes_as_original(model, stock.original("gpt2"), lambda length: prompts(3, length), lengths, steps=3)


@pytest.mark.parametrize("name", CLASSES)
def test_encoders_with_decoders_write_as_the_original(name, tmp_path):
    texts, pixels = {"sequence_length": [8, 16]}, {"num_channels": 3, "height": 16, "width": 16}
    more = {"t5": texts, "bart": texts, "trocr": pixels}.get(name, {})
    shapes = {"batch_size": 1, "context_length": 24, "prefill_length": [4], **more}
    folder = pin(stock.graphs(name), tmp_path / "out", shapes)
    stems = {path.stem.partition("_1x")[0] for path in folder.glob("*.onnx")}
    assert stems == {"encoder_model", "decoder_model", "decoder_with_past_model"}
    assert all(read_contract(path).is_fixed for path in folder.glob("*.onnx"))
    model = getattr(fixedshape, f"ORTModelFor{CLASSES[name]}").from_pretrained(folder)
    lengths = [7, 8, 16] if "sequence_length" in shapes else [1]
    assert_writes_as_original(model, stock.original(name), lambda length: sources(name, 2, length), lengths, steps=3)


def test_a_cache_of_open_length_is_asked_for_by_the_word_that_people_know(tmp_path):
    with pytest.raises(ShapeMismatchError, match=r"cache of open length.*\{'context_length': 256, 'prefill_length'"):
        pin(stock.graphs("gpt2"), tmp_path / "out", {"batch_size": 1})
    assert not (tmp_path / "out").exists()


# ---- what is refused


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"batch_size": 2}, "left open in input_ids.*give sizes for sequence_length"),
        ({"batch_size": 2, "sequence_length": 10**12}, "sizes of 1 to 2147483647 by shape key, .*1000000000000"),
        ({"batch_size": 2, "width": 8}, "no axis 'width' to pin"),
        ({"batch_size": 0, "sequence_length": 8}, "batch_size must be a size of 1 or more"),
        (["batch_size"], r"shapes= must map shape keys to sizes, as in \{'batch_size': 8\}, got \['batch_size'\]"),
        ({"batch_size": 1.0, "sequence_length": 8}, r"batch_size must be a size of 1 or more, .* got 1\.0"),
        ({"batch_size": [*range(1, 70)], "sequence_length": [*range(1, 70)]}, "at most 4096 rungs, got more"),
        ({"batch_size": 1, "sequence_length": 1000}, "positions, and a row may have 1000 tokens"),
    ],
)
def test_sizes_that_make_no_sense_leave_no_trace(shapes, message, dynamic, tmp_path):
    with pytest.raises(ShapeMismatchError, match=message):
        pin(dynamic.folder, tmp_path / "out", shapes)
    assert not (tmp_path / "out").exists()


def test_a_failure_leaves_the_model_that_was_there(ladder, dynamic, tmp_path):
    folder = shutil.copytree(ladder, tmp_path / "out")
    with pytest.raises(ShapeMismatchError, match=r"Gather node .* positions, and a row may have 1000 tokens"):
        pin(dynamic.folder, folder, {"batch_size": 1, "sequence_length": [4, 1000]})
    assert contents(folder) == contents(ladder)


def test_the_source_is_never_written_to(dynamic, tmp_path):
    source = shutil.copytree(dynamic.folder, tmp_path / "source")
    (tmp_path / "link").symlink_to(source)
    for output in (source, tmp_path / "link"):
        with pytest.raises(FileExistsError, match="is the folder that the graphs come from"):
            pin(source / "model.onnx", output, LADDER)
    assert contents(source) == contents(dynamic.folder)


def test_files_of_others_stay(ladder, dynamic, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(ladder, folder)
    (folder / "notes.md").write_text("mine")
    (folder / "other.onnx").write_bytes(b"mine, too")
    pin(dynamic.folder, folder, {"batch_size": 1, "sequence_length": [8, 4]})
    assert sorted(path.name for path in folder.glob("*.onnx")) == ["model.onnx", "model_1x4.onnx", "other.onnx"]
    assert (folder / "notes.md").read_text() == "mine"


def test_beside_a_bare_graph_nothing_is_taken_for_its_own(tmp_path):
    source = tmp_path / "downloads"
    source.mkdir()
    shutil.copyfile(ONNX_MODELS / "light" / "light_squeezenet.onnx", source / "model.onnx")
    (source / "taxes.txt").write_text("private")
    assert not (pin(source, tmp_path / "out", {}) / "taxes.txt").exists()


def folded_and_back():
    """Cumulated sums within pieces of 8 places, whatever the length of a row, in the shape of what came in."""
    nodes = [
        node("Shape", ["x"], ["sizes"]),
        node("Reshape", ["x", "pieces"], ["folded"], name="fold"),
        node("CumSum", ["folded", "one"], ["summed"]),
        node("Reshape", ["summed", "sizes"], ["y"]),
    ]
    return nodes, {"pieces": np.array([-1, 8, 4]), "one": np.array(1)}


def normed_over_rows():
    return [node("ReduceMax", ["x"], ["most"], axes=[0]), node("Sub", ["x", "most"], ["y"])], {}


@pytest.mark.parametrize(
    ("made", "length", "message"),
    [
        (folded_and_back, 12, r"row 0 does not run alone: .*'fold'"),
        (normed_over_rows, 8, r"y of row 0 changes by \d+\.\d% if it runs alone"),
    ],
)
def test_rows_that_are_mixed_up_behind_right_shapes_are_caught(made, length, message, tmp_path):
    nodes, weights = made()
    axes = ["batch", "length", 4]
    onnx.save(build(nodes, [value("x", FLOAT, axes)], [value("y", FLOAT, axes)], weights), tmp_path / "model.onnx")
    roles = {"x": ["batch_size", "sequence_length", None]}
    shapes = {"batch_size": 4, "sequence_length": length}
    with pytest.raises(ShapeMismatchError, match=message):
        pin(tmp_path / "model.onnx", tmp_path / "out", shapes, roles=roles)
    assert not (tmp_path / "out").exists()
    alone = pin(tmp_path / "model.onnx", tmp_path / "out", {"batch_size": 1, "sequence_length": 8}, roles=roles)
    assert config_of(alone).roles == roles


def test_a_broken_source_is_refused_as_such(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"no model")
    with pytest.raises(InvalidModelError, match="is not a valid ONNX model"):
        pin(tmp_path / "model.onnx", tmp_path / "out", {})


@pytest.mark.parametrize(
    ("options", "message"),
    [({"dtype": "fp8"}, 'dtype must be "fp16", "int8"'), ({"calibration": []}, 'calibration= is for dtype="int8"')],
)
def test_options_that_make_no_sense_are_refused(options, message, dynamic, tmp_path):
    with pytest.raises(InvalidArgumentError, match=message):
        pin(dynamic.folder, tmp_path / "out", LADDER, **options)
    assert not (tmp_path / "out").exists()


# ---- interruptions

LONG = {"batch_size": [1, 2], "sequence_length": [8, 16, 24]}


def killed(source, output, rungs):
    """Kills a process that pins, with a signal that it cannot answer, once so many graphs are done."""
    code = f"from optimum_fixedshape import pin_shapes; pin_shapes({str(source)!r}, {str(output)!r}, {LONG!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    state = output / ".pinning" / "state.json"
    try:
        while process.poll() is None:
            if state.is_file() and len(json.loads(state.read_text())["graphs"]) >= rungs:
                process.send_signal(signal.SIGKILL)
            time.sleep(0.005)
    finally:
        process.kill()
        _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    return set(json.loads(state.read_text())["graphs"])


def test_work_that_was_killed_goes_on_where_it_stopped(ladder, dynamic, tmp_path, caplog):
    folder = shutil.copytree(ladder, tmp_path / "out")
    done = killed(dynamic.folder, folder, 2)
    there = {name: data for name, data in contents(folder).items() if not name.startswith(".pinning")}
    assert there == contents(ladder)  # the old model is whole as long as the new one is not
    assert not list((folder / ".pinning").rglob("*.onnx"))
    with caplog.at_level(logging.INFO, logger="optimum_fixedshape"):
        pin(dynamic.folder, folder, LONG)
    said = {record.getMessage().partition(" was done before")[0] for record in caplog.records}
    assert done <= said
    assert len(said & set(config_of(folder).graphs)) < 6
    assert contents(folder) == contents(pin(dynamic.folder, tmp_path / "whole", LONG))


@pytest.fixture(scope="module")
def left_behind(dynamic, tmp_path_factory):
    """What is there after a kill in the middle of work."""
    output = tmp_path_factory.mktemp("killed") / "out"
    killed(dynamic.folder, output, 1)
    return output


def test_what_other_work_has_left_behind_is_thrown_away(left_behind, dynamic, tmp_path, caplog):
    folder = shutil.copytree(left_behind, tmp_path / "out")
    with caplog.at_level(logging.INFO, logger="optimum_fixedshape"):
        pin(dynamic.folder, folder, {"batch_size": 1, "sequence_length": 8})
    assert not any("was done before" in record.getMessage() for record in caplog.records)
    assert not (folder / ".pinning").exists()


@pytest.mark.parametrize("pattern", ["*.graph", "*-*", "state.json"])
def test_what_was_left_behind_damaged_is_made_again(pattern, left_behind, dynamic, tmp_path):
    folder = shutil.copytree(left_behind, tmp_path / "out")
    for file in (folder / ".pinning").glob(pattern):
        file.write_bytes(file.read_bytes()[:-1])
    model = ORTModelForFeatureExtraction.from_pretrained(pin(dynamic.folder, folder, LONG))
    assert_equal(model, dynamic.original, rows(2, 12))


def test_a_kill_while_graphs_move_in_leaves_no_wrong_model(ladder, dynamic, tmp_path):
    """Wherever it hits: what loads is right, and the same call gives all of it."""
    for wait in (0.0, 0.001, 0.003):
        folder = shutil.copytree(ladder, tmp_path / f"out{wait}")
        code = f"from optimum_fixedshape import pin_shapes; pin_shapes({str(dynamic.folder)!r}, {str(folder)!r}, "
        process = subprocess.Popen([sys.executable, "-c", f"{code}{ {'batch_size': 1, 'sequence_length': 12} })"])
        while process.poll() is None and not (folder / ".pinning" / "ready" / "fixedshape_config.json").is_file():
            time.sleep(0.0005)
        time.sleep(wait)
        process.kill()
        process.wait()
        try:
            model = ORTModelForFeatureExtraction.from_pretrained(folder)
        except GraphNotFoundError:
            pass  # neither the old one nor the new
        else:
            assert_equal(model, dynamic.original, rows(2, 12))
        pin(dynamic.folder, folder, {"batch_size": 1, "sequence_length": 12})
        assert not (folder / ".pinning").exists()
        assert_equal(ORTModelForFeatureExtraction.from_pretrained(folder), dynamic.original, rows(2, 12))


# ---- optimized and smaller

SAMPLES = [{"input_ids": np.arange(40).reshape(4, 10) * 7 % 900 + seed} for seed in range(1, 30, 3)]


@pytest.mark.parametrize(
    ("options", "least", "most"),
    [
        ({"optimize": True}, 0.0, 1e-4),
        ({"dtype": "fp16"}, 1e-5, 0.05),
        # Weights spread this wide let the sums of CPUs without VNNI saturate; trained ones hardly do.
        ({"dtype": "int8"}, 1e-3, 3.0),
        ({"dtype": "int8", "calibration": SAMPLES}, 1e-3, 3.0),
        ({"dtype": "fp16", "optimize": True}, 1e-5, 0.05),
    ],
    ids=["optimize", "fp16", "int8", "int8-static", "fp16-optimize"],
)
def test_graphs_made_faster_or_smaller_say_how_far_they_are_from_the_original(options, least, most, dynamic, tmp_path):
    shapes = {"batch_size": 2, "sequence_length": [8, 12]}
    folder = pin(dynamic.folder, tmp_path / "out", shapes, **options)
    config = config_of(folder)
    assert (config.dtype, config.optimized) == (options.get("dtype"), options.get("optimize", False))
    assert all(least <= config.difference[name] <= most for name in config.graphs), config.difference
    for name in config.graphs:
        assert_is_fixed(onnx.load(folder / name))
    model, feeds = ORTModelForFeatureExtraction.from_pretrained(folder), rows(3, 7)
    apart = np.abs(model(**feeds).last_hidden_state - answer_of(dynamic.original, feeds).last_hidden_state.numpy())
    assert apart.mean() <= most / 4
    if "dtype" in options and "calibration" not in options:
        assert (folder / WEIGHTS_NAME).stat().st_size < 0.6 * (dynamic.folder / "model.onnx").stat().st_size


def test_a_repo_on_the_hub(dynamic, tmp_path):
    shutil.copytree(dynamic.folder, tmp_path / "repos" / "acme" / "dynamic")
    output = tmp_path / "out"
    with LocalHub(tmp_path / "repos") as hub:
        hub.run(
            "from optimum_fixedshape import pin_shapes\n"
            f"pin_shapes('acme/dynamic', {str(output)!r}, {LADDER!r}, progress=False, revision='main')"
        )
    there, here = contents(output), contents(pin(dynamic.folder, tmp_path / "here", LADDER))
    saved = json.loads(there.pop(CONFIG_NAME))
    assert saved == {**json.loads(here.pop(CONFIG_NAME)), "original": "acme/dynamic"}
    assert there == here


def test_a_bare_graph_is_pinned_without_torch_and_transformers(tmp_path):
    axes = ["batch", "length", 4]
    graph = build([node("Neg", ["x"], ["y"])], [value("x", FLOAT, axes)], [value("y", FLOAT, axes)], {})
    onnx.save(graph, tmp_path / "model.onnx")
    code = f"""
import sys
from optimum_fixedshape import pin_shapes
pin_shapes({str(tmp_path / "model.onnx")!r}, {str(tmp_path / "out")!r}, {{"batch": 1, "length": 8}}, progress=False)
print(sorted(sys.modules.keys() & {{"torch", "transformers"}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_each_graph_of_a_ladder_is_calibrated_with_the_samples_that_it_holds(exported, tmp_path):
    random = np.random.default_rng(0)
    samples = tuple({"input_ids": random.integers(5, 100, (1, length))} for length in (6, 12))
    ladder = exported("text-classification").folder
    folder = pin_shapes(ladder, tmp_path / "out", {}, dtype="int8", calibration=samples, progress=False)
    for path in folder.glob("*.onnx"):
        assert [node.op_type for node in onnx.load(path).graph.node].count("QuantizeLinear") >= 4
