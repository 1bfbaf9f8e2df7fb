"""Graphs broken on purpose, one for each line of a report: caught, and by that line alone."""

from __future__ import annotations

import copy
import shutil

import numpy as np
import onnx
import pytest

from optimum_fixedshape.checking.check import LINES, check_model
from optimum_fixedshape.checking.report import Verdict
from optimum_fixedshape.checking.slots import name_wrong_slot
from optimum_fixedshape.contract import PAST, TOTAL
from optimum_fixedshape.graph.pin import pin_graph

from . import broken, onnx_models, stock

IDS, MASK, KINDS = "input_ids", "attention_mask", "token_type_ids"

LADDERS = {
    "an operator that nobody has": (
        broken.unknown_operator("logits"),
        "session",
        "The graph does not run on this provider.",
        "acme.ops:Sparkle",
    ),
    "random numbers": (
        broken.noisy("logits"),
        "determinism",
        "The same inputs give another answer each time. Export the model in eval() mode, without random nodes.",
        "it holds RandomNormalLike",
    ),
    "dropout left in training mode": (
        broken.dropping("logits"),
        "determinism",
        "The same inputs give another answer each time. Export the model in eval() mode, without random nodes.",
        "it holds Dropout",
    ),
    "roots of negative numbers": (
        broken.not_a_number("logits"),
        "numbers",
        "Ordinary inputs give NaN or infinity in logits.",
        "of 6 numbers of logits",
    ),
    "an answer that is always the same": (
        broken.constant("logits"),
        "outputs",
        "logits does not follow the inputs: it is the same whatever is fed.",
        "the same in 3 runs on different inputs; 1 different values in it",
    ),
    "ids that nobody reads": (
        broken.unread(IDS),
        "inputs",
        "The graph ignores its input input_ids: the answer cannot be right.",
        "other values of it gave the same answer",
    ),
    "a mask that does nothing": (
        broken.deaf(MASK),
        "masks",
        "The mask attention_mask does nothing: padding counts as if it were data.",
        "hiding half of the places changes no output",
    ),
    "a mask upside down": (
        broken.inverted(MASK),
        "masks",
        "The mask attention_mask is inverted: it hides what is 1 and shows what is 0.",
        "other tokens under 0 change the answer, and those under 1 do not",
    ),
    "a last slot that repeats the first": (
        broken.rows("logits", [0, 0]),
        "slots",
        "A row's answer depends on its slot: slot 1 of batch_size cannot be trusted.",
        "2 slots of batch_size: slot 1 gives the answer of slot 0",
    ),
    "a last slot of zeros": (
        broken.muted("logits", [[1], [0]]),
        "slots",
        "A row's answer depends on its slot: slot 1 of batch_size cannot be trusted.",
        "2 slots of batch_size: slot 1 gives zeros",
    ),
    "slots in another order": (
        broken.rows("logits", [1, 0]),
        "slots",
        "A row's answer depends on its slot: slots 0 and 1 of batch_size cannot be trusted.",
        "2 slots of batch_size: slots 0 and 1 give another answer",
    ),
    "an empty row that spoils the others": (
        broken.divided_by_mask("logits", MASK, spoils=True),
        "empty masks",
        "A row whose attention_mask is 0 everywhere spoils the other rows of the batch.",
        "as shapes differ or one is NaN",
    ),
    "a mean of all tokens, real or not": (
        broken.mean_of_all("logits", IDS),
        "padding",
        "Padding changes the answer.",
        "other values in the padding: apart by",
    ),
    "an answer that knows the padded length": (
        broken.share_of_real("logits", MASK),
        "padding",
        "Padding changes the answer.",
        "real places of 16, padded: apart by",
    ),
}


@pytest.mark.parametrize(("edit", "name", "summary", "evidence"), LADDERS.values(), ids=LADDERS)
def test_a_broken_ladder_is_caught(exported, tmp_path, edit, name, summary, evidence):
    report = check_model(broken.folder(exported("text-classification").folder, tmp_path / "broken", edit))
    assert caught(report) == [name], str(report)
    assert report.exit_code == 1
    assert report.line(name).summary == summary
    assert any(evidence in seen for seen in report.line(name).evidence), str(report)


