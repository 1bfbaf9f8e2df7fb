"""Decoders alone: stock graphs pinned at load write what PyTorch writes, through transformers' own `generate()`."""

from __future__ import annotations

import copy
import gc
import pickle
import tracemalloc

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import transformers
from transformers.cache_utils import DynamicCache, StaticCache

from optimum_fixedshape import ORTModelForCausalLM, read_contract
from optimum_fixedshape.errors import InputTooLongError, InvalidModelError, MissingInputError, ShapeMismatchError
from optimum_fixedshape.models.cache import FixedShapeLayer

from . import stock
from .equality import TOLERANCE, assert_close, assert_same, assert_writes_as_original, fix_every_session, lengths_around

CONTEXT, PREFILLS = 40, (4, 16)
SHAPES = {"context_length": [12, CONTEXT], "prefill_length": list(PREFILLS)}
CAUSAL = ("gpt2", "llama", "qwen2", "opt", "bloom")
GREEDY = {"do_sample": False}


def prompts(rows, length, seed=0):
    """Rows of unequal prompts, padded on the left."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, 90, (rows, length), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(rows - 1):
        mask[row, : min(2 * row + 1, length - 1)] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}


@pytest.fixture(scope="module", params=CAUSAL)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def original(name):
    return stock.original(name)


@pytest.fixture(scope="module")
def model(name):
    return ORTModelForCausalLM.from_pretrained(stock.graphs(name), shapes=SHAPES)


@pytest.mark.parametrize("rows", [1, 3])
def test_generate_equals_original(model, original, rows):
    lengths = lengths_around(*PREFILLS, 12, most=CONTEXT - 1)
    assert_writes_as_original(model, original, lambda length: prompts(rows, length), lengths)


@pytest.mark.parametrize("batch", [1, 2, 4])
def test_rows_are_split_to_the_graphs_batch(name, original, batch):
    model = ORTModelForCausalLM.from_pretrained(stock.graphs(name), shapes={**SHAPES, "batch_size": batch})
    for rows in (1, batch, batch + 1):
        assert_writes_as_original(model, original, lambda length, rows=rows: prompts(rows, length), [5])


def test_sessions_of_which_every_size_is_fixed(name, original):
    shapes = {"batch_size": 2, "context_length": 12, "prefill_length": 1}
    model = ORTModelForCausalLM.from_pretrained(stock.graphs(name), shapes=shapes)
    fix_every_session(model)
    assert_writes_as_original(model, original, lambda length: prompts(3, length), [1, 5, 11])


def test_open_graphs_run_as_they_are(name, original):
    model = ORTModelForCausalLM.from_pretrained(stock.graphs(name))
    assert model.context_length is None
    assert_writes_as_original(model, original, lambda length: prompts(3, length), [1, 7, 30])


@pytest.mark.parametrize("name", ["gpt2"], indirect=True)
def test_a_session_and_a_file_are_models_as_well(name, original):
    path = stock.graphs(name) / "model.onnx"
    of_session = ORTModelForCausalLM(config=original.config, session=ort.InferenceSession(path))
    of_file = ORTModelForCausalLM.from_pretrained(path, config=original.config)
    ids = prompts(1, 7)["input_ids"]
    expected = original.generate(ids, **GREEDY, max_new_tokens=5).tolist()
    assert [each.generate(ids, **GREEDY, max_new_tokens=5).tolist() for each in (of_session, of_file)] == [expected] * 2


def test_engines_run_on_the_provider_they_are_put_on(model):
    assert model.to("cpu") is model
    other = model.engine.on("CPUExecutionProvider", {})
    assert len(other.runtimes) == len(model.engine.runtimes)
    for before, after in zip(model.engine.runtimes, other.runtimes, strict=True):
        assert after is not before
        assert (after.pool.providers, after.ladder) == (["CPUExecutionProvider"], before.ladder)


def test_logits_of_all_tokens(model, original):
    for length in lengths_around(*PREFILLS, most=CONTEXT):
        ids = prompts(2, length)["input_ids"]
        with torch.no_grad():
            theirs = original(input_ids=ids).logits
        ours = model(input_ids=ids)
        scale = TOLERANCE * float(theirs.abs().max())
        assert_close(ours.logits.numpy(), theirs.numpy(), tolerance=scale, where=f"{length} tokens")
        kept = model(input_ids=ids, logits_to_keep=2).logits
        assert_same(kept, ours.logits[:, -2:], tolerance=0.0)
        in_numpy = model(input_ids=ids.numpy()).logits
        assert_same(in_numpy, ours.logits.numpy(), tolerance=0.0)


def test_sampling_and_return_sequences(model, original):
    how = {"do_sample": True, "num_return_sequences": 3, "max_new_tokens": 8, "top_k": 20}
    drawn = []
    for each in (original, model):
        torch.manual_seed(0)
        drawn.append(each.generate(**prompts(2, 6), **how))
    assert drawn[0].tolist() == drawn[1].tolist()
    assert len({tuple(row) for row in drawn[0].tolist()}) > 2


def test_stopping_streaming_and_processing(model, original):
    class Heard(transformers.generation.streamers.BaseStreamer):
        def __init__(self):
            self.tokens = []

        def put(self, value):
            self.tokens += value.flatten().tolist()

        def end(self):
            self.tokens.append("end")

    def never_an_even_token(ids, scores):
        scores[:, ::2] = -torch.inf
        return scores

    given, streams = prompts(1, 5), (Heard(), Heard())
    stop = [lambda ids, scores, **kwargs: torch.full((len(ids),), ids.shape[1] >= 9)]
    written = [
        each.generate(
            **given,
            do_sample=False,
            max_new_tokens=20,
            streamer=stream,
            stopping_criteria=transformers.StoppingCriteriaList(stop),
            logits_processor=transformers.LogitsProcessorList([never_an_even_token]),
        ).tolist()
        for each, stream in zip((original, model), streams, strict=True)
    ]
    assert written[0] == written[1]
    assert streams[0].tokens == streams[1].tokens
    assert len(written[1][0]) == 9
    assert all(token % 2 for token in written[1][0][5:])


def test_candidates_of_an_assistant_and_of_the_prompt(model, original):
    ids = torch.tensor([[5, 6, 7, 8, 5, 6, 7, 8, 5, 6]])
    how = {**GREEDY, "attention_mask": torch.ones_like(ids), "max_new_tokens": 12}
    alone = original.generate(ids, **how).tolist()
    assert model.generate(ids, assistant_model=original, **how).tolist() == alone
    assert model.generate(ids, prompt_lookup_num_tokens=3, **how).tolist() == alone


class TestCache:
    def test_it_is_transformers_own(self, model):
        cache = model(**ids_of(5)).past_key_values
        assert type(cache) is DynamicCache
        assert cache.get_seq_length() == 5
        assert model(**ids_of(5), use_cache=False).past_key_values is None

    def test_it_may_come_from_pytorch(self, model, original):
        with torch.no_grad():
            theirs = original(**ids_of(6), use_cache=True).past_key_values
        assert_continues_alike(model, original, theirs, copy.deepcopy(theirs), 6)

    def test_it_may_be_cut_back_and_copied(self, model, original):
        ours = model(**ids_of(9)).past_key_values
        twin = copy.deepcopy(ours)
        model(**ids_of(3, seed=5), past_key_values=ours)
        with torch.no_grad():
            theirs = original(**ids_of(9), use_cache=True).past_key_values
        assert_continues_alike(model, original, twin, theirs, 9)

    def test_one_that_holds_nothing_may_be_copied(self):
        twin = copy.deepcopy(FixedShapeLayer(from_start=True))
        assert (twin.get_seq_length(), twin._from_start) == (0, True)

    def test_what_transformers_puts_in_itself_counts(self, model):
        cache = model(**ids_of(5)).past_key_values
        keys, values = (getattr(cache.layers[0], name)[:, :, :2] for name in ("keys", "values"))
        assert [each.shape[2] for each in cache.update(keys, values, 0)] == [7, 7]
        assert cache.get_seq_length() == 7

    def test_tokens_in_pieces_equal_tokens_at_once(self, model):
        ids = ids_of(20)["input_ids"]
        whole = model(input_ids=ids).logits
        cache, parts = None, []
        for piece in ids.split([3, 1, 9, 7], dim=1):
            output = model(input_ids=piece, past_key_values=cache)
            cache = output.past_key_values
            parts.append(output.logits)
        assert_same(torch.cat(parts, 1), whole, tolerance=TOLERANCE * float(whole.abs().max()))

    def test_a_cache_of_fixed_length_is_refused(self, model, original):
        cache = StaticCache(config=original.config, max_cache_len=16)
        with pytest.raises(ValueError, match="StaticCache has a fixed length of its own"):
            model(**ids_of(3), past_key_values=cache)


def ids_of(length, seed=1):
    return {"input_ids": prompts(1, length, seed)["input_ids"]}


def assert_continues_alike(model, original, ours, theirs, seen):
    for step in range(3):
        new = {"input_ids": torch.tensor([[7 + step]]), "attention_mask": torch.ones(1, seen + step + 1).long()}
        with torch.no_grad():
            expected = original(**new, past_key_values=theirs).logits
        got = model(**new, past_key_values=ours).logits
        assert_same(got, expected, tolerance=TOLERANCE * float(expected.abs().max()))


class TestFullContext:
    def test_nothing_runs_before_the_error(self, name):
        model = ORTModelForCausalLM.from_pretrained(stock.graphs(name), shapes=SHAPES)
        with pytest.raises(
            InputTooLongError, match=r"would have 41 tokens.*hold 40.*max_new_tokens.*'window'"
        ) as error:
            model.generate(**prompts(2, 30), max_new_tokens=11)
        assert (error.value.size, error.value.limit, error.value.axis) == (41, 40, "context_length")
        assert not any(stats.runs for stats in model.stats)

    def test_forward_has_the_same_limit(self, model):
        with pytest.raises(InputTooLongError, match="would have 41 tokens"):
            model(**ids_of(41))

    @pytest.mark.filterwarnings("ignore:Using the model-agnostic default:UserWarning")
    def test_a_default_length_ends_where_the_context_does(self, model):
        assert model.generate(**prompts(1, 35), do_sample=False).shape[1] <= CONTEXT


@pytest.mark.parametrize("name", CAUSAL)
def test_window_equals_a_cache_that_is_cut(name):
    """PyTorch's cache, of which the first tokens are dropped by hand, with positions that go on."""
    original = stock.original(name)
    model = ORTModelForCausalLM.from_pretrained(stock.graphs(name), shapes=SHAPES)
    given = prompts(1, 30)
    ours = model.generate(**given, **GREEDY, max_new_tokens=25, overflow="window")
    written = feed = given["input_ids"]
    cache = DynamicCache()
    with torch.no_grad():
        while written.shape[1] < ours.shape[1]:
            mask = torch.ones(1, cache.get_seq_length() + feed.shape[1]).long()
            last = written.shape[1]
            positions = {"position_ids": torch.arange(last - feed.shape[1], last)[None]} if name != "bloom" else {}
            logits = original(input_ids=feed, attention_mask=mask, past_key_values=cache, **positions).logits
            feed = logits[:, -1:].argmax(-1)
            written = torch.cat([written, feed], 1)
            for layer in cache.layers:
                layer.keys, layer.values = layer.keys[:, :, 1 - CONTEXT :], layer.values[:, :, 1 - CONTEXT :]
    assert ours.shape[1] > CONTEXT
    assert ours.tolist() == written.tolist()


