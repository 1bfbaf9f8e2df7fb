"""Tokenizers of every kind, and the smallest graphs that say what their rows must look like."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import tokenizers
import transformers
from onnx import TensorProto, helper

from optimum_fixedshape import ShapeContract, ShapeLadder, read_contract

from . import tiny

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
RUNGS = (8, 16)

ON_5 = transformers.__version__.startswith("5.")
FAST = ["wordpiece", "bpe", "unigram", "no pad"]
SLOW = ["bytes", "characters", *([] if ON_5 else ["slow wordpiece"])]


@functools.cache
def plain(kind: str) -> Any:
    """Returns a tokenizer as transformers makes it. Nobody may change it."""
    if kind in ("wordpiece", "bpe", "unigram"):
        return tiny.tokenizer(kind)
    if kind == "bytes":
        return transformers.ByT5Tokenizer(model_max_length=512)
    if kind == "characters":
        return transformers.CanineTokenizer(model_max_length=512)
    if kind == "slow wordpiece":
        return transformers.BertTokenizer(str(tiny.MINILM / "vocab.txt"), model_max_length=512)
    return without_pad()


def without_pad() -> Any:
    """Returns a tokenizer like GPT-2's, which has no token but one that ends a text."""
    rust = tokenizers.Tokenizer(tokenizers.models.BPE())
    rust.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    rust.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    rust.train_from_iterator(tiny.SENTENCES, trainer)
    names = ["input_ids", "attention_mask"]
    end = "<|endoftext|>"
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=rust, eos_token=end, bos_token=end, unk_token=end, model_max_length=512, model_input_names=names
    )


def graph(
    *, batch: int | str = 2, length: int | str = 16, inputs: Sequence[str] = INPUTS, dtype: int = TensorProto.INT64
) -> onnx.ModelProto:
    """Returns a graph that gives back its first input."""
    given = [helper.make_tensor_value_info(name, dtype, [batch, length]) for name in inputs]
    output = helper.make_tensor_value_info("output", dtype, [batch, length])
    nodes = [helper.make_node("Identity", [inputs[0]], ["output"])]
    model = helper.make_graph(nodes, "graph", given, [output])
    return helper.make_model(model, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def save_graph(folder: Path, name: str = "model.onnx", **what: Any) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(graph(**what), path)
    return path


def contract(folder: Path, **what: Any) -> ShapeContract:
    return read_contract(save_graph(folder, **what))


def ladder_of(folder: Path, lengths: Sequence[int] = RUNGS, **what: Any) -> ShapeLadder:
    return ShapeLadder(tuple(contract(folder, name=f"{n}.onnx", length=n, **what) for n in lengths))
