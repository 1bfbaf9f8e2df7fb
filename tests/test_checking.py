"""`check_model` on healthy graphs: nothing fails, and what warns is true of the original, too."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quantize_dynamic, quantize_static

from optimum_fixedshape import generate_inputs
from optimum_fixedshape.checking.check import LINES, check_model
from optimum_fixedshape.checking.report import Finding, Line, Report, Verdict, conclude
from optimum_fixedshape.errors import GraphNotFoundError, ShapeMismatchError

from . import graphs, onnx_models, stock

PADDED_RIGHT = "Padding goes on the right here; on the left it would change the answer: "


def warnings_of(report: Report) -> dict[str, str]:
    assert [line.name for line in report.lines] == list(LINES)
    assert report.ok, str(report)
    return {line.name: line.summary for line in report.lines if line.verdict is Verdict.WARNING}


def test_a_ladder_passes_and_agrees_with_its_original(exported):
    pair = exported("text-classification")
    report = check_model(pair.folder, original=pair.original)
    assert warnings_of(report) == {}
    assert report.line("left padding").summary.startswith(f"{PADDED_RIGHT}the graph takes no position_ids")
    assert report.graphs == ("model.onnx", "model_2x8.onnx")
    assert report.line("agreement").facts["difference"] < 1e-4
    assert report.line("padding").facts["comparisons"] > 2
    assert len(report.line("agreement").evidence) == 4  # each rung at its own size and below
    assert report.line("dynamic").verdict is Verdict.SKIPPED


def test_positions_from_the_mask_let_rows_be_padded_on_either_side(dynamic):
    report = check_model(dynamic.folder, original=dynamic.original)
    assert warnings_of(report) == {}
    assert "it is read from the first place" in report.line("left padding").summary  # its pooler does
    assert report.line("dynamic").evidence[1] == "model.onnx: sequence_length 8, 12 and 20"


def test_padding_on_the_left_is_a_warning_where_the_tokenizer_pads_there(exported, tmp_path):
    pair = exported("text-classification")
    folder = shutil.copytree(pair.folder, tmp_path / "left")
    tokenizer = copy.deepcopy(pair.tokenizer)
    tokenizer.padding_side = "left"
    tokenizer.save_pretrained(folder)
    assert warnings_of(check_model(folder))["left padding"].startswith(
        "Padding on the left changes the answer: the graph"
    )


@pytest.mark.parametrize("name", ["vit", "wav2vec2", "videomae", "clip"])
def test_models_that_see_and_hear_pass(specimen, name):
    pair = specimen(name)
    report = check_model(pair.folder, original=pair.original)
    assert warnings_of(report) == {}
    assert report.line("agreement").verdict is Verdict.PASS


@pytest.mark.parametrize("name", ["gpt2", "llama", "opt", "bloom"])
def test_stock_decoders_pass(name):
    report = check_model(stock.graphs(name), original=stock.original(name))
    assert warnings_of(report) == {}
    assert report.line("cache").verdict is Verdict.PASS
    assert len(report.line("cache").evidence) == 3


@pytest.mark.parametrize("name", ["t5", "trocr"])
def test_stock_models_in_several_parts_pass(name):
    report = check_model(stock.graphs(name), original=stock.original(name))
    assert set(warnings_of(report)) <= {"dynamic"}
    assert report.graphs == ("encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx")
    assert report.line("cache").facts["steps_difference"] < 1e-4


def test_one_part_of_a_model_can_be_checked_alone():
    report = check_model(stock.graphs("t5"), file_name="decoder_with_past_model.onnx")
    assert report.graphs == ("decoder_with_past_model.onnx",)
    assert report.ok, str(report)


def test_images_of_open_size_whose_model_knows_but_one_are_named():
    line = check_model(stock.graphs("trocr")).line("dynamic")
    assert line.verdict is Verdict.WARNING
    assert "height is declared open, and the model was made for one size: pin it." in line.summary
    assert "only 16 of 16 and 24 can be used" in line.evidence[0]


@pytest.mark.parametrize("path", sorted(graphs.ORT_MODELS.glob("*.onnx")), ids=lambda path: path.stem)
def test_graphs_that_are_no_networks_pass(path):
    assert warnings_of(check_model(path)) == {}


class _Samples(CalibrationDataReader):
    def __init__(self, path: Path) -> None:
        self._feeds = iter([generate_inputs(path, seed) for seed in range(4)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._feeds, None)


def quantized(kind: str, plain: Path, target: Path) -> Path:
    if kind == "dynamic":
        quantize_dynamic(plain, target)
    else:
        quantize_static(plain, target, _Samples(plain), quant_format=QuantFormat.QDQ)
    return target


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["dynamic", "static"])
def test_what_padding_does_to_quantized_graphs_is_measured(dynamic, tmp_path, kind):
    plain = onnx_models.with_dims(
        dynamic.folder / "model.onnx", tmp_path / "plain.onnx", {onnx_models.BATCH: 4, onnx_models.LENGTH: 12}
    )
    path = quantized(kind, plain, tmp_path / "model.onnx")
    report = check_model(path, original=dynamic.original)
    warned = warnings_of(report)
    assert "The graph is quantized" in warned["agreement"]
    if kind == "dynamic":  # each run finds its scales in all that it is fed
        assert "rounds all rows together" in warned["slots"]
        assert "rounds padding and data together" in warned["padding"]
        assert 0 < report.line("padding").facts["difference"] < 0.5


def test_roles_and_names_can_be_told(dynamic):
    path = dynamic.folder / "model.onnx"
    assert check_model(path, roles={"pooler_output": ["batch_size", None]}).ok
    with pytest.raises(ShapeMismatchError):
        check_model(path, roles={"nowhere": ["batch_size"]})
    with pytest.raises(ShapeMismatchError):
        check_model(path, input_names={"nowhere": "input_ids"})


def test_progress_is_shown_on_request(capsys):
    check_model(graphs.ORT_MODELS / "sigmoid.onnx")
    assert capsys.readouterr().err == ""
    check_model(graphs.ORT_MODELS / "sigmoid.onnx", progress=True)
    assert "files" in capsys.readouterr().err


def test_a_folder_without_a_graph_is_the_callers_mistake(tmp_path):
    with pytest.raises(GraphNotFoundError):
        check_model(tmp_path)


def test_a_provider_that_is_not_there_is_the_callers_mistake():
    with pytest.raises(ValueError, match="no NoSuchProvider"):
        check_model(graphs.ORT_MODELS / "sigmoid.onnx", "NoSuchProvider")


def test_reports_are_text_and_json():
    lines = (
        Line("slots", Verdict.PASS, "All is well.", ("model.onnx: fine",), {"difference": 0.0}),
        Line(
            "padding", Verdict.FAIL, "Padding changes the answer.", ("model.onnx: far",), {"difference": float("inf")}
        ),
        Line("cache", Verdict.SKIPPED, "No cache."),
    )
    report = Report("bert", "CPUExecutionProvider", ("model.onnx",), lines)
    assert str(report) == (
        "FAIL: bert on CPUExecutionProvider (1 fail, 1 pass, 1 skipped)\n"
        "graphs: model.onnx\n"
        "  pass     slots    All is well.\n"
        "  fail     padding  Padding changes the answer.\n"
        "                    model.onnx: far\n"
        "  skipped  cache    No cache."
    )
    facts = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert facts["verdict"] == "fail"
    assert (facts["ok"], facts["exit_code"]) == (False, 1)
    assert facts["lines"][0] == {
        "name": "slots",
        "verdict": "pass",
        "summary": "All is well.",
        "evidence": ["model.onnx: fine"],
        "facts": {"difference": 0.0},
    }
    assert facts["lines"][1]["facts"] == {"difference": None}


@pytest.mark.parametrize(
    ("verdicts", "verdict", "code"),
    [("pass skipped", "pass", 0), ("pass warning", "warning", 0), ("warning fail pass", "fail", 1), ("", "skipped", 0)],
)
def test_the_worst_line_decides(verdicts, verdict, code):
    lines = tuple(Line(name, Verdict(name), "") for name in verdicts.split())
    report = Report("x", "y", (), lines)
    assert (report.verdict, report.exit_code) == (verdict, code)


def test_the_worst_finding_decides_what_a_line_says():
    findings = [
        Finding(Verdict.PASS, "Fine.", "small: fine"),
        Finding(Verdict.WARNING, "Odd.", "large: odd"),
        Finding(Verdict.WARNING, "Odd.", "larger: odd"),
    ]
    assert conclude("padding", findings) == Line("padding", Verdict.WARNING, "Odd.", ("large: odd", "larger: odd"))


@pytest.mark.parametrize("name", ["light_squeezenet", "light_shufflenet", "light_inception_v1"])
def test_graphs_whose_weights_are_placeholders_are_caught(name):
    """The light models of the onnx package have one number for all weights, and one answer to all images."""
    report = check_model(graphs.ONNX_MODELS / "light" / f"{name}.onnx")
    assert [line.name for line in report.lines if line.verdict is Verdict.FAIL] == ["outputs"]
    assert "1 different values in it" in report.line("outputs").evidence[0]
