"""What graphs are for: told from real exports under standard and odd names, and from graphs made by hand."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from optimum_fixedshape import detect_task, generate_inputs, read_contract
from optimum_fixedshape.detecting.guesses import CLOSE, TaskGuess, TaskGuesses
from optimum_fixedshape.errors import FixedShapeError, InvalidModelError
from optimum_fixedshape.tasks import TASKS, find_task

from . import stock, zoo
from .graphs import ONNX_MODELS, ORT_MODELS
from .onnx_models import build, embedder, value

INT, FLOAT = TensorProto.INT64, TensorProto.FLOAT
LIGHT = sorted((ONNX_MODELS / "light").glob("*.onnx"))
SPECIMENS = ["vit", "vit-encoder", "detr", "segformer", "dpt", "wav2vec2", "wav2vec2-classes", "wav2vec2-frames"]
SPECIMENS += ["whisper-encoder", "videomae", "clip", "layoutlmv3"]
TASKS_OF_TEXT = ["text-classification", "token-classification", "question-answering", "fill-mask", "multiple-choice"]
TASKS_OF_TEXT += ["feature-extraction"]


def guess(inputs, outputs, **settings):
    """Returns the guesses for a graph of which nothing is known but names, types and sizes."""
    sides = [
        [
            value(name, kind, shape)
            for name, (kind, shape) in ((n, t if isinstance(t, tuple) else (FLOAT, t)) for n, t in side.items())
        ]
        for side in (inputs, outputs)
    ]
    model = build([], *sides)
    return detect_task(read_contract(io.BytesIO(model.SerializeToString())), **settings)


def renamed(path, folder):
    """Writes the graph under names that say nothing, and returns where, and the old name of each."""
    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    new = {v.name: f"in_{i}" for i, v in enumerate(graph.input)} | {
        v.name: f"out_{i}" for i, v in enumerate(graph.output)
    }
    for each in (*graph.input, *graph.output):
        each.name = new[each.name]
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
    onnx.save(model, folder / "odd.onnx")
    return folder / "odd.onnx", {odd: name for name, odd in new.items()}


def assert_told(guesses, task):
    """The task is the best guess, or the guesses say that it may be: tasks of one model class are the same here."""
    model = find_task(task).model
    assert any(each.model == model for each in guesses.close), guesses.describe()
    assert guesses.best.model == model or guesses.is_ambiguous
    assert guesses.best.evidence


@pytest.mark.parametrize("name", SPECIMENS)
def test_models_that_see_and_hear(specimen, tmp_path, name):
    pair = specimen(name)
    path = sorted(pair.folder.glob("*.onnx"))[0]
    assert_standard_and_odd_names(path, pair.task, tmp_path)


@pytest.mark.parametrize("task", TASKS_OF_TEXT)
def test_models_that_read(exported, tmp_path, task):
    path = sorted(exported(task).folder.glob("*.onnx"))[0]
    assert_standard_and_odd_names(path, task, tmp_path)


def assert_standard_and_odd_names(path, task, tmp_path):
    plain = detect_task(path)
    assert plain.best.task == task
    assert not plain.is_ambiguous
    assert plain.best.names == {}
    assert_told(detect_task(replace(read_contract(path), path=None)), task)
    odd, names = renamed(path, tmp_path)
    guesses = detect_task(odd)
    assert guesses.best.task == task
    assert guesses.best.score < plain.best.score
    assert guesses.best.names == names


@pytest.mark.parametrize("path", LIGHT, ids=lambda path: path.stem)
def test_bare_classifiers_of_images(path):
    contract = read_contract(path)
    guesses = detect_task(contract)
    best = guesses.best
    (pixels,), (scores,) = contract.input_names, contract.output_names
    assert (best.task, best.model) == ("image-classification", "ORTModelForImageClassification")
    assert best.names == {pixels: "pixel_values", scores: "logits"}
    assert not guesses.is_ambiguous
    assert f"{pixels} has 4 axes and 3 channels" in best.evidence
    assert any(said.startswith(f"gives {scores} (rows, 1000") for said in best.evidence)


def test_the_evidence_names_the_last_operator():
    assert "gives prob_1 (rows, 1000), ends in Softmax" in detect_task(LIGHT[0]).best.evidence


STOCK = {
    "gpt2": "text-generation",
    "gpt2-plain": "text-generation",
    "llama": "text-generation",
    "bloom": "text-generation",
    "bart": "text2text-generation",
    "t5": "text2text-generation",
    "whisper": "automatic-speech-recognition",
    "trocr": "image-to-text",
}


@pytest.mark.parametrize(("name", "task"), STOCK.items())
def test_decoders_of_stock_exports(name, task):
    for path in sorted(stock.graphs(name).glob("*model*.onnx")):
        guesses = detect_task(path)
        if path.stem == "encoder_model":
            assert guesses.best.task.endswith("feature-extraction")
            continue
        assert task in [each.task for each in guesses.close]
        assert guesses.best.task == task or guesses.is_ambiguous
        assert guesses.best.names == {}


@pytest.mark.parametrize("name", ["logreg_iris", "mul_1", "sigmoid"])
def test_graphs_that_are_no_models_of_a_task(name):
    guesses = detect_task(ORT_MODELS / f"{name}.onnx")
    assert (guesses.best, len(guesses), guesses.is_ambiguous) == (None, 0, False)
    assert guesses.describe() == "The graph looks like no model of a task that is known here."


ROW, WORDS = (INT, ["n", "s"]), ["n", "s", 30522]
TEXT = {"input_ids": ROW, "attention_mask": ROW}
KINDS = {**TEXT, "token_type_ids": ROW}
PIXELS = {"x": [1, 3, 224, 224]}
SOUND = {"x": [1, 16000]}
ONLY_SIZES = {
    "three labels of a text": (TEXT, {"y": ["n", 3]}, "text-classification"),
    "labels of tokens": (TEXT, {"y": ["n", "s", 9]}, "token-classification"),
    "words, with kinds of tokens": (KINDS, {"y": WORDS}, "fill-mask"),
    "words and a cache": (
        {**TEXT, "past_key_values.0.key": ["n", 4, "p", 8], "past_key_values.0.value": ["n", 4, "p", 8]},
        {"logits": WORDS, "present.0.key": ["n", 4, "t", 8], "present.0.value": ["n", 4, "t", 8]},
        "text-generation",
    ),
    "a place to start and one to end": (TEXT, {"a": ["n", "s"], "b": ["n", "s"]}, "question-answering"),
    "states and a pooled one": (TEXT, {"a": ["n", "s", 768], "b": ["n", 768]}, "feature-extraction"),
    "an embedding of a sentence": (TEXT, {"sentence_embedding": ["n", 384]}, "feature-extraction"),
    "choices": (
        {name: (INT, ["n", 4, "s"]) for name in ("input_ids", "attention_mask")},
        {"y": ["n", 4]},
        "multiple-choice",
    ),
    "classes of an image": (PIXELS, {"y": [1, 1000]}, "image-classification"),
    "pixels in the last axis": ({"x": [1, 224, 224, 3]}, {"y": [1, 10]}, "image-classification"),
    "a map of labels": (PIXELS, {"y": [1, 21, 224, 224]}, "image-segmentation"),
    "a map of depth": (PIXELS, {"y": [1, 224, 224]}, "depth-estimation"),
    "boxes": (PIXELS, {"a": [1, 100, 92], "b": [1, 100, 4]}, "object-detection"),
    "features of patches": (PIXELS, {"a": [1, 197, 768], "b": [1, 768]}, "image-feature-extraction"),
    "classes of a clip": ({"x": [1, 16, 3, 224, 224]}, {"y": [1, 400]}, "video-classification"),
    "letters of a sound": (SOUND, {"y": [1, 49, 32]}, "automatic-speech-recognition"),
    "classes of a sound": (SOUND, {"y": [1, 5]}, "audio-classification"),
    "classes of frames": (SOUND, {"y": [1, 49, 2]}, "audio-frame-classification"),
    "a speaker, and features of the voice": (SOUND, {"a": [1, 5], "embeddings": [1, 512]}, "audio-xvector"),
    "labels of tokens, of whose ids nothing is known": (
        {"input_ids": (INT, None), "inputs_embeds": ["n", "s", 16]},
        {"y": ["n", "t", 9]},
        "token-classification",
    ),
    "classes of a spectrogram": ({"x": [1, 80, 3000]}, {"y": [1, 5]}, "audio-classification"),
    "texts for images": (
        {"input_ids": (INT, ["t", 77]), "pixel_values": ["i", 3, 224, 224]},
        {"logits_per_image": ["i", "t"], "logits_per_text": ["t", "i"]},
        "zero-shot-image-classification",
    ),
    "texts for spectrograms, which look like images of one channel": (
        {"a": (INT, [3, 8]), "b": [2, 1, 1001, 64]},
        {"c": [2, 3], "d": [3, 2], "e": [3, 512], "f": [2, 512]},
        "zero-shot-audio-classification",
    ),
}


@pytest.mark.parametrize(("inputs", "outputs", "task"), ONLY_SIZES.values(), ids=ONLY_SIZES)
def test_names_types_and_sizes_are_enough(inputs, outputs, task):
    guesses = guess(inputs, outputs)
    assert_told(guesses, task)
    assert guesses.best.task == task, guesses.describe()


AMBIGUOUS = {
    "words, and nothing tells of a mask or a cache": (TEXT, {"y": WORDS}, {"fill-mask", "text-generation"}),
    "an embedding as wide as many labels": (TEXT, {"y": ["n", 768]}, {"text-classification", "feature-extraction"}),
    "a decoder behind any encoder": (
        {"input_ids": ROW, "encoder_hidden_states": ["n", "e", 512]},
        {"logits": WORDS},
        {"automatic-speech-recognition", "image-to-text"},
    ),
    "a map of one channel": (PIXELS, {"y": [1, 1, 224, 224]}, {"depth-estimation", "image-segmentation"}),
}


@pytest.mark.parametrize(("inputs", "outputs", "tasks"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_nothing_tells_apart_is_said_to_be_ambiguous(inputs, outputs, tasks):
    guesses = guess(inputs, outputs)
    assert guesses.is_ambiguous, guesses.describe()
    assert {each.task for each in guesses.close} == tasks
    assert guesses.describe().startswith("The graph may be for any of these, and does not tell which: ")


NO_TASK = {
    "an image from an image": (PIXELS, {"y": [1, 3, 224, 224]}),
    "a larger image": (PIXELS, {"y": [1, 3, 448, 448]}),
    "boxes as other detectors give them": ({"images": [1, 3, 640, 640]}, {"output0": [1, 84, 8400]}),
    "whole numbers": (PIXELS, {"y": (INT, [1, 1000])}),
    "a table of features": ({"x": [1, 13]}, {"y": [1, 2]}),
    "no inputs": ({}, {"logits": [1, 2]}),
    "no shapes": ({"x": None}, {"y": None}),
    "an image of seven channels": ({"pixel_values_of_seven": [1, 7, 32, 32]}, {"y": [1, 7, 32, 32]}),
    "no shape of the output": (TEXT, {"y": None}),
}


@pytest.mark.parametrize(("inputs", "outputs"), NO_TASK.values(), ids=NO_TASK)
def test_nothing_is_claimed_of_what_is_something_else(inputs, outputs):
    assert all(each.score < 0.4 for each in guess(inputs, outputs))


OPEN = {
    "words, of how many nothing is said": (TEXT, {"y": ["n", "s", "w"]}, "text-generation"),
    "a map of any size": ({"x": [1, 3, "h", "w"]}, {"y": [1, 768, "a", "b"]}, "image-segmentation"),
}


@pytest.mark.parametrize(("inputs", "outputs", "task"), OPEN.values(), ids=OPEN)
def test_of_open_sizes_little_is_claimed(inputs, outputs, task):
    guesses = guess(inputs, outputs)
    assert task in {each.task for each in guesses.close}
    assert all(each.score < 0.5 for each in guesses)


def tailed(*nodes, **weights):
    """A graph that turns ids into ``rows``, four numbers for each text, and these into ``y``."""
    lookup = [
        helper.make_node("Gather", ["table", "input_ids"], ["embedded"]),
        helper.make_node("ReduceMean", ["embedded"], ["rows"], axes=[1], keepdims=0),
    ]
    table = np.ones((50, 4), np.float32)
    return build(
        [*lookup, *nodes],
        [value("input_ids", INT, ["n", "s"])],
        [value("y", FLOAT, ["n", 4])],
        {"table": table, **weights},
    )


HEAD = helper.make_node("MatMul", ["rows", "head"], ["scores"])
BIAS = helper.make_node("Add", ["scores", "bias"], ["y"])
TAILS = {
    "mean": (tailed(helper.make_node("Identity", ["rows"], ["y"])), "feature-extraction", "ends in ReduceMean"),
    "normalized": (
        tailed(
            helper.make_node("ReduceL2", ["rows"], ["size"], axes=[1]), helper.make_node("Div", ["rows", "size"], ["y"])
        ),
        "feature-extraction",
        "ends in Div",
    ),
    "linear": (
        tailed(HEAD, BIAS, head=np.ones((4, 4), np.float32), bias=np.ones(4, np.float32)),
        "text-classification",
        "ends in MatMul",
    ),
    "probabilities": (
        tailed(helper.make_node("Softmax", ["rows"], ["y"], axis=-1)),
        "text-classification",
        "ends in Softmax",
    ),
}


@pytest.mark.parametrize(("model", "task", "said"), TAILS.values(), ids=TAILS)
def test_the_last_operator_tells_embeddings_from_labels(model, task, said, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    best = detect_task(tmp_path / "model.onnx").best
    assert best.task == task
    assert any(said in evidence for evidence in best.evidence)


def copies(of, to):
    """Operators that leave numbers as they are, more than are looked through."""
    names = [of, *(f"{of}_{i}" for i in range(70)), to]
    return [helper.make_node("Identity", [a], [b]) for a, b in pairwise(names)]


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ([HEAD, *copies("scores", "y")], "gives y (rows, 4), 4 is the width of the embeddings"),
        (
            [HEAD, *copies("far", "bias"), BIAS],
            "gives y (rows, 4), 4 is the width of the embeddings, ends in Add, no linear layer",
        ),
    ],
    ids=["a layer", "a bias"],
)
def test_of_operators_far_away_nothing_is_said(nodes, said, tmp_path):
    weights = {"head": np.ones((4, 4), np.float32), "far": np.ones(4, np.float32)}
    onnx.save(tailed(*nodes, **weights), tmp_path / "model.onnx")
    assert said in detect_task(tmp_path / "model.onnx").best.evidence


def writer(*, biased):
    nodes = [
        helper.make_node("Gather", ["table", "ids:0"], ["states"]),
        helper.make_node("MatMul", ["states", "head"], ["scores" if biased else "y"]),
        *([BIAS] if biased else []),
    ]
    weights = {
        "table": np.ones((70, 4), np.float32),
        "head": np.ones((4, 70), np.float32),
        "bias": np.ones(70, np.float32),
    }
    return build(nodes, [value("ids:0", INT, ["n", "s"])], [value("y", FLOAT, ["n", "s", 70])], weights)


@pytest.mark.parametrize(("biased", "task"), [(True, "fill-mask"), (False, "text-generation")])
def test_words_for_each_token_are_told_by_the_vocabulary_and_the_last_layer(biased, task, tmp_path):
    onnx.save(writer(biased=biased), tmp_path / "model.onnx")
    best = detect_task(tmp_path / "model.onnx").best
    assert best.task == task
    assert best.names == {"ids:0": "input_ids", "y": "logits"}
    assert any("70 is the size of the vocabulary" in said for said in best.evidence)


ALIASES = {
    "input_ids:0": ("input_ids", ROW),
    "Input_IDs": ("input_ids", ROW),
    "tokens": ("input_ids", ROW),
    "input_mask": ("attention_mask", ROW),
    "mask:0": ("attention_mask", ROW),
    "segment_ids": ("token_type_ids", ROW),
    "serve/input_type_ids": ("token_type_ids", ROW),
    "positions": ("position_ids", ROW),
}


@pytest.mark.parametrize(("name", "standard"), [(name, standard) for name, (standard, _) in ALIASES.items()])
def test_other_names_of_standard_inputs_are_known(name, standard):
    inputs = {"input_ids": ROW, name: ROW} if standard != "input_ids" else {name: ROW}
    best = guess(inputs, {"logits": ["n", 3]}).best
    assert best.names == {name: standard}
    assert f"{name} is another name of {standard}" in best.evidence


@pytest.mark.parametrize(
    ("name", "shape", "standard"),
    [
        ("image", [1, 3, 32, 32], "pixel_values"),
        ("waveform", ["n", "t"], "input_values"),
        ("mel", ["n", 80, "t"], "input_features"),
    ],
)
def test_other_names_of_pixels_and_sounds_are_known(name, shape, standard):
    assert guess({name: shape}, {"logits": ["n", 3]}).best.names == {name: standard}


def test_no_two_tensors_get_one_name():
    inputs = {"ids": ROW, "tokens": ROW, "input_ids": ROW}
    best = guess(inputs, {"logits": ["n", 3], "other": ["n", 3]}).best
    assert "logits" not in best.names.values()
    assert len({*best.names.values(), "input_ids"}) == len(best.names) + 1


def test_the_class_in_config_json_decides():
    assert guess(TEXT, {"y": WORDS}).is_ambiguous
    for head, task in (("BertForMaskedLM", "fill-mask"), ("GPT2LMHeadModel", "text-generation")):
        guesses = guess(TEXT, {"y": WORDS}, config={"architectures": [head]})
        assert (guesses.best.task, guesses.best.score) == (task, 1.0)
        assert not guesses.is_ambiguous
        assert guesses.best.evidence[0] == f"config.json names the class {head}"
        assert guesses.best.names == {"y": "logits"}
    sounds = guess(SOUND, {"y": [1, 5]}, config={"architectures": ["Wav2Vec2ForSequenceClassification"]})
    assert (sounds.best.task, sounds.best.score) == ("audio-classification", 1.0)


def test_the_graph_decides_where_config_json_names_what_it_is_not():
    states = {"last_hidden_state": ["n", "s", 768]}
    guesses = guess(TEXT, states, config={"architectures": ["BertForMaskedLM"]})
    assert guesses.best == guess(TEXT, states).best
    assert guesses.best.task == "feature-extraction"
    for config in ({}, {"architectures": None}, {"architectures": ["NobodyKnows"]}):
        assert guess(TEXT, states, config=config) == guess(TEXT, states)


def test_guesses_are_close_from_a_share_on():
    def ranked(*scores):
        return TaskGuesses(tuple(TaskGuess(f"task {score}", "ORTModel", score) for score in scores))

    assert ranked(0.5, 0.5 * CLOSE).is_ambiguous
    assert not ranked(0.5, 0.5 * CLOSE - 0.01).is_ambiguous
    assert not ranked(0.5).is_ambiguous
    assert [each.score for each in ranked(0.5, 0.1)] == [0.5, 0.1]


def test_guesses_are_told_to_people():
    said = detect_task(LIGHT[0]).describe().splitlines()
    assert said[0] == "The graph is most likely for image-classification."
    assert said[1] == (
        "  image-classification (ORTModelForImageClassification, 0.81): data_0 has 4 axes and 3 channels; "
        "gives prob_1 (rows, 1000), ends in Softmax; data_0 is pixel_values, prob_1 is logits"
    )


def test_every_task_of_the_table_says_what_its_graphs_look_like():
    silent = {"summarization", "translation", "zero-shot-classification"}  # no graph tells these from their like
    for task in TASKS:
        assert len(task.axes) == (0 if task.name in silent else len(task.outputs)), task.name
    assert {specimen.task for specimen in zoo.ZOO.values()} <= {task.name for task in TASKS if task.axes}


def test_a_graph_without_its_file_is_told_by_its_contract():
    model = embedder(2, 8)
    from_stream = detect_task(read_contract(io.BytesIO(model.SerializeToString())))
    assert from_stream.best.task == "feature-extraction"


def test_what_is_no_graph_is_refused(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"hello world, this is no model\n")
    with pytest.raises(InvalidModelError):
        detect_task(tmp_path / "model.onnx")


SMALL = [LIGHT[-1].read_bytes(), (stock.graphs("whisper") / "decoder_model_merged.onnx").read_bytes()]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_damaged_graphs_are_refused_or_told(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "damaged.onnx"
    damaged = bytearray(data.draw(st.sampled_from(SMALL)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(damaged)
    try:
        contract = read_contract(path)
        guesses = detect_task(contract)
        feeds = generate_inputs(contract)
    except FixedShapeError:
        return
    assert guesses.describe()
    assert not contract.mismatches(feeds)


def test_detecting_imports_no_framework(tmp_path):
    heavy = "{'onnx', 'torch', 'transformers', 'onnxruntime', 'numpy', 'google.protobuf'}"
    program = (
        f"import sys; from optimum_fixedshape import detect_task; "
        f"found = detect_task({str(LIGHT[0])!r}, config={{'architectures': ['ResNetForImageClassification']}}); "
        f"assert found.best.score == 1; assert not {heavy} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
