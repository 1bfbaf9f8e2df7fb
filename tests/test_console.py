"""What the command line prints: on a terminal and elsewhere, in any encoding."""

from __future__ import annotations

import io
import logging
import os
import pty
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import onnx
import pytest
from onnx import TensorProto

from optimum_fixedshape.cli import console
from optimum_fixedshape.cli.items import texts_of
from optimum_fixedshape.cli.mistakes import DEBUG
from optimum_fixedshape.errors import InputTooLongError, InvalidInputError

from .onnx_models import build, value
from .shell import run_here, started


@contextmanager
def terminal() -> Iterator[Callable[[], str]]:
    """Makes stdin and stdout a terminal for a while, and gives a function that reads what was written there."""
    ours, theirs = pty.openpty()
    with (
        open(theirs, "w", encoding="utf-8") as out,
        open(theirs, encoding="utf-8", closefd=False) as keys,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stdin", keys)
        yield lambda: os.read(ours, 2**16).decode()
    os.close(ours)


def test_tables_have_lines_on_a_terminal_alone():
    with terminal() as read:
        console.emit_tables(console.table("Sizes", ["name", "size"], [("a", "1")]))
        assert "──" in read()


def test_tables_are_plain_columns_elsewhere(capsys):
    console.emit_tables(console.table("Sizes", ["name", "size"], [("a", "1")]))
    assert capsys.readouterr().out.splitlines() == ["Sizes", "name  size", "a     1"]


def test_json_can_be_printed_in_any_encoding(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    assert console.json_text({"word": "bär"}) == '{"word": "b\\u00e4r"}'
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="utf-8"))
    assert console.json_text({"word": "bär"}) == '{"word": "bär"}'


def test_bytes_are_counted_for_people():
    assert [console.bytes_text(count) for count in (None, 12, 1500, 2 * 10**9)] == ["?", "12 bytes", "1.5 kB", "2.0 GB"]


def test_what_is_logged_is_one_line(capfd):
    with console.readable_stderr():
        logging.getLogger("optimum_fixedshape.export").warning("two\nlines")
    assert capfd.readouterr().err == "warning: two lines\n"


def test_a_run_on_a_terminal_asks_for_files(capfd):
    with terminal():
        done = run_here(capfd, "run", "model")
    assert done.code == 2
    assert "Name files, or write to stdin." in done.err


class Typed(io.StringIO):
    """Somebody who types a line, reads what is answered, and presses Ctrl-C."""

    def __init__(self, text: str, read: Callable[[], str]) -> None:
        super().__init__()
        self.buffer = self.lines(text, read)
        self.seen = ""

    def isatty(self) -> bool:
        return True

    def lines(self, text: str, read: Callable[[], str]) -> Iterator[bytes]:
        yield text.encode()
        self.seen = read()
        raise KeyboardInterrupt


def test_a_text_that_is_typed_is_answered_before_the_next(exported, monkeypatch, capfd):
    typed = Typed("A text.\n", lambda: capfd.readouterr().out)
    monkeypatch.setattr(sys, "stdin", typed)
    assert run_here(capfd, "run", exported("text-classification").folder, "-").code == 130
    assert '"input": "A text."' in typed.seen


@pytest.fixture
def interruptible():
    """Commands can be interrupted, be it that this process cannot, as in the background of a shell."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_a_command_that_waits_for_the_hub_can_be_interrupted(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(120)
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        process = started("optimum-fixedshape", "inspect", "acme/silent")
        connection, _ = silent.accept()
        with connection:
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=120) == ("", "")
    assert process.returncode == 130


def test_the_traceback_of_an_item_is_there_for_who_asks(exported, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(DEBUG, "1")
    (tmp_path / "texts.txt").write_text("word " * 99)
    with pytest.raises(InputTooLongError):
        run_here(capfd, "run", exported("text-classification").folder, tmp_path / "texts.txt")


def test_lines_that_are_no_json_are_named(tmp_path):
    (tmp_path / "texts.jsonl").write_text('"A text."\n{\n')
    texts = texts_of(str(tmp_path / "texts.jsonl"))
    assert next(texts) == "A text."
    with pytest.raises(InvalidInputError, match="Expected JSON, got"):
        next(texts)


def test_tensors_of_no_shape_are_dynamic(tmp_path, capfd):
    model = build(
        [onnx.helper.make_node("Neg", ["x"], ["y"])],
        [value("x", TensorProto.FLOAT, None)],
        [value("y", TensorProto.FLOAT, None)],
    )
    onnx.save(model, tmp_path / "model.onnx")
    done = run_here(capfd, "inspect", tmp_path / "model.onnx", "--json")
    assert '{"tensor": "x", "axis": null, "symbol": null, "role": null}' in done.out


def test_times_without_an_original_have_no_columns_for_it(exported, capfd):
    done = run_here(capfd, "bench", exported("text-classification").folder, "--rounds", 1)
    assert (done.code, "ours ÷ bare" in done.out, "PyTorch" in done.out) == (0, True, False)