def test_window_ends_with_learned_positions():
    model = ORTModelForCausalLM.from_pretrained(stock.graphs("gpt2"), shapes=SHAPES)
    positions = stock.original("gpt2").config.n_positions
    how = {"max_new_tokens": positions, "min_new_tokens": positions, "overflow": "window"}
    with pytest.raises(InputTooLongError, match=f"has learned no position {positions}"):
        model.generate(**prompts(1, 30), **GREEDY, **how)


make = onnx.helper.make_node
OF_THE_MASK = (
    make("CumSum", ["attention_mask", "axis"], ["counted"]),
    make("Sub", ["counted", "one"], ["from_zero"]),
    make("Shape", ["input_ids"], ["new"], start=1, end=2),
    make("Neg", ["new"], ["behind"]),
    make("Slice", ["from_zero", "behind", "ahead", "one"], ["last"]),
    make("Relu", ["last"], ["position_ids"]),
)
OF_THE_SLOTS = (
    make("Shape", ["past_key_values.0.key"], ["slots"], start=2, end=3),
    make("Shape", ["input_ids"], ["new"], start=1, end=2),
    make("Add", ["slots", "new"], ["end"]),
    make("Squeeze", ["slots"], ["from"]),
    make("Squeeze", ["end"], ["to"]),
    make("Range", ["from", "to", "step"], ["counted"]),
    make("Unsqueeze", ["counted", "first"], ["position_ids"]),
)


