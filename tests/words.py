"""Tokenizers of every kind, and the smallest graphs that say what their rows must look like."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import tokenizers
import transformers
from onnx import TensorProto, helper

from optimum_fixedshape import ShapeContract, ShapeLadder, read_contract
from optimum_fixedshape.processors.text import fix_tokenizer

from . import tiny
from .equality import assert_same

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
        tokenizer_object=rust,
        eos_token=end,
        bos_token=end,
        unk_token=end,
        model_max_length=512,
        model_input_names=names,
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


@functools.cache
def reference(kind: str) -> Any:
    """Returns the plain tokenizer; one without a pad token pads with its end token, as its user would make it do."""
    if kind != "no pad":
        return plain(kind)
    tokenizer = without_pad()
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def fixed(kind: str, ladder: ShapeLadder, **options: Any) -> Any:
    return fix_quietly(plain(kind), ladder, **options)


def fix_quietly(tokenizer: Any, ladder: ShapeLadder, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "TokenizersBackend has no pad token|PreTrainedTokenizerFast has no pad token")
        return fix_tokenizer(tokenizer, ladder, **options)


def lengths_of(encoded: Any) -> list[int]:
    ids = encoded["input_ids"]
    return [len(row) for row in ids] if len(ids) and not isinstance(ids[0], int) else [len(ids)]


def assert_padded(ours: Any, tokenizer: Any, *args: Any, rungs: Sequence[int] = RUNGS, **kwargs: Any) -> None:
    """Asserts that `ours` is what the plain `tokenizer` gives when it pads to the smallest rung that holds the rows."""
    bare = tokenizer(
        *args, **{**kwargs, "return_tensors": None, "padding": False, "truncation": kwargs.get("truncation", False)}
    )
    longest = max(lengths_of(bare) + [len(row) for row in _nested(bare.get("labels", []))])
    length = min(rung for rung in rungs if rung >= longest)
    theirs = tokenizer(*args, **{**kwargs, "padding": "max_length", "max_length": length})
    assert_same(ours, theirs, tolerance=0)
    assert {*lengths_of(ours)} == {length}
    for row in range(len(theirs.encodings or ())):
        for facts in ("tokens", "word_ids", "sequence_ids"):
            assert getattr(ours, facts)(row) == getattr(theirs, facts)(row)
        assert ours.encodings[row].offsets == theirs.encodings[row].offsets


def _nested(rows: Any) -> list[Any]:
    return rows if rows and isinstance(rows[0], list) else [rows]
