"""Decoders split and opened for a cache of fixed length, against the graphs they came from, in real sessions."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper
from onnx.parser import parse_node
from onnx.reference import ReferenceEvaluator

from optimum_fixedshape.errors import InvalidModelError
from optimum_fixedshape.graph.decoders import open_cache
from optimum_fixedshape.graph.merged import split_merged

from . import stock
from .old_decoders import PLACES_FROM_BOTH, ROTARY, STARTING, VALUE_HANDED_ON, merged, old_decoder

NAMES = ["bart", "t5", "whisper", "trocr"]
COUNTING = {"bart", "whisper", "trocr"}  # T5 has relative positions
SLOTS, SOUNDS = 12, 6  # of the cache, and of what the encoder gives
SAME = {"rtol": 0, "atol": 1e-5}
# Sums over other lengths round differently. How much so in this BART, whose weights are large, shows in the stock graph
# itself: onnxruntime's levels of optimization change its logits by 5e-5, and those of the others by 2e-6.
CLOSE = {name: {"rtol": 0, "atol": 5e-5} if name == "bart" else SAME for name in NAMES}


def load(name, graph):
    return onnx.load(stock.graphs(name) / f"{graph}.onnx")


def run(model, feeds):
    """Returns the outputs by name. Feeds that the graph does not take are left out."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    taken = {value.name: feeds[value.name] for value in session.get_inputs()}
    return dict(zip(names, session.run(None, taken), strict=True))


def shapes(values):
    return {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in values
    }


def names_of(values):
    return [value.name for value in values]


def tokens(length, *, seed, batch=2):
    return np.random.default_rng(seed).integers(3, stock.VOCABULARY, (batch, length))


def encoded(name):
    mask = np.ones((2, SOUNDS), dtype=np.int64)
    mask[0, 4:] = 0
    width = 24 if name == "trocr" else 32
    states = np.random.default_rng(0).standard_normal((2, SOUNDS, width), dtype=np.float32)
    return {"encoder_hidden_states": states, "encoder_attention_mask": mask}


def row_of(feeds, row):
    return {name: array[row : row + 1] for name, array in feeds.items()}


def after(first, feeds, new):
    """Returns the feeds of a following run: the cache that `first` makes of these, and new tokens."""
    caches = {k.replace("present", "past_key_values"): v for k, v in run(first, feeds).items() if "present" in k}
    return feeds | caches | {"input_ids": tokens(new, seed=4, batch=len(feeds["input_ids"]))}


def feeds_of(name, graph="decoder_with_past_model", *, held=5, new=1):
    """Returns what a stock graph takes: so many tokens, and behind them new ones if it goes on with a cache."""
    feeds = encoded(name) | {"input_ids": tokens(held, seed=3)}
    return after(load(name, "decoder_model"), feeds, new) if "past" in graph else feeds


def opened_inputs(feeds, total, *, hidden=0):
    batch = len(feeds["input_ids"])
    mask = np.ones((batch, total), dtype=np.int64)
    mask[:, :hidden] = 0
    return {"decoder_attention_mask": mask, "position_offset": np.full((batch, 1), -hidden)}


def in_slots(feeds):
    """Returns the feeds with the cache right-aligned in all slots, large numbers in those that hold no token."""
    random = np.random.default_rng(9)
    fixed, held = dict(feeds), 0
    for name, array in feeds.items():
        if "past" in name and "encoder" not in name:
            held = array.shape[2]
            junk = random.normal(0, 1000, (*array.shape[:2], SLOTS - held, array.shape[3])).astype(array.dtype)
            fixed[name] = np.concatenate([junk, array], axis=2)
    return fixed | opened_inputs(feeds, SLOTS + feeds["input_ids"].shape[1], hidden=SLOTS - held)


def assert_close(got, want, **tolerance):
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, **tolerance, err_msg=name)


def assert_continues(fixed, exact, new, **tolerance):
    """Asserts that the fixed cache gives the logits, and the keys and values of new tokens, of the exact one."""
    assert list(fixed) == list(exact)
    fixed, exact = (
        {k: array[:, :, -new:] if "present" in k else array for k, array in outputs.items()}
        for outputs in (fixed, exact)
    )
    assert_close(fixed, exact, **tolerance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("part", "original"), [("first", "decoder_model"), ("following", "decoder_with_past_model")])
def test_parts_of_a_merged_decoder_equal_the_graphs_it_was_merged_from(name, part, original):
    merged, want = load(name, "decoder_model_merged"), load(name, original)
    before = merged.SerializeToString()
    got = getattr(split_merged(merged), part)
    onnx.checker.check_model(got, full_check=True)
    assert merged.SerializeToString() == before
    for kind in ("input", "output"):
        ours, theirs, whole = (getattr(model.graph, kind) for model in (got, want, merged))
        assert names_of(ours) == names_of(theirs)
        assert shapes(ours) == {name: shapes(whole)[name] for name in names_of(ours)}
    assert got.opset_import == merged.opset_import
    read = {name for node in got.graph.node for name in node.input}
    assert set(names_of(got.graph.initializer)) <= read
    feeds = feeds_of(name, original)
    assert_close(run(got, feeds), run(want, feeds), **SAME)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("graph", ["decoder_model", "decoder_with_past_model"])