def caught(report):
    """The names of the lines that fail."""
    assert [line.name for line in report.lines] == list(LINES)
    return [line.name for line in report.lines if line.verdict is Verdict.FAIL]


OPEN = "{} is declared open, and a size is baked in. Pin it to one that works, or export again."
DYNAMIC = {
    "positions of one length": (
        broken.added_length("last_hidden_state", 16),
        OPEN.format("sequence_length"),
        "only 16 of 8, 12, 16 and 20 can be used. sequence_length 8: [ONNXRuntimeError]",
    ),
    "tokens that are not read": (
        broken.cut_off(IDS, 8),
        OPEN.format("sequence_length"),
        "only 8 of 8, 12 and 20 can be used. sequence_length 12: tokens beyond the first 8 change nothing",
    ),
    "a batch of two": (
        broken.rows("last_hidden_state", [0, 1]),
        OPEN.format("batch_size"),
        "only 2 of 1, 2, 3 and 5 can be used. batch_size 1: [ONNXRuntimeError]",
    ),
    "rows folded into others": (
        broken.folded("last_hidden_state", 4, 32),
        f"{OPEN.format('batch_size')} {OPEN.format('sequence_length')}",
        "none of 1, 2, 3 and 5 can be used. batch_size 1: last_hidden_state came out as (2, 4, 32)",
    ),
}


@pytest.mark.parametrize(("edit", "summary", "evidence"), DYNAMIC.values(), ids=DYNAMIC)
def test_dims_that_are_open_in_name_alone_are_caught(dynamic, tmp_path, edit, summary, evidence):
    report = check_model(broken.graph(dynamic.folder / "model.onnx", tmp_path / "model.onnx", edit))
    assert caught(report) == ["dynamic"], str(report)
    assert report.line("dynamic").summary == summary
    assert evidence in report.line("dynamic").evidence[0]


def test_slots_are_named_by_number(dynamic, tmp_path):
    sizes = {onnx_models.BATCH: 5, onnx_models.LENGTH: 8}
    plain = onnx_models.with_dims(dynamic.folder / "model.onnx", tmp_path / "plain.onnx", sizes)
    edit = broken.muted("pooler_output", [[1], [1], [0], [1], [0]])
    line = check_model(broken.graph(plain, tmp_path / "model.onnx", edit)).line("slots")
    assert line.summary == "A row's answer depends on its slot: slots 2 and 4 of batch_size cannot be trusted."
    assert line.facts["wrong"] == [2, 4]


def test_stale_slots_are_told_from_other_wrong_ones():
    first, before, other = ({"logits": np.array([[value, 1.0]], np.float32)} for value in (1, 2, 3))
    known = {"first": first, "before": before}
    assert name_wrong_slot(before, **known) == "the answer of the run before"
    assert name_wrong_slot(first, **known) == "the answer of slot 0"
    assert name_wrong_slot({"logits": np.zeros((1, 2), np.float32)}, **known) == "zeros"
    assert name_wrong_slot(other, **known) == "another answer"


def test_inputs_that_only_help_may_be_ignored_with_a_warning(exported, tmp_path):
    healthy = exported("text-classification").folder
    report = check_model(broken.folder(healthy, tmp_path / "broken", broken.unread(KINDS)))
    assert report.ok, str(report)
    assert report.line("inputs").summary == (
        "The graph ignores its input token_type_ids: the answer cannot depend on it."
    )


def test_rows_that_are_empty_and_harm_nobody_are_a_warning(exported, tmp_path):
    edit = broken.divided_by_mask("logits", MASK, spoils=False)
    report = check_model(broken.folder(exported("text-classification").folder, tmp_path / "broken", edit))
    assert report.ok, str(report)
    assert report.line("empty masks").summary == (
        "A row whose attention_mask is 0 everywhere gives NaN or infinity in logits; other rows are right. "
        "Nothing here feeds such rows."
    )


def test_caches_whose_empty_slots_are_seen_are_caught(tmp_path):
    edit = broken.blind_to_past(MASK, IDS)
    report = check_model(broken.folder(stock.graphs("gpt2"), tmp_path / "broken", edit))
    assert caught(report) == ["cache"], str(report)
    assert report.line("cache").summary == "Empty slots of the cache change the answer, although the mask hides them."


