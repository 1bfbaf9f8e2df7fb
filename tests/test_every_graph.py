"""Every graph there is, from inspection to a run: those of onnx and of onnxruntime, stock exports and our own."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from optimum_fixedshape import (
    AutoModelForONNX,
    check_model,
    detect_task,
    generate_inputs,
    pin_shapes,
    read_contract,
)
from optimum_fixedshape.checking.report import Verdict
from optimum_fixedshape.errors import FixedShapeError
from optimum_fixedshape.graph.outline import read_outline

from . import stock

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
PROMPTS = {"input_ids", "input_features", "pixel_values"}
DATASETS = Path(ort.__file__).parent / "datasets"


@dataclass(frozen=True)
class Case:
    """A model, and what is to be found out of it."""

    task: str | None
    model: str
    shapes: Mapping[str, Any] = field(default_factory=dict)
    unpinnable: str = ""
    fails: Sequence[str] = ()  # lines of the check


_WRITER = {"batch_size": 1, "context_length": 8, "prefill_length": 4}
_TEXT_TO_TEXT = Case("text2text-generation", "ORTModelForSeq2SeqLM", {**_WRITER, "sequence_length": 8})
_CAUSAL = Case("text-generation", "ORTModelForCausalLM", _WRITER)
_UNKNOWN = Case(None, "ORTModelForCustomTasks")
# Their weights are one number everywhere, so that every picture gets the same answer: the check tells.
_LIGHT = Case("image-classification", "ORTModelForImageClassification", fails=["outputs"])
LIGHT_NAMES = sorted(path.stem for path in LIGHT.glob("*.onnx"))
CASES: Mapping[str, Case] = {
    **dict.fromkeys(LIGHT_NAMES, _LIGHT),
    **dict.fromkeys(("mul_1", "sigmoid"), _UNKNOWN),
    "logreg_iris": replace(_UNKNOWN, unpinnable="ZipMap node .* gives a sequence, a map"),
    **dict.fromkeys(("gpt2", "llama"), _CAUSAL),
    **dict.fromkeys(("t5", "bart"), _TEXT_TO_TEXT),
    "whisper": Case("automatic-speech-recognition", "ORTModelForWhisper", _WRITER),
    "trocr": Case("image-to-text", "ORTModelForVision2Seq", {**_WRITER, "num_channels": 3, "height": 16, "width": 16}),
    "ours-text": Case("text-classification", "ORTModelForSequenceClassification"),
    "ours-image": Case("image-classification", "ORTModelForImageClassification"),
    "ours-speech": Case(
        "automatic-speech-recognition", "ORTModelForCTC", unpinnable="NonZero node .* depends on the data"
    ),
    "ours-towers": Case("zero-shot-image-classification", "ORTModelForZeroShotImageClassification"),
}
_OURS = {"ours-image": "vit", "ours-speech": "wav2vec2", "ours-towers": "clip"}


@pytest.fixture(scope="module")
def source(request, name):
    """The file or the folder of the model called `name`."""
    if name == "ours-text":
        return request.getfixturevalue("exported")("text-classification").folder
    if name in _OURS:
        return request.getfixturevalue("specimen")(_OURS[name]).folder
    if name in stock.names():
        return stock.graphs(name)
    return (LIGHT if name in LIGHT_NAMES else DATASETS) / f"{name}.onnx"


def graphs_of(source):
    return [source] if source.is_file() else sorted(source.glob("*.onnx"))


def run(path):
    """What was made for the inputs of a graph, by their own names, and what its session gives for them."""
    contract = read_contract(path)
    arrays = generate_inputs(contract)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    feed = {spec.session_name: arrays[spec.name] for spec in contract.inputs}
    return feed, session.run(None, feed)


@pytest.fixture(scope="module")
def answers(source):
    """What `run` gives for each graph; some take seconds to open."""
    return {path: run(path) for path in graphs_of(source)}


# All that is done with a model comes in a row, while its answers are at hand.
every = pytest.mark.parametrize("name", list(CASES), scope="module")


def test_all_are_there():
    assert len(LIGHT_NAMES) == 9
    inside = {path.stem for path in Path(ort.__file__).parent.rglob("*.onnx")}
    assert inside == {"logreg_iris", "mul_1", "sigmoid"} <= set(CASES)
    assert len(CASES.keys() & set(stock.names())) == 6


@every
def test_inspect(name, source):
    for path in graphs_of(source):
        contract, outline = read_contract(path), read_outline(path)
        model = onnx.load(path, load_external_data=False)
        weights = {tensor.name for tensor in model.graph.initializer}
        assert list(contract.input_names) == [value.name for value in model.graph.input if value.name not in weights]
        assert list(contract.output_names) == [value.name for value in model.graph.output]
        assert [node.op_type for node in outline.nodes] == [node.op_type for node in model.graph.node]
        described = contract.describe()
        assert all(spec.name in described for spec in (*contract.inputs, *contract.outputs))


@every
def test_detect(name, source):
    """Each graph is looked at alone: whether a decoder follows sounds or pictures, only its encoder tells."""
    best = [guess for path in graphs_of(source) for guess in likeliest(detect_task(path))]
    if CASES[name].task is None:
        assert not best
    else:
        assert CASES[name].task in {guess.task for guess in best}
        assert all(guess.evidence for guess in best)


def likeliest(guesses):
    return [guess for guess in guesses if guesses.best is not None and guess.score == guesses.best.score]


@every
def test_run_with_generated_inputs(name, answers):
    for path, (_, outputs) in answers.items():
        floats = [array for array in outputs if isinstance(array, np.ndarray) and array.dtype.kind == "f"]
        assert len(outputs) == len(read_contract(path).outputs)
        assert all(np.isfinite(array).all() for array in floats)


@every
def test_pin(name, source, tmp_path):
    case = CASES[name]
    before = {path: path.read_bytes() for path in graphs_of(source)}
    if case.unpinnable:
        with pytest.raises(FixedShapeError, match=case.unpinnable):
            pin_shapes(source, tmp_path / "pinned", case.shapes, progress=False)
        return
    folder = pin_shapes(source, tmp_path / "pinned", case.shapes, progress=False)
    assert before == {path: path.read_bytes() for path in graphs_of(source)}
    pinned = graphs_of(folder)
    assert pinned
    for path in pinned:
        assert read_contract(path).is_fixed
        run(path)


@every
def test_check(name, source):
    report = check_model(source)
    failed = [line.name for line in report.lines if line.verdict is Verdict.FAIL]
    assert failed == list(CASES[name].fails), str(report)
    assert report.exit_code == bool(failed)


@every
def test_model(name, source, answers):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says what it guessed
        model = AutoModelForONNX.from_pretrained(source)
    assert type(model).__name__ == CASES[name].model
    if name in stock.names():
        entrance = source / "encoder_model.onnx"
        arrays = generate_inputs(entrance if entrance.exists() else source / "model.onnx", padded=False)
        prompt = {key: torch.from_numpy(arrays[key]) for key in PROMPTS & arrays.keys()}
        assert model.generate(**prompt, max_new_tokens=3, do_sample=False).shape[0] == 2
    else:
        feed, outputs = answers[Path(model.path)]
        found = model(**{spec.name: feed[spec.session_name] for spec in model.contract.inputs})
        for expected, got in zip(outputs, found.values(), strict=True):
            if isinstance(expected, np.ndarray):
                # two light models leave the axes of their pictures behind, of size 1
                np.testing.assert_allclose(got, expected.reshape(got.shape), rtol=1e-3, atol=1e-3)
