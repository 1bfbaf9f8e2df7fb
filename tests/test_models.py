"""What a model answers: the original's answers, for any rows and lengths, on graphs of every kind."""

from __future__ import annotations

import copy
import logging

import numpy as np
import onnx
import pytest
import torch
import transformers

from optimum_fixedshape import (
    ORTModelForCustomTasks,
    ORTModelForFeatureExtraction,
    ORTModelForMultipleChoice,
    ORTModelForQuestionAnswering,
    ORTModelForSequenceClassification,
)
from optimum_fixedshape.errors import InputTooLongError, MissingInputError, ShapeMismatchError

from . import onnx_models, tiny
from .equality import TOLERANCE, assert_close, assert_same

PINS = [
    {},
    {onnx_models.BATCH: 1},
    {onnx_models.BATCH: 2},
    {onnx_models.LENGTH: 12},
    {onnx_models.BATCH: 8, onnx_models.LENGTH: 12},
]
SIDES = ["none", "right", "left"]


def rows(count, length, *, padded="none"):
    """Rows that all differ; with padding, row i has i pad tokens on the side that is named."""
    generator = np.random.default_rng(count * 100 + length)
    ids = generator.integers(5, len(tiny.tokenizer("wordpiece")), (count, length))
    mask = np.ones_like(ids)
    for number in range(count) if padded != "none" else ():
        pads = min(number, length - 1)
        part = slice(0, pads) if padded == "left" else slice(length - pads, length)
        mask[number, part], ids[number, part] = 0, 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.indices(ids.shape)[1] // 3 % 2}


def as_tensors(feeds):
    return {name: torch.from_numpy(array) for name, array in feeds.items()}


def answer_of(original, feeds):
    with torch.no_grad():
        return original(**as_tensors(feeds), return_dict=True)


def assert_equal(model, original, feeds):
    """Torch in, torch out; NumPy in, NumPy out; both as the original answers."""
    theirs = answer_of(original, feeds)
    assert_same(dict(model(**as_tensors(feeds))), dict(theirs), where="torch")
    ours = model(**feeds)
    for name, value in theirs.items():
        parts = zip(ours[name], value, strict=True) if isinstance(value, tuple) else [(ours[name], value)]
        for mine, other in parts:
            assert isinstance(mine, np.ndarray)
            assert_close(mine, other.numpy(), tolerance=TOLERANCE, where=name)


@pytest.mark.parametrize("sizes", PINS, ids=str)
def test_every_mix_of_open_and_fixed_axes(dynamic, tmp_path, sizes):
    """Rows below, at and above the batch; lengths below and at the rung; every output, every padding."""
    graph = onnx_models.with_dims(dynamic.folder / "model.onnx", tmp_path / "model.onnx", sizes)
    dynamic.original.config.save_pretrained(tmp_path)
    model = ORTModelForFeatureExtraction.from_pretrained(graph)
    assert model.contract.sizes == {onnx_models.BATCH: None, onnx_models.LENGTH: None, **sizes}
    for count in sorted({1, 3, sizes.get(onnx_models.BATCH, 2) + 1}):
        for length in (2, 7, 12):
            for padded in SIDES:
                assert_equal(model, dynamic.original, rows(count, length, padded=padded))
    assert model(**rows(3, 7)).pooler_output.shape == (3, 32)


def test_positions_that_are_given_count(dynamic):
    feeds = rows(2, 6) | {"position_ids": np.arange(6)[None, ::-1].copy()}
    for shapes in (None, {onnx_models.BATCH: 4, onnx_models.LENGTH: 9}):
        model = ORTModelForFeatureExtraction.from_pretrained(dynamic.folder, shapes=shapes)
        assert_equal(model, dynamic.original, feeds)


def test_lists_positions_and_keywords_are_one(exported):
    pair = exported("text-classification")
    model = ORTModelForSequenceClassification.from_pretrained(pair.folder)
    feeds = rows(3, 7)
    ids, mask, types = feeds.values()
    theirs = answer_of(pair.original, feeds)
    assert_same(model(*as_tensors(feeds).values()), theirs)
    assert_same(model(torch.from_numpy(ids), token_type_ids=types, attention_mask=torch.from_numpy(mask)), theirs)
    in_lists = model(ids.tolist(), mask.tolist(), types.tolist())
    assert type(in_lists) is transformers.modeling_outputs.SequenceClassifierOutput
    assert_close(in_lists.logits, theirs.logits.numpy(), tolerance=TOLERANCE, where="lists")
    assert_same(model(**as_tensors(feeds), return_dict=False), (theirs.logits,))
    assert_same(model.forward(**feeds).to_tuple(), model(**feeds, return_dict=True).to_tuple())
    assert_same(list(model.run(feeds)), ["logits"])
    config = copy.deepcopy(model.config)
    config.return_dict = False
    assert type(ORTModelForSequenceClassification(config=config, session=model.session)(**feeds)) is tuple
    with pytest.raises(TypeError, match="At most 4 inputs go by position"):
        model(ids, mask, types, None, None)


