"""Models that write, exported by us: tokens and logits are PyTorch's, and the folder is an ordinary one."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import transformers

import optimum_fixedshape as fixedshape
from optimum_fixedshape import export_model, read_contract
from optimum_fixedshape.errors import ShapeMismatchError

from . import stock
from .equality import assert_writes_as_original, lengths_around
from .test_causal_models import prompts
from .test_seq2seq_models import CLASSES, sources

CONTEXT = 20
SHAPES = {"batch_size": 2, "context_length": CONTEXT, "prefill_length": 4}
MORE = {
    "gpt2": {"context_length": [8, CONTEXT]},
    "t5": {"sequence_length": 8},
    "bart": {"sequence_length": [4, 8]},
}
KINDS = {"gpt2": "CausalLM", "qwen2": "CausalLM", "bloom": "CausalLM", **CLASSES}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("written")

    def folder(name):
        if not (root / name).is_dir():
            export_model(stock.original(name), root / name, shapes={**SHAPES, **MORE.get(name, {})}, progress=False)
        return root / name

    return folder


def load(name, folder):
    return getattr(fixedshape, f"ORTModelFor{KINDS[name]}").from_pretrained(folder)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_written_equals_original(name, folders):
    model, original = load(name, folders(name)), stock.original(name)
    assert model.context_length == CONTEXT
    if KINDS[name] == "CausalLM":
        lengths, inputs = lengths_around(4, 8, most=CONTEXT - 1), prompts
    else:
        lengths = lengths_around(4, most=8) if KINDS[name] == "Seq2SeqLM" else [1]
        inputs = lambda rows, length: sources(name, rows, length)  # noqa: E731
    for rows in (1, 3):
        assert_writes_as_original(model, original, lambda length, rows=rows: inputs(rows, length), lengths, steps=9)


@pytest.mark.parametrize("name", KINDS)
def test_every_dimension_is_a_number_and_weights_are_shared(name, folders):
    folder = folders(name)
    saved = json.loads((folder / "fixedshape_config.json").read_text())
    assert {path.name for path in folder.glob("*.onnx")} == set(saved["graphs"])
    contracts = [read_contract(folder / graph) for graph in saved["graphs"]]
    assert all(spec.is_fixed for contract in contracts for spec in (*contract.inputs, *contract.outputs))
    assert {file for contract in contracts for file in contract.external_data} == {"model.onnx_data"}
    once = sum(tensor.nbytes for tensor in stock.original(name).state_dict().values())
    assert (folder / "model.onnx_data").stat().st_size < 1.5 * once
    assert 0 < max(saved["difference"].values()) < 1e-3


def test_the_default_sizes(tmp_path):
    config = transformers.GPT2Config(vocab_size=96, n_positions=300, n_embd=16, n_layer=1, n_head=2)
    torch.manual_seed(0)
    export_model(transformers.GPT2LMHeadModel(config), tmp_path, progress=False)
    model = fixedshape.ORTModelForCausalLM.from_pretrained(tmp_path)
    rungs = model.engine.decoder.following.ladder.rungs
    sizes = [(rung.batch_size, rung.sizes["past_sequence_length"], rung.sequence_length) for rung in rungs]
    assert sizes == [(1, 236, 64), (1, 299, 1), (1, 192, 64), (1, 255, 1)]


def test_an_encoder_reads_as_much_as_it_has_positions_for(tmp_path):
    original = stock.original("bart")
    export_model(original, tmp_path, shapes={"context_length": 8, "prefill_length": 4}, progress=False)
    length = original.config.max_position_embeddings
    assert read_contract(tmp_path / "encoder_model.onnx").sequence_length == length
    assert read_contract(tmp_path / "decoder_model.onnx").sizes["encoder_sequence_length"] == length


@pytest.mark.parametrize("is_folder", [True, False])
def test_a_task_that_models_of_two_kinds_have(is_folder, tmp_path):
    original, folder = stock.original("whisper"), tmp_path / "original"
    original.save_pretrained(folder)
    task = "automatic-speech-recognition"
    shapes = {"context_length": 8, "prefill_length": 4}
    export_model(folder if is_folder else original, tmp_path, task=task, shapes=shapes, progress=False)
    assert fixedshape.ORTModelForSpeechSeq2Seq.from_pretrained(tmp_path, subfolder="").context_length == 8


def test_export_on_the_fly(tmp_path, caplog):
    original = stock.original("llama")
    original.save_pretrained(tmp_path)
    model = fixedshape.ORTModelForCausalLM.from_pretrained(tmp_path, shapes={"context_length": 12, "prefill_length": 4})
    assert "Exporting" in caplog.text
    assert_writes_as_original(model, original, lambda length: prompts(2, length), [5])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"context_length": 65}, r"context_length must be 2 to 64, the positions that the model has, got \[65\]"),
        ({"context_length": 1}, r"context_length must be 2 to 64.*got \[1\]"),
        (
            {"sequence_length": 8},
            "shapes= knows batch_size, context_length, prefill_length for text-generation, got seq",
        ),
    ],
)
def test_sizes_that_the_model_has_not(shapes, message, tmp_path):
    with pytest.raises(ShapeMismatchError, match=message):
        export_model(stock.original("gpt2"), tmp_path, shapes=shapes, progress=False)


def test_gpt2_of_original_size(tmp_path):
    torch.manual_seed(0)
    original = transformers.GPT2LMHeadModel(transformers.GPT2Config()).eval()
    export_model(original, tmp_path, shapes={"context_length": 1024, "prefill_length": 128}, progress=False)
    model = fixedshape.ORTModelForCausalLM.from_pretrained(tmp_path)
    assert_writes_as_original(model, original, lambda length: prompts(1, length), [7, 128, 1016], steps=8)


def test_whisper_tiny_of_original_size(tmp_path):
    torch.manual_seed(0)
    original = transformers.WhisperForConditionalGeneration(transformers.WhisperConfig()).eval()
    export_model(original, tmp_path, shapes={"context_length": 448, "prefill_length": 4}, progress=False)
    model = fixedshape.ORTModelForSpeechSeq2Seq.from_pretrained(tmp_path)
    assert_writes_as_original(model, original, lambda length: sources("whisper", 2), [1], steps=12)
    long = {**sources("whisper", 1), "min_new_tokens": 440, "max_new_tokens": 443, "do_sample": False}
    assert np.array_equal(model.generate(**long), original.generate(**long))
