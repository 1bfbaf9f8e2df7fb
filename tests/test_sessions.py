"""Around the sessions: where and when they open, what they are told, and what becomes of them in copies."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
import textwrap
import weakref
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from optimum_fixedshape import ORTModelForFeatureExtraction, ORTModelForSequenceClassification, read_contract
from optimum_fixedshape.errors import GraphNotFoundError
from optimum_fixedshape.sessions import SessionPool

from .equality import assert_same

AZURE, CPU = "AzureExecutionProvider", "CPUExecutionProvider"


def rows(count, length):
    ids = np.arange(5, 5 + count * length).reshape(count, length)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


@pytest.fixture
def model(exported):
    return ORTModelForSequenceClassification.from_pretrained(exported("text-classification").folder)


def test_run_needs_no_torch(exported):
    """Everything under `model.run`, in a process that has neither torch nor transformers."""
    code = f"""
        import sys
        from pathlib import Path
        import numpy as np
        from optimum_fixedshape.config import FixedShapeConfig
        from optimum_fixedshape.repo import find_graphs
        from optimum_fixedshape.fitting import Fill
        from optimum_fixedshape.runtime import Runtime

        graphs = find_graphs({str(exported("text-classification").folder)!r})
        runtime = Runtime(graphs.ladder, graphs.paths, fill=Fill())
        output, = runtime.run([{{"input_ids": np.ones((3, 9), np.int64)}}])
        assert output["logits"].shape == (3, 3)
        assert [stats.runs for stats in runtime.stats] == [2, 0]
        assert not {{"torch", "transformers", "optimum"}} & sys.modules.keys(), sys.modules.keys()
    """
    subprocess.run([sys.executable, "-W", "error", "-c", textwrap.dedent(code)], check=True)


def test_the_slow_fusion_is_off(exported, tmp_path, capfd):
    """onnxruntime's own optimizer fuses Add + LayerNormalization on fixed shapes; a session of ours does not."""
    folder = exported("text-classification").folder
    capfd.readouterr()
    assert ORTModelForSequenceClassification.from_pretrained(folder)(**rows(1, 16)).logits.shape == (1, 3)
    assert capfd.readouterr() == ("", ""), "and it says nothing about it"
    nodes = {}
    for name in ("stock", "ours"):
        options = ort.SessionOptions()
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        if name == "stock":
            ort.InferenceSession(str(folder / "model.onnx"), options)
        else:
            assert ORTModelForSequenceClassification.from_pretrained(folder, session_options=options).session
        graph = onnx.load(tmp_path / f"{name}.onnx", load_external_data=False).graph
        nodes[name] = [node.op_type for node in graph.node]
    assert "SkipLayerNormalization" in nodes["stock"]
    assert not {"SkipLayerNormalization", "EmbedLayerNormalization"} & set(nodes["ours"])


def test_stats_tell_runs_rows_and_waste(exported):
    model = ORTModelForSequenceClassification.from_pretrained(exported("text-classification").folder)
    model(**rows(3, 4))
    model(**rows(2, 16))
    long, short = model.stats
    assert (long.sizes["sequence_length"], long.runs, long.rows, long.waste) == (16, 1, 2, 0.0)
    assert (short.sizes["sequence_length"], short.runs, short.rows) == (8, 2, 3)
    assert short.waste == pytest.approx(1 - 12 / 32)
    assert len(model.ladder) == 2
    assert model.contract.sequence_length == 16


# Providers and options