@pytest.mark.parametrize(
    ("task", "model_class", "shape"),
    [
        ("question-answering", ORTModelForQuestionAnswering, (0, 7)),
        ("text-classification", ORTModelForSequenceClassification, (0, 3)),
    ],
)
def test_no_rows_give_no_rows(exported, dynamic, task, model_class, shape):
    model = model_class.from_pretrained(exported(task).folder)
    for given in ({"input_ids": torch.zeros((0, 7), dtype=torch.long)}, as_tensors(rows(0, 7))):
        for value in model(**given).to_tuple():
            assert (value.shape, value.dtype) == (shape, torch.float32)
    assert model(input_ids=np.zeros((0, 0), np.int64)).to_tuple()[0].shape in {(0, 0), (0, 3)}
    free = ORTModelForFeatureExtraction.from_pretrained(dynamic.folder)
    assert [value.shape for value in free(**rows(0, 5)).hidden_states] == [(0, 5, 32)] * 3


def test_fewer_choices_than_the_graph_has(exported):
    pair = exported("multiple-choice", shapes={"batch_size": 2, "sequence_length": [8, 16], "num_choices": 3})
    model = ORTModelForMultipleChoice.from_pretrained(pair.folder)
    for count, choices in ((1, 2), (3, 1), (5, 3)):
        feeds = {name: array.reshape(count, choices, 6) for name, array in rows(count * choices, 6).items()}
        assert_equal(model, pair.original, feeds)
    with pytest.raises(InputTooLongError, match=r"num_choices 4, sequence_length 6.*holds num_choices 3.*larger rung"):
        model(**{name: array.reshape(1, 4, 6) for name, array in rows(4, 6).items()})


def test_a_failed_call_says_why_and_leaves_the_model_usable(exported):
    model = ORTModelForSequenceClassification.from_pretrained(exported("text-classification").folder)
    feeds = rows(2, 5)
    before = model(**feeds)
    with pytest.raises(InputTooLongError) as caught:
        model(**rows(1, 17))
    assert str(caught.value) == (
        "The item has sequence_length 17, and the largest rung holds sequence_length 16 (rungs: 8, 16). Ways out: "
        "truncation=True or overflow='truncate' cuts it; overflow='window' runs overlapping windows and merges them "
        "(for a processor or a pipeline); or load or export a larger rung, shapes={'sequence_length': [..., 17]}."
    )
    assert (caught.value.size, caught.value.limit, caught.value.axis) == (17, 16, "sequence_length")
    with pytest.raises(MissingInputError, match=r"The graph takes input_ids, .*; what came is: labels"):
        model(labels=[1])
    with pytest.raises(MissingInputError, match="what came is: nothing"):
        model()
    with pytest.raises(MissingInputError, match=r"needs the input input_ids.*what came: attention_mask"):
        model(attention_mask=feeds["attention_mask"])
    with pytest.raises(ShapeMismatchError, match="expected 2 axes"):
        model(torch.ones(3, dtype=torch.long))
    with pytest.raises(ShapeMismatchError, match="expected int64, got float32"):
        model(torch.ones(1, 3))
    assert_same(model(**feeds).to_tuple(), before.to_tuple(), tolerance=0.0)


def test_arguments_that_the_graph_does_not_take_are_said_once(exported, caplog):
    model = ORTModelForSequenceClassification.from_pretrained(exported("text-classification").folder)
    feeds = rows(2, 5)
    with caplog.at_level(logging.INFO, "optimum_fixedshape"):
        plain = model(**feeds, output_attentions=False, position_ids=None)
        assert not caplog.records
        for _ in range(2):
            told = model(**feeds, labels=torch.tensor([0, 0]), output_hidden_states=True)
    assert sorted(record.getMessage() for record in caplog.records) == [
        "The graph of this ORTModelForSequenceClassification takes no 'labels': it is ignored.",
        "The graph of this ORTModelForSequenceClassification takes no 'output_hidden_states': it is ignored.",
    ]
    assert_close(told.logits.numpy(), plain.logits, tolerance=0.0, where="with ignored arguments")


# Hand-made graphs


