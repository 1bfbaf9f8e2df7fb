"""Another provider: OpenVINO on the CPU, in an environment of its own (`make test-openvino`)."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime as ort
import pytest
import torch

from optimum_fixedshape import (
    ORTModelForCausalLM,
    ORTModelForFeatureExtraction,
    ORTModelForSequenceClassification,
    check_model,
    pin_shapes,
    pipeline,
)
from optimum_fixedshape.errors import FixedShapeWarning, InvalidArgumentError, InvalidModelError
from optimum_fixedshape.models import classes
from optimum_fixedshape.session_cache import VARIABLE
from optimum_fixedshape.sessions import CPU, nodes_by_provider
from optimum_fixedshape.towers import towers_of

from . import stock
from .equality import assert_model_equals_original, assert_same, assert_writes_as_original
from .hub import LocalHub
from .shell import run_here

OPENVINO = "OpenVINOExecutionProvider"
PINS = {"batch_size": 2, "sequence_length": [8, 4]}

pytestmark = pytest.mark.skipif(
    OPENVINO not in ort.get_available_providers(), reason="this onnxruntime is not onnxruntime-openvino"
)


def rows(count, length):
    ids = np.arange(5, 5 + count * length).reshape(count, length)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def load(pair, **options):
    return ORTModelForSequenceClassification.from_pretrained(pair.folder, **{"provider": OPENVINO, **options})


@pytest.fixture
def pair(exported):
    return exported("text-classification")


def test_tests_run_where_pytest_is_told(pair, provider):
    assert ORTModelForSequenceClassification.from_pretrained(pair.folder).provider == provider


def test_it_runs_every_node_of_every_rung(pair):
    model = load(pair)
    assert (model.provider, model.providers, str(model.device)) == (OPENVINO, [OPENVINO, CPU], "cpu")
    assert [list(nodes_by_provider(model.runtime.session(index))) for index in (0, 1)] == [[OPENVINO]] * 2
    assert_model_equals_original(model, pair.original)


@pytest.mark.parametrize("shapes", [None, PINS])
def test_dynamic_graphs_run_open_and_with_a_session_for_each_rung(dynamic, shapes):
    options = ort.SessionOptions()
    options.log_severity_level = 3  # it warns of each session that leaves nodes to the CPU
    load = ORTModelForFeatureExtraction.from_pretrained
    there = load(dynamic.folder, shapes=shapes, provider=OPENVINO, session_options=options)
    here = load(dynamic.folder, shapes=shapes)
    for count in (1, 2, 3):
        for length in (3, 4, 5, 8):
            assert_same(there.run(rows(count, length)), here.run(rows(count, length)))
    stated = [there.runtime.session(index).get_inputs()[0].shape for index in range(len(there.ladder))]
    assert stated == ([[2, 8], [2, 4]] if shapes else [["batch_size", "sequence_length"]])


# Options


@pytest.mark.parametrize(
    "options",
    [
        *[{"device_type": "CPU"}, {"device_type": "CPU", "precision": "FP32"}, {"precision": "ACCURACY"}],
        *[{"device_type": "AUTO:CPU"}, {"device_type": "HETERO:CPU"}, {"num_of_threads": "1"}, {"num_streams": 2}],
    ],
    ids=str,
)
def test_options_of_the_provider(pair, options):
    model, here = load(pair, provider_options=options), load(pair, provider=CPU)
    assert_same(model.run(rows(3, 5)), here.run(rows(3, 5)))
    assert list(nodes_by_provider(model.session)) == [OPENVINO]


def test_compiled_graphs_are_kept_where_it_is_told(pair, tmp_path):
    for _ in range(2):
        model = load(pair, provider_options={"cache_dir": str(tmp_path)})
        assert_same(model.run(rows(3, 5)), load(pair, provider=CPU).run(rows(3, 5)))
    assert list(tmp_path.glob("*.blob"))


@pytest.mark.parametrize("device", ["NPU", "GPU", "AUTO:NPU,CPU", "AUTO", "NoSuchDevice"])
def test_a_device_that_is_not_there_is_said_once(pair, device, capfd):
    """Whether onnxruntime cannot start the provider, or gives it no node: answers come from the CPU's."""
    if device in ort.capi._pybind_state.get_available_openvino_device_ids():
        pytest.skip(f"this machine has the {device}")
    model = load(pair, provider_options={"device_type": device})
    message = (
        f"OpenVINOExecutionProvider with the options .*{device}.* runs nothing of model_2x8.onnx: onnxruntime gave"
    )
    with pytest.warns(FixedShapeWarning, match=message) as said:
        answers = [model.run(rows(3, length)) for length in (5, 9)]
    assert [warning.filename for warning in said] == [__file__]
    assert_same(answers, [load(pair, provider=CPU).run(rows(3, length)) for length in (5, 9)], tolerance=0.0)
    named = load(pair, providers=[OPENVINO, CPU], provider_options=[{"device_type": device}, {}])
    assert_same(named.run(rows(3, 5)), answers[0], tolerance=0.0)