def test_opening_adds_inputs_and_changes_nothing_else(name, graph):
    model = load(name, graph)
    before = model.SerializeToString()
    opened = open_cache(model)
    onnx.checker.check_model(opened, full_check=True)
    assert model.SerializeToString() == before
    keys = "past_decoder_sequence_length + decoder_sequence_length" if "past" in graph else "decoder_sequence_length"
    added = {"decoder_attention_mask": ["batch_size", keys]}
    if name in COUNTING:
        added["position_offset"] = ["batch_size", 1]
    assert shapes(opened.graph.input) == shapes(model.graph.input) | added
    assert {v.type.tensor_type.elem_type for v in opened.graph.input if v.name in added} == {TensorProto.INT64}
    assert list(opened.graph.output) == list(model.graph.output)
    feeds = feeds_of(name, graph)
    same = run(opened, feeds | opened_inputs(feeds, 6 if "past" in graph else 5))
    assert_close(same, run(model, feeds), **SAME)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("held", [1, 5, 11, 12])
@pytest.mark.parametrize("new", [1, 3])
def test_a_fixed_cache_continues_as_the_exact_one(name, held, new):
    following, feeds = load(name, "decoder_with_past_model"), feeds_of(name, held=held, new=new)
    exact = run(following, feeds)
    assert exact["logits"].shape == (2, new, stock.VOCABULARY)
    assert_continues(run(open_cache(following), in_slots(feeds)), exact, new, **CLOSE[name])


@pytest.mark.parametrize("name", NAMES)
def test_mask_and_offset_each_matter(name):
    """Without this the test above could pass for want of junk that is seen, or of positions that count."""
    opened, feeds = open_cache(load(name, "decoder_with_past_model")), in_slots(feeds_of(name))
    right = run(opened, feeds)["logits"]
    unmasked = run(opened, feeds | {"decoder_attention_mask": np.ones_like(feeds["decoder_attention_mask"])})["logits"]
    assert np.abs(unmasked - right).max() > 1e-2
    unmoved = run(opened, feeds | {"position_offset": np.zeros_like(feeds["position_offset"])})["logits"]
    assert (np.abs(unmoved - right).max() > 1e-2) == (name in COUNTING)


@pytest.mark.parametrize("name", NAMES)
def test_rows_hold_different_numbers_of_tokens(name):
    following = load(name, "decoder_with_past_model")
    rows = [row_of(feeds_of(name, held=held), row) for row, held in enumerate((2, 9))]
    fixed = [in_slots(feeds) for feeds in rows]
    together = {key: np.concatenate([feeds[key] for feeds in fixed]) for key in fixed[0]}
    want = np.concatenate([run(following, feeds)["logits"] for feeds in rows])
    np.testing.assert_allclose(run(open_cache(following), together)["logits"], want, **CLOSE[name])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("graph", ["decoder_model", "decoder_with_past_model"])
def test_a_row_of_zeros_is_no_nan_and_leaves_the_other_row_alone(name, graph):
    opened, feeds = open_cache(load(name, graph)), feeds_of(name, graph, new=3)
    feeds = in_slots(feeds) if "past" in graph else feeds | opened_inputs(feeds, 5)
    right = run(opened, feeds)
    feeds["decoder_attention_mask"][0] = 0
    hidden = run(opened, feeds)
    assert all(np.isfinite(array).all() for array in hidden.values())
    np.testing.assert_allclose(hidden["logits"][1], right["logits"][1], **SAME)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("pads", [(3, 0), (70, 68)])  # the tables have 64 and 66 rows: 70 before the first is outside
def test_a_prompt_padded_on_the_left_equals_the_one_without_pads(name, pads):
    model = load(name, "decoder_model")
    ids = tokens(pads[0] + 4, seed=5)
    mask = np.ones_like(ids)
    for row, count in enumerate(pads):
        ids[row, :count], mask[row, :count] = 0, 0
    padded = {"input_ids": ids, "decoder_attention_mask": mask, "position_offset": -np.array(pads)[:, None]}
    got = run(open_cache(model), encoded(name) | padded)
    for row, count in enumerate(pads):
        want = run(model, row_of(encoded(name), row) | {"input_ids": ids[row : row + 1, count:]})
        np.testing.assert_allclose(got["logits"][row, count:], want["logits"][0], **CLOSE[name])
        for key in (key for key in want if ".decoder." in key):
            np.testing.assert_allclose(got[key][row, :, count:], want[key][0], **CLOSE[name], err_msg=key)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float16, 2e-2)])