def test_dynamic_graphs_have_one_session_on_the_cpu_and_one_a_rung_elsewhere(dynamic):
    """Elsewhere the session itself is told the sizes. Azure's provider stands for any other than the CPU's."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    shapes = {"batch_size": 2, "sequence_length": [8, 4]}
    load = ORTModelForFeatureExtraction.from_pretrained
    here = load(dynamic.folder, shapes=shapes, session_options=options)
    there = load(dynamic.folder, shapes=shapes, session_options=options, providers=[AZURE, CPU])
    assert here.runtime.session(0) is here.runtime.session(1)
    assert here.runtime.session(0).get_inputs()[0].shape == ["batch_size", "sequence_length"]
    assert [there.runtime.session(i).get_inputs()[0].shape for i in (0, 1)] == [[2, 8], [2, 4]]
    assert (there.provider, there.providers, there.device) == (AZURE, [AZURE, CPU], torch.device("cpu"))
    for length in (3, 8):
        assert_same(there(**rows(3, length)).to_tuple(), here(**rows(3, length)).to_tuple())
    assert here.session.get_session_options().intra_op_num_threads == 1
    assert there.session.get_session_options().intra_op_num_threads == 1


@pytest.mark.parametrize("options", [{"arena_extend_strategy": "kSameAsRequested"}, None])
def test_provider_options(exported, options):
    load = ORTModelForSequenceClassification.from_pretrained
    folder = exported("text-classification").folder
    for given in (options, [options or {}]):
        model = load(folder, provider=CPU, provider_options=given)
        assert model(**rows(1, 3)).logits.shape == (1, 3)
        assert (list(model.provider_options), model.provider_option) == ([CPU], {})
    assert load(folder, providers=[AZURE, CPU], provider_options=options).provider == AZURE
    with pytest.raises(ValueError, match=r"provider_options has 1 mappings for 2 providers \(Azure"):
        load(folder, providers=[AZURE, CPU], provider_options=[{}])


def test_providers_that_are_not_there(exported, model):
    folder = exported("text-classification").folder
    missing = "This onnxruntime has no CUDAExecutionProvider. It has: AzureExecutionProvider, CPUExecutionProvider."
    for call in (
        lambda: ORTModelForSequenceClassification.from_pretrained(folder, provider="CUDAExecutionProvider"),
        lambda: ORTModelForSequenceClassification.from_pretrained(folder, providers=["CUDAExecutionProvider", CPU]),
        lambda: model.to("cuda"),
        lambda: model.to(torch.device("cuda", 1)),
        lambda: model.to(device=0),
    ):
        with pytest.raises(ValueError, match=missing):
            call()
    for device in ("mps", "meta"):
        with pytest.raises(ValueError, match=f"No provider is known for the device {device}. Load the model with"):
            model.to(device)
    with pytest.raises(ValueError, match="There is no device 'foo': Expected one of cpu, cuda"):
        model.to("foo")
    assert model(**rows(1, 3)).logits.shape == (1, 3), "and stays where it was"


def test_devices_and_dtypes(exported, model):
    for same in (model.to("cpu"), model.to(torch.float16), model.to(device=None), model.to(-1), model.eval()):
        assert same is model
    assert model.to("cpu", torch.float16, non_blocking=True).device == torch.device("cpu")
    assert model.dtype == torch.float32
    with pytest.raises(AttributeError):
        model.device = "cuda"
    elsewhere = ORTModelForSequenceClassification.from_pretrained(model.path, providers=[AZURE, CPU])
    assert elsewhere.runtime.on(CPU, {}).pool.providers == [CPU]


def test_io_binding_is_accepted(exported):
    folder = exported("text-classification").folder
    model = ORTModelForSequenceClassification.from_pretrained(folder, use_io_binding=True)
    assert model.use_io_binding is True
    assert model(**rows(1, 3)).logits.shape == (1, 3)
    model.use_io_binding = False
    assert model.use_io_binding is False
    with pytest.raises(TypeError, match="must be True or False, got 1"):
        model.use_io_binding = 1


# Threads, copies and processes


def test_threads_share_a_model(model):
    alone = {length: model.run(rows(3, length)) for length in range(1, 17)}
    fresh = ORTModelForSequenceClassification.from_pretrained(model.home)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda length: (length, fresh.run(rows(3, length))), list(alone) * 4))
    for length, answer in answers:
        assert_same(answer, alone[length], tolerance=0.0)
    assert sum(stats.rows for stats in fresh.stats) == 3 * 4 * 16


def test_copies_open_sessions_of_their_own(exported):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    folder = exported("text-classification").folder
    model = ORTModelForSequenceClassification.from_pretrained(folder, session_options=options)
    before = model(**rows(3, 5))
    assert copy.copy(model).session is model.session
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert twin.session is not model.session
        assert twin.session.get_session_options().intra_op_num_threads == 1
        assert (twin.ladder, twin.home, twin.fixed_shape_config) == (model.ladder, model.home, model.fixed_shape_config)
        assert [stats.runs for stats in twin.stats] == [0, 0]
        assert_same(twin(**rows(3, 5)).to_tuple(), before.to_tuple(), tolerance=0.0)


@pytest.mark.parametrize("most", [1, 2])
def test_sessions_that_were_not_used_for_longest_are_closed(exported, most):
    folder = exported("text-classification").folder
    alone = {
        length: ORTModelForSequenceClassification.from_pretrained(folder).run(rows(1, length)) for length in (5, 9)
    }
    model = ORTModelForSequenceClassification.from_pretrained(folder, max_open=most)
    first = weakref.ref(model.runtime.session(0))
    for length in (5, 9, 5, 5):
        assert_same(model.run(rows(1, length)), alone[length], tolerance=0.0)
        assert len(model.runtime.pool._open) <= most
    assert (first() is None) == (most == 1)
    assert pickle.loads(pickle.dumps(model)).runtime.pool.max_open == most
    assert model.runtime.pool.on(CPU, {}).max_open == most


def test_the_least_recently_used_session_is_closed_first(exported, dynamic):
    paths = [exported("text-classification").folder / name for name in ("model.onnx", "model_2x8.onnx")]
    paths.append(dynamic.folder / "model.onnx")
    pool = SessionPool(max_open=2)
    first, second = (weakref.ref(pool.get(path, read_contract(path))) for path in paths[:2])
    pool.get(paths[0], read_contract(paths[0]))
    pool.get(paths[2], read_contract(paths[2]))
    assert (first() is not None, second()) == (True, None)


def test_a_session_that_runs_is_closed_when_it_is_done(exported):
    folder = exported("text-classification").folder
    alone = {
        length: ORTModelForSequenceClassification.from_pretrained(folder).run(rows(3, length)) for length in (5, 9)
    }
    model = ORTModelForSequenceClassification.from_pretrained(folder, max_open=1)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda length: (length, model.run(rows(3, length))), [5, 9] * 20))
    for length, answer in answers:
        assert_same(answer, alone[length], tolerance=0.0)
    assert len(model.runtime.pool._open) == 1


def test_no_session_at_all_is_an_error(exported):
    with pytest.raises(ValueError, match="max_open=0 leaves no session to run: give 1 or more, or None"):
        ORTModelForSequenceClassification.from_pretrained(exported("text-classification").folder, max_open=0)


def test_a_copy_in_another_process(model):
    before = model.run(rows(3, 5))
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        assert_same(pool.submit(model.run, rows(3, 5)).result(), before, tolerance=0.0)


def test_a_copy_whose_files_are_gone_says_so(exported, tmp_path):
    model = ORTModelForSequenceClassification.from_pretrained(exported("text-classification").folder)
    model.save_pretrained(tmp_path)
    model = ORTModelForSequenceClassification.from_pretrained(tmp_path)
    twin = pickle.loads(pickle.dumps(model))
    (tmp_path / "model.onnx").unlink()
    with pytest.raises(GraphNotFoundError, match=f"There is no file {tmp_path}/model.onnx"):
        twin(**rows(1, 9))
    assert twin(**rows(1, 5)).logits.shape == (1, 3), "the other rung is there"
