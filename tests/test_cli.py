"""The command line: what it prints where, its exit codes, and `inspect`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import transformers
import typer
from onnx import TensorProto, helper

from optimum_fixedshape.cli.commands import NAME, app
from optimum_fixedshape.cli.console import as_json
from optimum_fixedshape.cli.mistakes import DEBUG, is_mistake
from optimum_fixedshape.cli.options import read_names, read_settings, read_shapes
from optimum_fixedshape.errors import InvalidModelError

from . import stock
from .hub import LocalHub
from .shell import run_here, run_script, started

HEAVY = {"torch", "transformers", "optimum", "onnxruntime", "onnx", "numpy", "huggingface_hub", "typer", "pydantic"}
COMMANDS = ["inspect", "export", "pin", "check", "bench", "run", "init"]


@pytest.fixture(scope="module")
def folder(exported):
    return exported("text-classification").folder


def graph(path: Path, name: str = "x") -> Path:
    """A graph of one addition, whose input has any name."""
    tensors = [helper.make_tensor_value_info(each, TensorProto.FLOAT, [2, 3]) for each in (name, "y")]
    made = helper.make_graph([helper.make_node("Add", [name, name], ["y"])], "g", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(made), path)
    return path


# inspect


def test_inspect_shows_each_rung_and_each_tensor(folder, capfd):
    done = run_here(capfd, "inspect", folder)
    assert (done.code, done.err) == (0, "")
    for text in ("batch_size 2, sequence_length 16", "model_2x8.onnx", "input_ids", "int64", "logits", "standard name"):
        assert text in done.out
    assert "Task, as saved with the graphs: text-classification" in done.out
    assert "\x1b" not in done.out


def test_inspect_as_json_is_one_object_a_path(folder, capfd):
    done = run_here(capfd, "inspect", folder, folder / "model_2x8.onnx", "--json")
    whole, one = map(json.loads, done.out.splitlines())
    assert [each["rungs"] for each in whole["graphs"]] == [
        [{"batch_size": 2, "sequence_length": 16}],
        [{"batch_size": 2, "sequence_length": 8}],
    ]
    assert whole["graphs"][0]["weights"] == {"model.onnx_data": (folder / "model.onnx_data").stat().st_size}
    assert whole["graphs"][0]["dynamic"] == []
    assert whole["tasks"][0]["task"] == "text-classification"
    assert one["graphs"][0]["inputs"][0]["axes"][1]["role"] == "sequence_length"


def test_inspect_with_options_says_the_same_as_without(folder, capfd):
    plain = run_here(capfd, "inspect", folder, "--json")
    assert run_here(capfd, "inspect", "--json", "--subfolder", "", folder).out == plain.out


def test_inspect_tells_what_is_dynamic(capfd):
    done = run_here(capfd, "inspect", stock.graphs("whisper"), "--json")
    graphs = {each["name"]: each for each in json.loads(done.out)["graphs"]}
    assert graphs.keys() == {"encoder_model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx"}
    axis = {"tensor": "input_features", "axis": 0, "symbol": "batch_size", "role": "batch_size"}
    assert graphs["encoder_model.onnx"]["dynamic"][0] == axis
    assert "batch_size any, feature_size 80" in run_here(capfd, "inspect", stock.graphs("whisper")).out


def test_inspect_needs_no_choice_among_the_graphs_of_a_folder(tmp_path, capfd):
    for name in ("one.onnx", "two.onnx"):
        graph(tmp_path / name)
    found = json.loads(run_here(capfd, "inspect", tmp_path, "--json").out)
    assert [each["name"] for each in found["graphs"]] == ["one.onnx", "two.onnx"]


def test_inspect_goes_on_after_what_it_cannot_read(folder, tmp_path, capfd):
    (tmp_path / "bad.onnx").write_bytes(b"no graph at all")
    done = run_here(capfd, "inspect", folder, tmp_path / "bad.onnx", graph(tmp_path / "good.onnx"), "--json")
    assert [json.loads(line)["source"] for line in done.out.splitlines()] == [str(folder), str(tmp_path / "good.onnx")]
    assert done.err.startswith(f"error: {tmp_path / 'bad.onnx'} is not a valid ONNX model")
    assert (len(done.err.splitlines()), done.code) == (1, 1)


def test_inspect_of_a_repo_reads_headers_alone(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "my-org" / "bert-fixed")
    with LocalHub(tmp_path) as hub:
        out = hub.run("from optimum_fixedshape.cli.app import main; main(['inspect', 'my-org/bert-fixed', '--json'])")
        assert hub.sent("onnx_data") == 0
    assert [each["name"] for each in json.loads(out)["graphs"]] == ["model.onnx", "model_2x8.onnx"]


def test_names_from_a_file_cannot_colour_the_terminal(tmp_path, capfd):
    done = run_here(capfd, "inspect", graph(tmp_path / "model.onnx", "\x1b[31m[red]\n"))
    assert "\\x1b[31m[red]\\x0a" in done.out
    assert "\x1b" not in done.out


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_inspect_imports_nothing_heavy(folder, as_json):
    code = (
        "import sys; from optimum_fixedshape.cli.app import main; main(sys.argv[1:]); "
        f"print(*({HEAVY} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "inspect", str(folder), *as_json], capture_output=True, text=True, check=True
    )
    assert done.stdout
    assert done.stderr.strip() == ""


# mistakes and exit codes


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_help_with_examples(command, capfd):
    done = run_here(capfd, command, "--help")
    assert done.code == 0
    assert "Examples:" in done.out
    assert f"{NAME} {command}" in done.out


def test_the_help_tells_the_commands_and_the_exit_codes(capfd):
    done = run_here(capfd, "--help")
    assert all(command in done.out for command in (*COMMANDS, "Exit codes"))
    assert [command.callback.__name__ for command in app.registered_commands] == COMMANDS


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["inspect", "nowhere/at/all.onnx"], "nowhere/at/all.onnx"),
        (["inspect", __file__], "test_cli.py"),
        (["inspect", "{empty}"], "no graph called model.onnx"),
        (["run", "{folder}", "{empty}"], "is a folder. Name its files"),
        (["run", "{folder}", "{text}", "--output", "{text}"], "its answers need a file of their own"),
        (["run", "{folder}", "{text}", "--set", "overflow=cut"], "overflow must be 'error', 'truncate' or 'window'"),
        (["run", "{folder}", "nothing.txt"], "There is no file nothing.txt"),
        (["run", "{folder}", "{text}", "--task", "text-clasification"], "text-clasification"),
        (["run", "{folder}", "{text}", "--shape", "sequence_length=12"], "sequence_length is baked into the graph"),
        (["export", "{empty}", "{empty}/out"], ""),
        (["bench", "{empty}"], "no graph called model.onnx"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_3(args, message, folder, tmp_path, capfd):
    places = {"folder": folder, "empty": tmp_path / "empty", "text": tmp_path / "texts.txt"}
    places["empty"].mkdir()
    places["text"].write_text("A text.\n")
    done = run_here(capfd, *(arg.format(**places) for arg in args))
    assert (done.code, done.out) == (3, "")
    assert done.err.startswith("error: ")
    assert len(done.err.splitlines()) == 1
    assert message.format(**places) in done.err
    assert places["text"].read_text() == "A text.\n"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["explode"], "explode"),
        (["run", "model", "--shape", "batch_size"], "KEY=SIZES"),
        (["run", "model", "{text}", "--provider", "NoProvider"], "CPUExecutionProvider"),
        (["export", "model", "out", "--shape", "batch_size=0"], "--shape: batch_size=0: sizes are numbers"),
        (["pin", "model", "out", "--shape", "batch_size=1", "--shape", "batch_size=2"], "batch_size has 1 and 2"),
        (["run", "model", "{text}", "--set", "device=cuda"], "device: this is said by the command's own arguments"),
        (["export", "model", "out", "--set", "top_k=1"], "--with-inference"),
        (["bench", "model", "--rounds", "0"], "--rounds"),
    ],
)
def test_wrong_usage_is_exit_code_2(args, message, tmp_path, capfd):
    text = tmp_path / "texts.txt"
    text.write_text("A text.\n")
    done = run_here(capfd, *(arg.format(text=text) for arg in args))
    assert (done.code, done.out) == (2, "")
    assert message in " ".join(done.err.replace("│", " ").split())


def test_the_traceback_of_a_mistake_is_there_for_who_asks(monkeypatch, capfd):
    monkeypatch.setenv(DEBUG, "1")
    with pytest.raises(InvalidModelError, match=r"test_cli\.py"):
        run_here(capfd, "inspect", __file__)


def test_only_what_tells_the_user_something_is_a_mistake(tmp_path):
    def raised(call):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - of whom, is what is asked
            call()
        return caught.value

    (tmp_path / "config.json").write_text("{}")
    assert is_mistake(raised(lambda: transformers.AutoConfig.from_pretrained(tmp_path)))
    assert not is_mistake(raised(lambda: np.zeros(3).reshape(2, 2)))
    assert not is_mistake(ZeroDivisionError())


def test_output_that_nobody_reads_ends_the_command_quietly(folder):
    read, write = os.pipe()
    os.close(read)
    process = started(NAME, "inspect", *[folder] * 3, "--json", stdout=write)
    os.close(write)
    assert (process.communicate(timeout=60)[1], process.returncode) == ("", 141)


def test_optimum_finds_the_commands(folder):
    shown = run_script("optimum-cli", "fixed-shape", "--help")
    assert (shown.code, shown.err) == (0, "")
    assert "Usage: optimum-cli fixed-shape" in shown.out
    done = run_script("optimum-cli", "fixed-shape", "inspect", folder, "--json")
    assert (done.code, json.loads(done.out)["source"]) == (0, str(folder))
    assert run_script("optimum-cli", "fixed-shape", "inspect", __file__).code == 3


def test_the_folder_of_plug_ins_belongs_to_everybody():
    source = Path(__file__).parents[1] / "src" / "optimum"
    assert [path.name for path in source.rglob("*.py")] == ["register_fixedshape.py"]


def test_the_version_is_that_of_the_package(capfd):
    from optimum_fixedshape import __version__

    assert run_here(capfd, "--version").out == f"{NAME} {__version__}\n"


# what options mean


def test_shapes_are_sizes_by_key():
    assert read_shapes(["batch_size=8", "sequence_length=16,64"]) == {"batch_size": 8, "sequence_length": [16, 64]}
    for wrong in ("batch_size", "batch_size=", "batch_size=-1", "batch_size=2,", "batch_size=x"):
        with pytest.raises(typer.BadParameter):
            read_shapes([wrong])


def test_settings_are_json_or_text():
    given = ["top_k=3", "overflow=window", 'candidate_labels=["a", "b"]', "flag=true", "text=a=b"]
    expected = {"top_k": 3, "overflow": "window", "candidate_labels": ["a", "b"], "flag": True, "text": "a=b"}
    assert read_settings(given) == expected


def test_input_names_may_hold_any_character_of_a_graph():
    assert read_names(["gpu_0/data_0=pixel_values", "a=b=input_ids"]) == {
        "gpu_0/data_0": "pixel_values",
        "a=b": "input_ids",
    }


def test_json_has_no_numbers_that_are_none():
    assert as_json({"a": (float("nan"), np.float32(0.5)), "b": Path("x")}) == {"a": [None, 0.5], "b": "x"}
