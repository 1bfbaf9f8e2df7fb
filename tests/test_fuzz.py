"""Real graphs, damaged: everything that reads, pins or checks one refuses it in its own way, or does its work.

It all runs in a process of its own, which may crash or hang without taking the suite along. `derandomize` makes every
run the same one; ``make fuzz`` looks further.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from . import stock
from .fuzzing import MUTATIONS, mutated
from .sandbox import MIB, Sandbox

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
SHAPES = {
    "ours": {"batch_size": 2},
    "dynamic": {"batch_size": 1, "sequence_length": 8},
    "decoder": {"batch_size": 1, "context_length": 8, "prefill_length": 4},
    "merged": {"batch_size": 1, "context_length": 8, "prefill_length": 4},
    "light": {},
}
READERS = [
    "optimum_fixedshape.graph.reader:read_contract",
    "optimum_fixedshape.graph.outline:read_outline",
    "optimum_fixedshape.graph.tensors:check_tensors",
    "optimum_fixedshape.graph.loading:load_model",
    "optimum_fixedshape:detect_task",
    "optimum_fixedshape:generate_inputs",
]

# Fields more often than bytes: of a file whose bytes are damaged, most is refused at once.
step = st.tuples(st.sampled_from(["field"] * 5 + sorted(MUTATIONS)), st.integers(0, 2**32))
damage = st.tuples(st.sampled_from(sorted(SHAPES)), st.lists(step, min_size=1, max_size=4))


def fuzz(examples):
    checks = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
    return settings(max_examples=examples, deadline=None, derandomize=True, database=None, suppress_health_check=checks)


@pytest.fixture(scope="module")
def seeds(exported, dynamic):
    """The files of real models, by name."""
    return {
        "ours": exported("text-classification").folder / "model.onnx",
        "dynamic": dynamic.folder / "model.onnx",
        "decoder": stock.graphs("llama") / "model.onnx",
        "merged": stock.graphs("t5") / "decoder_model_merged.onnx",
        "light": LIGHT,
    }


@pytest.fixture(scope="module")
def folder(seeds, tmp_path_factory):
    """A folder with the weights that one of the graphs keeps outside."""
    folder = tmp_path_factory.mktemp("damaged")
    shutil.copy(seeds["ours"].with_name("model.onnx_data"), folder)
    return folder


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(patience=60, memory=8192 * MIB) as box:
        yield box


def damaged(name, steps, seeds, folder):
    data = {seed: path.read_bytes() for seed, path in seeds.items()}
    path = folder / "model.onnx"
    path.write_bytes(mutated(data[name], steps, list(data.values())))
    return path


def behaves(sandbox, function, *arguments):
    outcome = sandbox.run(function, *arguments)
    assert outcome.kind in ("done", "refused"), f"{function} {outcome.kind}: {outcome.said}"
    return outcome


@fuzz(60)
@given(damage)
def test_readers_refuse_or_read_what_is_damaged(seeds, folder, sandbox, drawn):
    path = damaged(*drawn, seeds, folder)
    for function in READERS:
        assert behaves(sandbox, function, str(path)).seconds < 5


@fuzz(20)
@given(damage)
def test_damaged_graphs_are_pinned_or_refused(seeds, folder, sandbox, drawn):
    path, output = damaged(*drawn, seeds, folder), folder / "pinned"
    shutil.rmtree(output, ignore_errors=True)
    behaves(sandbox, "optimum_fixedshape:pin_shapes", str(path), str(output), SHAPES[drawn[0]])


@fuzz(15)
@given(damage)
def test_damaged_graphs_are_checked_or_refused(seeds, folder, sandbox, drawn):
    behaves(sandbox, "optimum_fixedshape:check_model", str(damaged(*drawn, seeds, folder)))


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_what_is_not_damaged_is_read_pinned_and_checked(name, seeds, folder, sandbox):
    path, output = damaged(name, [], seeds, folder), folder / "pinned"
    shutil.rmtree(output, ignore_errors=True)
    for function in (*READERS, "optimum_fixedshape:check_model"):
        outcome = sandbox.run(function, str(path))
        assert outcome.kind == "done", outcome.said
    outcome = sandbox.run("optimum_fixedshape:pin_shapes", str(path), str(output), SHAPES[name])
    assert outcome.kind == ("refused" if name == "merged" else "done"), outcome.said  # a decoder without its encoder


def test_memory_does_not_grow_from_file_to_file(seeds, folder, sandbox):
    grown = 0
    for turn in range(60):
        path = damaged(sorted(SHAPES)[turn % len(SHAPES)], [("field", turn % 20)], seeds, folder)
        outcomes = [behaves(sandbox, function, str(path)) for function in READERS]
        grown += sum(outcome.grown for outcome in outcomes) if turn >= 20 else 0
    assert grown < 16 * MIB


def test_the_sandbox_tells_what_became_of_a_function(tmp_path):
    with Sandbox(patience=5, memory=8192 * MIB) as box:
        assert box.run("os:getpid").kind == "done"
        assert box.run("optimum_fixedshape:read_contract", str(tmp_path)).kind == "refused"
        assert box.run("json:loads", "{").kind == "failed"
        assert "JSONDecodeError" in box.run("json:loads", "{").said
        assert box.run("os:_exit", 3) == ("crashed", "exit status 3", 0.0, 0)
        assert box.run("os:abort").said == "exit status -6"
        assert box.run("time:sleep", 60).kind == "hung"
        assert box.run("os:getpid").kind == "done"