def saved(model, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.mark.parametrize("ids", [onnx.TensorProto.INT32, onnx.TensorProto.INT64])
@pytest.mark.parametrize(("batch", "length", "width"), [(3, 4, 4), (3, 4, 3), ("b", 4, 4), (3, "s", 4), ("b", "s", 4)])
def test_outputs_are_cut_where_they_follow_the_input(tmp_path, batch, length, width, ids):
    """A hidden size that equals the length or the batch is neither; an output without a batch axis stays whole."""
    graph = saved(onnx_models.embedder(batch, length, width=width, ids=ids), tmp_path)
    # Only the caller can know that three numbers are not one for each of three rows.
    model = ORTModelForCustomTasks.from_pretrained(graph, roles={"constant": [None]} if width == batch else None)
    feeds = {"input_ids": np.arange(1, 16).reshape(5, 3), "attention_mask": np.ones((5, 3), np.int64)}
    for dtype in (np.int32, np.int64):
        output = model(**{name: array.astype(dtype) for name, array in feeds.items()})
        assert list(output) == ["token_embeddings", "sentence_embedding", "constant"]
        assert output.token_embeddings.tolist() == np.repeat(feeds["input_ids"][..., None], width, -1).tolist()
        assert output.sentence_embedding.tolist() == [[total] * width for total in feeds["input_ids"].sum(1)]
        assert output["constant"].tolist() == list(range(width))
    as_features = ORTModelForFeatureExtraction.from_pretrained(model.path)
    assert_same(as_features(feeds["input_ids"]).sentence_embedding, output.sentence_embedding)


def test_a_graph_without_a_mask_warns_once_at_load(tmp_path):
    fixed, free = (saved(onnx_models.embedder(*dims, masked=False), tmp_path / dims[0]) for dims in made(tmp_path))
    with pytest.warns(UserWarning, match="takes no attention_mask, so that it cannot tell padding from text") as caught:
        model = ORTModelForCustomTasks.from_pretrained(fixed)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    feeds = {"input_ids": np.array([[1, 2, 3, 4]]), "attention_mask": np.ones((1, 4), np.int64)}
    assert model(**feeds).sentence_embedding.tolist() == [[10] * 4], "and a mask that comes anyway is no error"
    assert ORTModelForCustomTasks.from_pretrained(free)(**feeds).sentence_embedding.tolist() == [[10] * 4]


def made(tmp_path):
    for dims in (("b", 4), ("rows", "s")):
        (tmp_path / dims[0]).mkdir()
        yield dims


@pytest.mark.parametrize("shape", [None, ["unk__1", "unk__2", 4], [None, None, 4]], ids=str)
def test_outputs_that_the_graph_does_not_describe(tmp_path, shape):
    """tf2onnx names every open axis anew, and tools that edit graphs drop shapes: the first run tells them."""
    graph = onnx_models.embedder(4, 8)
    graph.graph.output[0].CopyFrom(onnx_models.value("token_embeddings", onnx.TensorProto.FLOAT, shape))
    del graph.graph.output[1:]
    graph.graph.output[0].name = graph.graph.node[2].output[0] = "y"
    graph.graph.node[-2].input[0] = "y"
    model = ORTModelForCustomTasks.from_pretrained(saved(graph, tmp_path))
    for count in (1, 3, 4, 6):
        ids = np.arange(count * 5).reshape(count, 5)
        assert model(ids)["y"].tolist() == np.repeat(ids[..., None], 4, -1).tolist()
    ours = model.runtime.run([{"input_ids": ids[:1]}, {"input_ids": ids[1:3]}])
    assert [output["y"].shape for output in ours] == [(1, 5, 4), (2, 5, 4)]


def test_names_of_its_own_and_texts(tmp_path):
    """Positional inputs go to a custom graph in its own order; text comes and goes as NumPy text, beside tensors."""
    node = onnx.helper.make_node("Identity", ["input.1"], ["text"])
    double = onnx.helper.make_node("Add", ["input.2", "input.2"], ["doubled"])
    string, number = onnx.TensorProto.STRING, onnx.TensorProto.FLOAT
    inputs = [onnx_models.value("input.1", string, ["n", 1]), onnx_models.value("input.2", number, ["n", 1])]
    outputs = [onnx_models.value("text", string, ["n", 1]), onnx_models.value("doubled", number, ["n", 1])]
    model = ORTModelForCustomTasks.from_pretrained(saved(onnx_models.build([node, double], inputs, outputs), tmp_path))
    output = model(np.array([["a"], ["b"]]), torch.tensor([[1.0], [2.0]]))
    assert output.text.tolist() == [["a"], ["b"]]
    assert_same(output.doubled, torch.tensor([[2.0], [4.0]]))