def test_an_option_that_it_does_not_know_is_an_error(pair, capfd):
    with pytest.raises(InvalidModelError, match=r"model.onnx: Invalid OpenVINO EP option: device$"):
        assert load(pair, provider_options={"device": "CPU"}).session
    assert capfd.readouterr().out == ""


def test_a_provider_that_is_not_there_names_those_that_are(pair):
    with pytest.raises(InvalidArgumentError, match=f"no QNNExecutionProvider. It has: {OPENVINO}"):
        load(pair, provider="QNNExecutionProvider")


def test_nothing_need_be_left_to_the_cpu(pair, dynamic):
    """The entry stays in copies, and in sessions with a rung's sizes."""
    options = ort.SessionOptions()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.log_severity_level = 4
    model = load(pair, session_options=options)
    assert_same(pickle.loads(pickle.dumps(model)).run(rows(3, 5)), model.run(rows(3, 5)), tolerance=0.0)
    model = ORTModelForFeatureExtraction.from_pretrained(
        dynamic.folder, shapes=PINS, provider=OPENVINO, session_options=options
    )
    for each in (model, pickle.loads(pickle.dumps(model))):
        with pytest.raises(InvalidModelError, match=r"assigned to the default CPU EP, but fallback .* disabled"):
            each.run(rows(1, 8))


# Threads, copies, caches


def test_threads_share_a_model(pair):
    model = load(pair)
    alone = {length: model.run(rows(3, length)) for length in range(1, 17)}
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda length: (length, model.run(rows(3, length))), list(alone) * 4))
    for length, answer in answers:
        assert_same(answer, alone[length], tolerance=0.0)


def test_copies_have_provider_and_options(pair):
    model = load(pair, provider_options={"num_of_threads": "1"}, max_open=1)
    twin = pickle.loads(pickle.dumps(model))
    assert (twin.provider, twin.runtime.pool.provider_options) == (OPENVINO, [{"num_of_threads": "1"}])
    for length in (5, 9):
        assert_same(twin.run(rows(3, length)), model.run(rows(3, length)), tolerance=0.0)
        assert len(twin.runtime.pool._open) == 1


def test_weights_packed_for_the_cpu_provider_are_not_for_this_one(pair, tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    monkeypatch.setattr("optimum_fixedshape.sessions._CACHED_FROM_BYTES", 0)
    load(pair).run(rows(3, 5))
    assert not list(tmp_path.iterdir())
    load(pair, provider=CPU).run(rows(3, 5))
    assert list(tmp_path.iterdir())


# What runs


def test_graphs_are_pinned_for_it(dynamic, tmp_path):
    """The digest of what pinned graphs depend on asks onnxruntime, whose package has another name here."""
    pin_shapes(dynamic.folder, tmp_path / "pinned", PINS, progress=False)
    report = check_model(tmp_path / "pinned", OPENVINO, original=dynamic.original)
    assert report.ok, str(report)
    assert report.line("agreement").facts["difference"] < 1e-4


def test_towers_run_as_a_whole(specimen):
    pair = specimen("clip")
    model = classes.ORTModelForZeroShotImageClassification.from_pretrained(pair.folder, provider=OPENVINO)
    assert towers_of(model.runtime) is None
    assert_model_equals_original(model, pair.original)


def test_it_writes(tmp_path):
    options = ort.SessionOptions()
    options.log_severity_level = 3
    model = ORTModelForCausalLM.from_pretrained(
        stock.graphs("gpt2"),
        shapes={"batch_size": 1, "context_length": 24, "prefill_length": 8},
        provider=OPENVINO,
        session_options=options,
    )

    def prompt(length):
        ids = np.arange(3, 3 + length)[None]
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.ones(1, length, dtype=int)}

    assert_writes_as_original(model, stock.original("gpt2"), prompt, [1, 8, 9])


