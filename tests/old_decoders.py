"""A decoder as transformers once wrote it, in the text form of ONNX, and decoders merged into one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.compose
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_model

from .stock import VOCABULARY

WIDTH, HEADS = 32, 4

# Heads are folded into the batch, and positions cut out of their table.
_LAYER = """
<ir_version: 9, opset_import: ["": 17]>
old (int64[batch_size, new] input_ids,
     float[batch_size, 4, past, 8] past_key_values_0_key, float[batch_size, 4, past, 8] past_key_values_0_value)
=> (float[batch_size, new, vocabulary] logits,
    float[batch_size, 4, total, 8] present_0_key, float[batch_size, 4, total, 8] present_0_value)
<int64[4] split = {0, -1, 4, 8}, int64[3] join = {0, -1, 32}, int64[1] rest = {-1}, int64[1] size = {8},
 int64[1] heads = {4}, int64[1] first = {0}, int64[1] second = {1},
 int64 none = {0}, int64 one = {1}, int64 two = {2}, int64 many = {4}>
{
    new_sizes = Shape (input_ids)
    batch = Gather (new_sizes, none)
    new = Gather (new_sizes, one)
    past_sizes = Shape (past_key_values_0_key)
    held = Gather (past_sizes, two)
    end = Add (held, new)
    start = Unsqueeze (held, first)
    stop = Unsqueeze (end, first)
    place = Slice (places, start, stop, first, second)
    word = Gather (words, input_ids)
    hidden = Add (word, place)

    q_flat = MatMul (hidden, q)
    q_split = Reshape (q_flat, split)
    q_heads = Transpose <perm = [0, 2, 1, 3]> (q_split)
    k_flat = MatMul (hidden, k)
    k_split = Reshape (k_flat, split)
    k_heads = Transpose <perm = [0, 2, 1, 3]> (k_split)
    v_flat = MatMul (hidden, v)
    v_split = Reshape (v_flat, split)
    v_heads = Transpose <perm = [0, 2, 1, 3]> (v_split)
    present_0_key = Concat <axis = 2> (past_key_values_0_key, k_heads)
    present_0_value = Concat <axis = 2> (past_key_values_0_value, v_heads)

    rows = Unsqueeze (batch, first)
    groups = Mul (batch, many)
    group = Unsqueeze (groups, first)
    folded = Concat <axis = 0> (group, rest, size)
    query = Reshape (q_heads, folded)
    key = Reshape (present_0_key, folded)
    value = Reshape (present_0_value, folded)
    key_turned = Transpose <perm = [0, 2, 1]> (key)
    scores = MatMul (query, key_turned)
    shares = Softmax <axis = -1> (scores)
    mixed = MatMul (shares, value)
    unfolded = Concat <axis = 0> (rows, heads, rest, size)
    mixed_heads = Reshape (mixed, unfolded)
    mixed_split = Transpose <perm = [0, 2, 1, 3]> (mixed_heads)
    mixed_flat = Reshape (mixed_split, join)
    logits = MatMul (mixed_flat, head)
}
"""

# Changes to the text.
STARTING = {
    r",\s*float[^(]* past_key_values_0_value": "",
    r"past_sizes = .*": "",
    r"Gather \(past_sizes, two\)": "Identity (none)",
    r"Concat <axis = 2> \(past_key_values_0_\w+, (\w+)\)": r"Identity (\1)",
}
ROTARY = {
    r"k_heads = Transpose(.*) \(k_split\)": r"""rows_of_turns = Range (held, end, one)
    [the_turns] turn = Gather (turns, rows_of_turns)
    turn_of_heads = Unsqueeze (turn, second)
    k_turned = Add (k_split, turn_of_heads)
    k_heads = Transpose\1 (k_turned)"""
}
PLACES_FROM_BOTH = {
    "place = Slice.*": """nothing = Mul (input_ids, none)
    rows_of_places = Add (nothing, held)
    [the_places] place = Gather (places, rows_of_places)"""
}
VALUE_HANDED_ON = {
    "present_0_value(?= =|, folded)": "real_value",
    "logits = ": r"present_0_value = Identity (past_key_values_0_value)\n    logits = ",
}


def old_decoder(changes: Mapping[str, str] | None = None, dtype: Any = np.float32) -> onnx.ModelProto:
    """Returns one layer that goes on with a cache, or what it is with patterns in its text replaced."""
    text = _LAYER
    for pattern, replacement in (changes or {}).items():
        text, count = re.subn(pattern, replacement, text)
        assert count, pattern
    model = parse_model(text if dtype is np.float32 else text.replace("float[", "float16["))
    random = np.random.default_rng(6)
    shapes = {"words": (VOCABULARY, WIDTH), "places": (64, WIDTH), "turns": (64, WIDTH // HEADS)}
    for name, shape in {**shapes, "head": (WIDTH, VOCABULARY), **dict.fromkeys("qkv", (WIDTH, WIDTH))}.items():
        weights = random.normal(0, 0.4, shape).astype(dtype)
        model.graph.initializer.append(numpy_helper.from_array(weights, name))
    return model


def merged(first: onnx.ModelProto, following: onnx.ModelProto) -> onnx.ModelProto:
    """Returns both as branches of one, whose outputs have names of their own and make up nothing."""
    branches = {}
    kept = dict.fromkeys((f"rename_{what}" for what in ("nodes", "edges", "inputs", "initializers")), False)
    for branch, model in {"else_branch": first, "then_branch": following}.items():
        graph = onnx.compose.add_prefix_graph(model.graph, f"{branch}/", **kept)
        branches[branch] = helper.make_graph(graph.node, branch, [], graph.output)
    outputs, weights = following.graph.output, following.graph.initializer
    node = helper.make_node("If", ["use_cache_branch"], [output.name for output in outputs], **branches)
    flag = helper.make_tensor_value_info("use_cache_branch", TensorProto.BOOL, [1])
    graph = helper.make_graph([node], "merged", [*following.graph.input, flag], outputs, weights)
    return helper.make_model(graph, opset_imports=following.opset_import, ir_version=following.ir_version)
