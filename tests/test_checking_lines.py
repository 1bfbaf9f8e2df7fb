"""What single lines of a report say of small graphs made by hand, and of models that are odd in one way."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnxruntime.quantization import quantize_dynamic

from optimum_fixedshape.checking.check import check_model
from optimum_fixedshape.checking.comparing import apart, as_array
from optimum_fixedshape.checking.report import Verdict
from optimum_fixedshape.errors import GraphNotFoundError

from . import broken, stock
from .onnx_models import build, embedder, value

IDS, MASK, KINDS = "input_ids", "attention_mask", "token_type_ids"
SUM = "sentence_embedding"
node = onnx.helper.make_node


def edited(model: onnx.ModelProto, *edits: broken.Edit) -> onnx.ModelProto:
    for edit in edits:
        edit(model)
    return model


def with_input(name: str, dtype: int, shape: list[int | str]) -> broken.Edit:
    return lambda model: model.graph.input.append(value(name, dtype, shape))


def sized_by_hand(model: onnx.ModelProto) -> None:
    """Twice the rows that were fed come out, which no shape says."""
    broken.output(
        SUM,
        node("Shape", [IDS], ["broken/shape"], start=0, end=1),
        node("Concat", ["broken/two", "broken/one"], ["broken/times"], axis=0),
        node("Tile", [SUM + broken.HONEST, "broken/times"], [SUM]),
        one=np.array([1]),
        two=np.array([2]),
    )(model)


def of_pixels(height: int | str, width: int | str) -> onnx.ModelProto:
    return build(
        [node("ReduceMean", ["pixel_values"], ["image_embeds"], axes=[2, 3], keepdims=0)],
        [value("pixel_values", TensorProto.FLOAT, [2, 3, height, width])],
        [value("image_embeds", TensorProto.FLOAT, [2, 3])],
    )


def of_vectors(rows: int | str, length: int | str) -> onnx.ModelProto:
    return build(
        [node("ReduceSum", ["vectors", "places"], ["total"], keepdims=0)],
        [value("vectors", TensorProto.FLOAT, [rows, length, 4])],
        [value("total", TensorProto.FLOAT, [rows, 4])],
        {"places": np.array([1])},
    )


def counting(kind: str, *, cast: bool) -> broken.Edit:
    """To an output is added how many ids are not 0, whatever the mask says."""
    read = "broken/ids" if cast else IDS
    dtype = np.int32 if cast else np.int64
    return broken.output(
        SUM,
        *([node("Cast", [IDS], [read], to=TensorProto.INT32)] if cast else []),
        node(kind, [read, "broken/nothing"], ["broken/found"]),
        node("Cast", ["broken/found"], ["broken/numbers"], to=TensorProto.FLOAT),
        node("ReduceSum", ["broken/numbers", "broken/last"], ["broken/count"]),
        node("Add", [SUM + broken.HONEST, "broken/count"], [SUM]),
        nothing=np.array(0, dtype),
        last=np.array([-1]),
    )


def stopping() -> broken.Edit:
    """A row without a real token reads beyond a table."""
    return broken.output(
        SUM,
        node("ReduceMax", [MASK], ["broken/any"], axes=[1]),
        node("Sub", ["broken/one", "broken/any"], ["broken/place"]),
        node("Gather", ["broken/table", "broken/place"], ["broken/part"]),
        node("Add", [SUM + broken.HONEST, "broken/part"], [SUM]),
        one=np.int64(1),
        table=np.zeros(1, np.float32),
    )


def adding_kinds() -> broken.Edit:
    """A table of one kind of token is added to an output."""
    return broken.output(
        SUM,
        node("Gather", ["broken/table", KINDS], ["broken/kinds"]),
        node("ReduceSum", ["broken/kinds", "tokens"], ["broken/part"], keepdims=0),
        node("Add", [SUM + broken.HONEST, "broken/part"], [SUM]),
        table=np.ones((1, 4), np.float32),
    )


def meeting(name: str) -> broken.Edit:
    """The mean of all rows is added to each."""
    return broken.output(
        name,
        node("ReduceMean", [name + broken.HONEST], ["broken/mean"], axes=[0]),
        node("Add", [name + broken.HONEST, "broken/mean"], [name]),
    )


LINES = {
    "an output without rows": (
        embedder(2, 8),
        "outputs",
        Verdict.WARNING,
        "constant is a constant, and has no rows.",
    ),
    "a mask of one place": (
        embedder(2, 1),
        "masks",
        Verdict.SKIPPED,
        "A mask of one place hides all or nothing.",
    ),
    "one token": (
        embedder(2, 1),
        "padding",
        Verdict.SKIPPED,
        "The graph is too short for padding.",
    ),
    "one token, on the left": (
        embedder(2, 1),
        "left padding",
        Verdict.SKIPPED,
        "The graph is too short for padding.",
    ),
    "one row": (
        embedder(1, 8),
        "empty masks",
        Verdict.PASS,
        "A row without a real place gives numbers, and leaves other rows alone.",
    ),
    "an input that leads nowhere": (
        edited(embedder(2, 8), with_input(KINDS, TensorProto.INT64, [2, 8])),
        "inputs",
        Verdict.WARNING,
        "The graph ignores its input token_type_ids: the answer cannot depend on it.",
    ),
    "an input of one value": (
        edited(embedder(2, 8), with_input(KINDS, TensorProto.INT64, [2, 8]), adding_kinds()),
        "inputs",
        Verdict.PASS,
        "Every input changes the answer.",
    ),
    "an empty row that stops the run": (
        edited(embedder(2, 8), stopping()),
        "empty masks",
        Verdict.WARNING,
        "A row whose attention_mask is 0 everywhere stops the run. Nothing here feeds such rows.",
    ),
    "padding without a mask": (
        embedder(2, 8, masked=False),
        "padding",
        Verdict.WARNING,
        "Padding changes the answer: the graph takes no attention_mask, so that it cannot tell padding from text.",
    ),
    "a search for ids": (
        edited(embedder(2, 8), counting("Greater", cast=False)),
        "padding",
        Verdict.WARNING,
        "What stands in the padding changes the answer: the graph looks for ids. Pad with the pad token only.",
    ),
    "a search for ids behind a Cast": (
        edited(embedder(2, 8), counting("Greater", cast=True)),
        "padding",
        Verdict.WARNING,
        "What stands in the padding changes the answer: the graph looks for ids. Pad with the pad token only.",
    ),
    "rows that meet": (
        edited(embedder("batch_size", 8), meeting(SUM)),
        "dynamic",
        Verdict.FAIL,
        "batch_size is declared open, and a size is baked in. Pin it to one that works, or export again.",
    ),
    "more rows than went in": (
        edited(embedder(2, 8), sized_by_hand),
        "slots",
        Verdict.FAIL,
        "The check could not be finished: the graph refuses what it should take.",
    ),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize(("model", "name", "verdict", "summary"), LINES.values(), ids=LINES)
def test_a_line_says_what_a_graph_does(model, name, verdict, summary, tmp_path):
    onnx.save(model, tmp_path / "model.onnx")
    line = check_model(tmp_path / "model.onnx").line(name)
    assert (line.verdict, line.summary) == (verdict, summary), line


def test_vectors_are_padded_where_roles_are_told(tmp_path):
    onnx.save(of_vectors(2, "length"), tmp_path / "model.onnx")
    report = check_model(tmp_path / "model.onnx", roles={"vectors": ["batch_size", "sequence_length", None]})
    assert report.line("dynamic").summary == "Every open dim takes any size."
    assert report.line("padding").summary == "Padding changes the answer: the graph takes no mask."


def test_inputs_without_rows_are_fed_as_they_are(tmp_path):
    scaled = broken.output(SUM, node("Mul", [SUM + broken.HONEST, "scale"], [SUM]))
    onnx.save(edited(embedder(2, 8), with_input("scale", TensorProto.FLOAT, [4]), scaled), tmp_path / "model.onnx")
    assert check_model(tmp_path / "model.onnx").line("padding").verdict is Verdict.PASS


def test_a_graph_for_several_sizes_is_checked_at_each(tmp_path):
    onnx.save(embedder("batch_size", "sequence_length"), tmp_path / "model.onnx")
    saved = {"format_version": 1, "graphs": ["model.onnx"], "shapes": {"batch_size": 2, "sequence_length": [4, 8]}}
    (tmp_path / "fixedshape_config.json").write_text(json.dumps(saved))
    line = check_model(tmp_path).line("session")
    assert line.evidence == ("model.onnx (sequence_length 4): runs", "model.onnx (sequence_length 8): runs")


@pytest.mark.parametrize("told", [{"height": 8, "width": 12}, [8, 12]])
def test_the_size_of_images_is_told_by_the_configuration(told, tmp_path):
    onnx.save(of_pixels("height", "width"), tmp_path / "model.onnx")
    (tmp_path / "config.json").write_text(json.dumps({"image_size": told}))
    (seen, _) = check_model(tmp_path).line("dynamic").evidence
    assert "height 8" in seen


class Original(torch.nn.Module):
    """What `embedder` computes, in PyTorch, with an output by any name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, input_ids, attention_mask, return_dict):
        ids = input_ids.float()[..., None].expand(-1, -1, 4)
        return {self.name: ids, "loss": None} if self.name else {"loss": None}