# check and the command line


def test_check_measures_as_finely_as_on_the_cpu_and_says_where_nodes_run(pair, dynamic):
    report = check_model(pair.folder, OPENVINO, original=pair.original)
    assert report.verdict == "pass", str(report)
    assert report.line("agreement").facts["difference"] < 1e-4
    assert list(report.line("session").facts["nodes"]) == [OPENVINO]
    line = check_model(dynamic.folder, OPENVINO).line("session")
    assert line.verdict == "warning"
    assert (
        line.summary == "The provider leaves nodes of the graph to another, and between the two their data is copied."
    )
    assert "CPUExecutionProvider runs 2 nodes (2 IsNaN)" in line.evidence[0]


def test_check_says_that_another_provider_runs_it_all(pair):
    with warnings.catch_warnings(action="error"):
        line = check_model(pair.folder, OPENVINO, provider_options={"device_type": "AUTO"}).line("session")
    assert line.verdict == "warning"
    assert line.evidence[0] == f"model.onnx: asked for {OPENVINO}, runs on {CPU}"


def test_check_finds_what_openvino_computes_wrongly(specimen):
    """Of OpenVINO 2025.4. Once a later one is right, docs/providers.md and Makefile have to say so."""
    pair = specimen("timesformer")
    line = check_model(pair.folder, OPENVINO, original=pair.original).line("agreement")
    assert line.verdict == "fail", line
    repaired = check_model(
        pair.folder,
        OPENVINO,
        original=pair.original,
        provider_options={"load_config": '{"CPU": {"SNIPPETS_MODE": "DISABLE"}}'},
    )
    assert repaired.verdict == "pass", str(repaired)
    assert repaired.line("agreement").facts["difference"] < 1e-4


def test_a_push_checks_with_the_options_that_the_model_runs_with(pair, tmp_path):
    compiled = tmp_path / "compiled"
    with LocalHub(tmp_path / "hub") as hub:
        hub.run(
            f"""
            import shutil
            from optimum_fixedshape import ORTModelForSequenceClassification

            options = {{"provider": {OPENVINO!r}, "provider_options": {{"cache_dir": {str(compiled)!r}}}}}
            model = ORTModelForSequenceClassification.from_pretrained({str(pair.folder)!r}, **options)
            model.session
            shutil.rmtree({str(compiled)!r})
            model.push_to_hub("new/bert")
            """,
            HF_TOKEN=hub.token,
        )
    assert list(compiled.iterdir())


def test_weights_in_the_cache_of_the_hub_cannot_be_opened(pair, tmp_path):
    """Of onnxruntime 1.24.1. Once a later one is used here, docs/troubleshooting.md has to say so."""
    shutil.copytree(pair.folder, tmp_path / "acme" / "bert")
    with LocalHub(tmp_path) as hub:
        hub.run(
            f"""
            import pytest
            from optimum_fixedshape import ORTModelForSequenceClassification

            model = ORTModelForSequenceClassification.from_pretrained("acme/bert", provider={OPENVINO!r})
            with pytest.raises(ValueError, match=r'External data path: ".*" escapes model directory: "'):
                model.session
            """
        )


def test_commands_take_its_options(pair, tmp_path, capfd):
    where = ("--provider", OPENVINO, "--provider-option", "device_type=CPU")
    done = run_here(capfd, "check", pair.folder, *where, "--json")
    assert (done.code, json.loads(done.out)["provider"]) == (0, OPENVINO)
    done = run_here(capfd, "bench", pair.folder, *where, "--rounds", "1", "--json")
    assert (done.code, json.loads(done.out)["machine"]["onnxruntime-openvino"]) == (0, ort.__version__)
    (tmp_path / "texts.txt").write_text("A quiet library.\n")
    done = run_here(capfd, "run", pair.folder, tmp_path / "texts.txt", *where)
    here = pipeline("text-classification", model=pair.folder)("A quiet library.")
    assert done.code == 0
    assert json.loads(done.out)["output"]["label"] == here[0]["label"]
    done = run_here(capfd, "run", pair.folder, tmp_path / "texts.txt", *where[:2], "--provider-option", "device=CPU")
    assert (done.code, done.out) == (1, "")
    assert "Invalid OpenVINO EP option: device" in done.err