def without_positions(name, nodes, target):
    """A copy of a stock graph that takes no positions and counts them itself, as older exports do."""
    graph = onnx.load(stock.graphs(name) / "model.onnx")
    numbers = {"one": [1], "axis": 1, "ahead": [2**31], "step": 1, "first": [0]}
    rest = [*graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend([*nodes, *rest])
    graph.graph.input.remove(next(value for value in graph.graph.input if value.name == "position_ids"))
    graph.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.array(number, np.int64), name) for name, number in numbers.items()
    )
    onnx.save(graph, target / "model.onnx")
    stock.original(name).config.save_pretrained(target)


def test_positions_of_the_mask(tmp_path):
    without_positions("gpt2", OF_THE_MASK, tmp_path)
    model = ORTModelForCausalLM.from_pretrained(tmp_path, shapes=SHAPES)
    assert_writes_as_original(model, stock.original("gpt2"), lambda length: prompts(3, length), [1, 7, CONTEXT - 1])
    with pytest.raises(ShapeMismatchError, match="overflow='window' cannot work"):
        model.generate(**prompts(1, 30), max_new_tokens=20, overflow="window")


def test_positions_of_the_slots(tmp_path):
    without_positions("gpt2", OF_THE_SLOTS, tmp_path)
    model = ORTModelForCausalLM.from_pretrained(tmp_path, shapes=SHAPES)
    assert_writes_as_original(model, stock.original("gpt2"), lambda length: prompts(3, length), [1, 7, CONTEXT - 1])
    saved = tmp_path / "saved"
    model.save_pretrained(saved)
    assert_same(ORTModelForCausalLM.from_pretrained(saved)(**ids_of(7)).logits, model(**ids_of(7)).logits)