@pytest.mark.parametrize(
    ("name", "verdict", "summary"),
    [
        ("token_embeddings", Verdict.PASS, "The graph gives what the original gives."),
        ("under_another_name", Verdict.PASS, "The graph gives what the original gives."),
        ("", Verdict.WARNING, "The original gives none of the graph's outputs."),
    ],
)
def test_an_original_may_name_its_outputs_otherwise(name, verdict, summary, tmp_path):
    onnx.save(embedder(2, 2), tmp_path / "model.onnx")
    line = check_model(tmp_path / "model.onnx", original=Original(name)).line("agreement")
    assert (line.verdict, line.summary) == (verdict, summary)


def test_padding_that_the_original_sees_is_a_warning(specimen):
    folder = specimen("wav2vec2-xvector").folder
    line = check_model(folder).line("padding")
    assert line.verdict is Verdict.WARNING
    assert "heads for speakers count too few frames as padding" in line.summary


def test_models_trained_on_one_length_are_not_padded(specimen):
    pair = specimen("siglip")
    report = check_model(pair.folder, original=pair.original)
    assert report.line("padding").summary == "The model was trained to see padding, always to the same length."
    assert report.line("agreement").verdict is Verdict.PASS


# decoders


def test_decoders_that_see_how_many_slots_there_are_are_caught(tmp_path):
    edit = broken.output(
        "logits",
        node("Shape", [MASK], ["broken/all"], start=1, end=2),
        node("Cast", ["broken/all"], ["broken/number"], to=TensorProto.FLOAT),
        node("Mul", ["logits" + broken.HONEST, "broken/number"], ["logits"]),
    )
    line = check_model(broken.folder(stock.graphs("gpt2"), tmp_path / "broken", edit)).line("cache")
    assert (line.verdict, line.facts["difference"] > 0.1) == (Verdict.FAIL, True)
    assert line.summary.startswith("Empty slots of the cache change the answer, although the mask hides them.")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_quantized_decoders_round_steps_otherwise_than_a_whole(tmp_path):
    folder = shutil.copytree(stock.graphs("gpt2"), tmp_path / "quantized")
    quantize_dynamic(stock.graphs("gpt2") / "model.onnx", folder / "model.onnx")
    line = check_model(folder).line("cache")
    assert line.verdict is Verdict.WARNING
    assert "Tokens one by one differ a little from all at once: the graph is quantized." in line.summary


def test_parts_that_make_no_whole_are_named(tmp_path):
    for name in ("decoder_model.onnx", "decoder_with_past_model.onnx"):
        shutil.copy(stock.graphs("t5") / name, tmp_path)
    with pytest.raises(GraphNotFoundError):
        check_model(tmp_path)


# how answers are compared


def test_outputs_of_any_kind_are_compared():
    assert as_array([{0: 0.25, 1: 0.75}, {0: 0.5, 1: 0.5}]).shape == (2, 2)
    assert as_array({"no": 0.25, "yes": 0.75}).tolist() == [0.25, 0.75]
    assert as_array([np.zeros(2), np.ones((1, 3))]).tolist() == [0, 0, 1, 1, 1]
    assert apart({"y": np.zeros((2, 3))}, {"y": np.zeros((3, 2))}) == float("inf")