def test_folded_heads_and_sliced_positions_of_older_exports(dtype, tolerance):
    following = old_decoder(dtype=dtype)
    opened = open_cache(following)
    onnx.checker.check_model(opened, full_check=True)
    feeds = after(old_decoder(STARTING, dtype), {"input_ids": tokens(5, seed=1)}, 1)
    exact, feeds = run(following, feeds), in_slots(feeds)
    assert_continues(run(opened, feeds), exact, 1, rtol=0, atol=tolerance)
    unmoved = run(opened, feeds | {"position_offset": np.zeros_like(feeds["position_offset"])})
    assert np.abs(unmoved["logits"] - exact["logits"]).max() > 0.1
    feeds["decoder_attention_mask"][0] = 0
    hidden = run(opened, feeds)["logits"]
    assert np.isfinite(hidden).all()
    np.testing.assert_allclose(hidden[1], exact["logits"][1], rtol=0, atol=tolerance)


def test_masked_scores_do_not_overflow_in_half_precision():
    """In onnx's own evaluator, because onnxruntime computes float16 in float32 on a CPU, where nothing overflows."""
    model = open_cache(old_decoder(STARTING, np.float16))
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    against = numpy_helper.to_array(weights["k"]) * np.float16(-3)  # a token's score with itself is far below 0
    weights["q"].CopyFrom(numpy_helper.from_array(against, "q"))
    feeds = {"input_ids": tokens(1, seed=1), "decoder_attention_mask": np.zeros((2, 1), dtype=np.int64)}
    logits, *_ = ReferenceEvaluator(model).run(None, feeds | {"position_offset": np.zeros((2, 1), dtype=np.int64)})
    assert logits.dtype == np.float16
    assert np.isfinite(logits).all()


def test_a_merged_decoder_without_an_encoder_is_split():
    first, following = old_decoder(STARTING), old_decoder()
    parts = split_merged(merged(first, following))
    feeds = {"input_ids": tokens(5, seed=1)}
    for got, want in ((parts.first, first), (parts.following, following)):
        onnx.checker.check_model(got, full_check=True)
        assert list(got.graph.input) == list(want.graph.input)
        assert list(got.graph.output) == list(want.graph.output)
        assert_close(run(got, feeds), run(want, feeds), **SAME)
        feeds = after(first, feeds, 1)


def test_outputs_that_are_handed_on_or_made_up_are_dropped():
    parts = split_merged(merged(old_decoder(STARTING), old_decoder(VALUE_HANDED_ON)))
    assert names_of(parts.first.graph.output) == ["logits", "present_0_key", "present_0_value"]
    assert names_of(parts.following.graph.output) == ["logits", "present_0_key"]


def test_what_is_not_merged_once_is_not_split():
    with pytest.raises(InvalidModelError, match="one If node on its input 'use_cache_branch', got a graph with 0"):
        split_merged(old_decoder())
    model = merged(old_decoder(STARTING), old_decoder())
    again = model.graph.node.add()
    again.CopyFrom(model.graph.node[0])
    again.output[:] = [f"again/{name}" for name in again.output]
    with pytest.raises(InvalidModelError, match="got a graph with 2"):
        split_merged(model)
    model = merged(old_decoder(STARTING), old_decoder())
    model.graph.node[0].input[0] = model.graph.input[-1].name = "another_flag"
    with pytest.raises(InvalidModelError, match="got a graph with 0"):
        split_merged(model)


def counted_rotary():
    """Llama, whose positions are no input any more, but counted from the token ids' sizes."""
    model = load("llama", "model")
    model.graph.input.remove(next(value for value in model.graph.input if value.name == "position_ids"))
    sizes = {"none": 0, "one": 1, "axis": [0]}
    model.graph.initializer.extend(numpy_helper.from_array(np.array(v, dtype=np.int64), k) for k, v in sizes.items())
    for node in (
        "position_ids = Unsqueeze (counted, axis)",
        "counted = Range (none, length, one)",
        "length = Gather (all_sizes, one)",
        "all_sizes = Shape (input_ids)",
    ):
        model.graph.node.insert(0, parse_node(node))
    return model


TURNS = "turns keys by positions that the graph counts, and takes from no input"
CANNOT = {
    "no self-attention was found, because no product with present.0": lambda: load("bart", "decoder_model_merged"),
    "because no product with present_0_key leads to a softmax": lambda: old_decoder({"Softmax": "LogSoftmax"}),
    "no self-attention was found, for lack of an input input_ids, or of outputs such as present.0": lambda: old_decoder(
        {"float[^,]*, 4, total, 8] present_0_key,": ""}
    ),
    "the scores of present_0_key have 3 axes and an unknown number of heads": lambda: old_decoder(
        {"batch_size, 4, total, 8": ""}
    ),
    "it already has an input 'decoder_attention_mask'": lambda: open_cache(old_decoder()),
    f"Cos.* {TURNS}": counted_rotary,
    f"the_turns {TURNS}": lambda: old_decoder(ROTARY),
    "the_places takes positions from the token ids and the length": lambda: old_decoder(PLACES_FROM_BOTH),
}


@pytest.mark.parametrize(("why", "model"), CANNOT.items())
def test_what_cannot_be_opened_says_why(why, model):
    with pytest.raises(InvalidModelError, match=f"cannot run on a cache of fixed length: .*{why}"):
        open_cache(model())


def test_a_decoder_that_takes_mask_and_positions_stays_as_it_is():
    model = load("llama", "model")
    assert open_cache(model) == model