def test_rotary_positions_of_the_slots_are_refused(tmp_path):
    without_positions("llama", OF_THE_SLOTS, tmp_path)
    with pytest.raises(InvalidModelError, match="position"):
        ORTModelForCausalLM.from_pretrained(tmp_path, shapes=SHAPES)
    open_graph = ORTModelForCausalLM.from_pretrained(tmp_path)
    assert_writes_as_original(open_graph, stock.original("llama"), lambda length: prompts(1, length), [7])


def test_arguments_of_optimum_are_taken():
    wanted = transformers.GenerationConfig(max_new_tokens=3, pad_token_id=1)
    for load in (ORTModelForCausalLM.from_pretrained, ORTModelForCausalLM.from_model):
        model = load(stock.graphs("gpt2"), generation_config=wanted, use_merged=False, use_cache=True)
        assert model.generate(**prompts(1, 5)).shape == (1, 8)


class TestSaving:
    def test_what_was_pinned_stays_pinned(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        again = ORTModelForCausalLM.from_pretrained(tmp_path)
        assert again.context_length == CONTEXT
        assert again.generation_config.to_dict() == model.generation_config.to_dict()
        assert_same(again(**ids_of(7)).logits, model(**ids_of(7)).logits, tolerance=0.0)

    def test_pickled(self, model):
        again = pickle.loads(pickle.dumps(model))
        assert_same(again(**ids_of(7)).logits, model(**ids_of(7)).logits, tolerance=0.0)


def pinned_on_disk(source, target, names, **sizes):
    """A copy of a stock graph with its sizes baked in, and other names."""
    graph = onnx.load(source)
    known = {"batch_size": 1, "past_sequence_length": sizes["past"], "sequence_length": sizes["new"]}
    known["past_sequence_length + sequence_length"] = sizes["past"] + sizes["new"]
    for value in (*graph.graph.input, *graph.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_value = known[dim.dim_param]
    text = {value.name: names(value.name) for value in (*graph.graph.input, *graph.graph.output)}
    for node in graph.graph.node:
        node.input[:] = [text.get(each, each) for each in node.input]
        node.output[:] = [text.get(each, each) for each in node.output]
    for value in (*graph.graph.input, *graph.graph.output):
        value.name = text[value.name]
    onnx.save(graph, target)


@pytest.mark.parametrize(
    "names",
    [
        lambda name: name,
        lambda name: name.replace("past_key_values.", "past_").replace("present.", "present_").replace(".", "_"),
        lambda name: name.replace("past_key_values.", "kv_cache_in_").replace("present.", "kv_cache_out_"),
    ],
    ids=["optimum", "underscores", "kv"],
)
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_graphs_that_are_fixed_already(name, names, tmp_path):
    source, original = stock.graphs(name), stock.original(name)
    for file, new in (("prefill.onnx", 8), ("decode.onnx", 1)):
        pinned_on_disk(source / "model.onnx", tmp_path / file, names, past=CONTEXT - 1, new=new)
    original.config.save_pretrained(tmp_path)
    assert read_contract(tmp_path / "decode.onnx").is_fixed
    model = ORTModelForCausalLM.from_pretrained(tmp_path)
    assert model.context_length == CONTEXT
    assert_writes_as_original(model, original, lambda length: prompts(2, length), [1, 7, 8, 9, CONTEXT - 1])


def test_a_cache_that_comes_back_as_long_as_it_went(tmp_path):
    for file, new in (("prefill.onnx", 8), ("decode.onnx", 1)):
        pinned_on_disk(
            stock.graphs("llama") / "model.onnx", tmp_path / file, lambda name: name, past=CONTEXT - 1, new=new
        )
        graph = onnx.load(tmp_path / file)
        numbers = {"behind": [new], "ahead": [2**31], "axis": [2]}
        graph.graph.initializer.extend(
            onnx.numpy_helper.from_array(np.array(number, np.int64), name) for name, number in numbers.items()
        )
        for value in graph.graph.output:
            if value.name.startswith("present"):
                whole = value.name
                value.name = f"{whole}.last"
                value.type.tensor_type.shape.dim[2].dim_value = CONTEXT - 1
                graph.graph.node.append(make("Slice", [whole, *numbers], [value.name]))
        onnx.save(graph, tmp_path / file)
    original = stock.original("llama")
    original.config.save_pretrained(tmp_path)
    model = ORTModelForCausalLM.from_pretrained(tmp_path)
    assert_writes_as_original(model, original, lambda length: prompts(2, length), [1, 7, 9, CONTEXT - 1])


@pytest.fixture(scope="module")
def plain():
    return ORTModelForCausalLM.from_pretrained(stock.graphs("gpt2-plain"), shapes={"context_length": [8, CONTEXT]})


class TestWithoutACache:
    def test_generate_equals_original(self, plain):
        assert not plain.can_use_cache
        original = stock.original("gpt2-plain")
        for rows in (1, 3):
            assert_writes_as_original(
                plain, original, lambda length, rows=rows: prompts(rows, length), lengths_around(8, most=CONTEXT - 1)
            )
        assert {stats.sizes["sequence_length"] for stats in plain.stats if stats.runs} == {8, CONTEXT}

    def test_full_context(self, plain):
        with pytest.raises(InputTooLongError, match="would have 41 tokens"):
            plain.generate(**prompts(1, 30), max_new_tokens=11)
        window = plain.generate(**prompts(1, 30), **GREEDY, max_new_tokens=20, overflow="window")
        assert window.shape[1] > CONTEXT


class TestErrors:
    def test_unknown_shapes(self):
        with pytest.raises(ShapeMismatchError, match=r"names sequence.*context_length, prefill_length"):
            ORTModelForCausalLM.from_pretrained(stock.graphs("gpt2"), shapes={"sequence": 3})

    def test_a_context_of_one_token(self):
        with pytest.raises(ShapeMismatchError, match="context_length must be 2 or more, got 1"):
            ORTModelForCausalLM.from_pretrained(stock.graphs("gpt2"), shapes={"context_length": 1})

    def test_empty_batches(self, model):
        for shape in ((0, 3), (2, 0), (3,)):
            with pytest.raises(ShapeMismatchError, match=r"input_ids must be \(rows, tokens\), with one of each"):
                model(input_ids=np.ones(shape, np.int64))

    def test_no_tokens(self, model):
        with pytest.raises(MissingInputError, match="needs input_ids; what came is: inputs_embeds"):
            model(inputs_embeds=torch.zeros(1, 2, 32))

    def test_no_mask(self, tmp_path):
        pinned_on_disk(stock.graphs("gpt2") / "model.onnx", tmp_path / "model.onnx", lambda name: name, past=9, new=2)
        graph = onnx.load(tmp_path / "model.onnx")
        mask = next(value for value in graph.graph.input if value.name == "attention_mask")
        graph.graph.input.remove(mask)
        graph.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((1, 11), np.int64), mask.name))
        onnx.save(graph, tmp_path / "model.onnx")
        stock.original("gpt2").config.save_pretrained(tmp_path)
        with pytest.raises(InvalidModelError, match="a cache of 9 slots and takes no attention_mask"):
            ORTModelForCausalLM.from_pretrained(tmp_path)

    def test_a_mask_that_does_not_cover_the_cache(self, tmp_path):
        pinned_on_disk(stock.graphs("gpt2") / "model.onnx", tmp_path / "model.onnx", lambda name: name, past=9, new=2)
        graph = onnx.load(tmp_path / "model.onnx")
        mask = next(value for value in graph.graph.input if value.name == "attention_mask")
        mask.type.tensor_type.shape.dim[1].dim_value = 7
        onnx.save(graph, tmp_path / "model.onnx")
        stock.original("gpt2").config.save_pretrained(tmp_path)
        with pytest.raises(InvalidModelError, match=r"2 new tokens behind 9 slots.*attention_mask"):
            ORTModelForCausalLM.from_pretrained(tmp_path)


def test_memory_stays_flat():
    model = ORTModelForCausalLM.from_pretrained(stock.graphs("llama"), shapes={"context_length": 400})
    cache = model(**ids_of(13)).past_key_values
    sizes = []
    tracemalloc.start()
    for step in range(40):
        model(input_ids=np.array([[5 + step]]), past_key_values=cache)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    slots = sum(layer.keys.numel() // 53 * 399 * 4 for layer in cache.layers)
    assert sizes[-1] - sizes[4] < slots  # of one step in 35