def test_decoders_that_count_slots_are_told_what_that_means(tmp_path):
    edit = broken.counting_slots(MASK, IDS)
    report = check_model(broken.folder(stock.graphs("gpt2"), tmp_path / "counting", edit))
    assert report.ok, str(report)
    assert report.line("cache").verdict is Verdict.WARNING
    assert report.line("cache").summary.startswith("The decoder takes no positions and counts slots, empty ones too")


@pytest.mark.parametrize("new", [1, 4])
def test_decoders_of_fixed_caches_that_count_slots_are_told_as_far_as_they_can(new, tmp_path):
    folder = broken.folder(stock.graphs("gpt2"), tmp_path / "counting", broken.counting_slots(MASK, IDS))
    sizes = {"batch_size": 2, "sequence_length": new, PAST: 8, TOTAL: 8 + new}
    onnx.save(pin_graph(onnx.load(folder / "model.onnx"), sizes), folder / "model.onnx")
    line = check_model(folder).line("cache")
    if new > 1:
        assert line.summary == "Tokens one by one give other answers than all at once."
    else:
        assert (line.verdict, line.evidence[0]) == (Verdict.WARNING, "model.onnx: 8 slots")
        assert line.summary.startswith("The decoder takes no positions, and its cache has a fixed length: it cannot be")


def test_graphs_of_other_weights_are_caught(exported):
    pair = exported("text-classification")
    other = copy.deepcopy(pair.original)
    other.classifier.bias.data += 1
    report = check_model(pair.folder, original=other)
    assert caught(report) == ["agreement"], str(report)
    assert report.line("agreement").summary == "The graph does not give what the original gives."


def test_originals_are_loaded_from_folders(exported, tmp_path):
    pair = exported("text-classification")
    pair.original.save_pretrained(tmp_path)
    assert check_model(pair.folder, original=tmp_path).line("agreement").verdict is Verdict.PASS


def test_weights_that_are_cut_short_are_caught(exported, tmp_path):
    folder = shutil.copytree(exported("text-classification").folder, tmp_path / "broken")
    (weights,) = folder.glob("*.onnx_data")
    weights.write_bytes(weights.read_bytes()[:-64])
    report = check_model(folder)
    assert caught(report) == ["files"], str(report)
    assert report.line("files").summary == "The graphs are not complete, or not valid."


def test_rungs_that_are_missing_are_caught(exported, tmp_path):
    folder = shutil.copytree(exported("text-classification").folder, tmp_path / "broken")
    (folder / "model_2x8.onnx").unlink()
    report = check_model(folder)
    assert caught(report) == ["files"], str(report)
    assert "lists model_2x8.onnx, which is not there" in report.line("files").evidence[0]
    assert {line.verdict for line in report.lines if line.name != "files"} == {Verdict.SKIPPED}


def test_files_that_are_no_graphs_are_caught(tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a graph")
    report = check_model(tmp_path / "model.onnx")
    assert caught(report) == ["files"]


def test_graphs_that_run_at_no_usual_size_are_caught(dynamic, tmp_path):
    edit = broken.added_length("last_hidden_state", 1000)
    report = check_model(broken.graph(dynamic.folder / "model.onnx", tmp_path / "model.onnx", edit))
    assert caught(report) == ["session"], str(report)
    assert "running Add node" in report.line("session").evidence[0]
    assert report.line("slots").summary == "Not checked, because session fails."
    assert "\n" not in report.line("session").evidence[0]


def test_graphs_that_take_more_than_memory_holds_are_not_tried(tmp_path):
    side = 2**14
    model = onnx_models.build(
        [onnx.helper.make_node("Identity", ["pixels"], ["same"])],
        [onnx_models.value("pixels", onnx.TensorProto.FLOAT, [1, 3, side, side])],
        [onnx_models.value("same", onnx.TensorProto.FLOAT, [1, 3, side, side])],
    )
    onnx.save(model, tmp_path / "model.onnx")
    report = check_model(tmp_path / "model.onnx")
    assert caught(report) == ["files"]
    assert f"takes {3 * side * side} numbers at once" in report.line("files").evidence[0]
