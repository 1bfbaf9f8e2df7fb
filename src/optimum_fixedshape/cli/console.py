"""What the commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optimum_fixedshape.errors import FixedShapeWarning

if TYPE_CHECKING:
    from rich.table import Table

_BROKEN_PIPE = 141  # what a shell reports of a program that wrote to a pipe which nobody reads any more
_WIDEST = 400  # columns where there is no terminal: nothing is cut


def emit(text: str) -> None:
    """Prints a result at once.

    Raises:
        SystemExit: Nobody reads stdout any more.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        # What is left in the buffer would fail again when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(_BROKEN_PIPE)


def emit_json(value: Any, *, indent: int | None = None) -> None:
    """Prints a value as JSON; see `as_json`."""
    emit(json_text(value, indent=indent))


def json_text(value: Any, *, indent: int | None = None) -> str:
    """Returns a value as JSON that stdout can print."""
    text = json.dumps(as_json(value), indent=indent, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(as_json(value), indent=indent, allow_nan=False)
    return text


def as_json(value: Any) -> Any:
    """Returns a value made of what JSON has: sequences are lists, paths texts, and numbers that are none null."""
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [as_json(each) for each in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (str, bool, int)):
        return value
    return as_json(value.item()) if hasattr(value, "item") else str(value)


def emit_tables(*parts: str | Table) -> None:
    """Prints lines and tables: with colours on a terminal, as plain columns elsewhere."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=_WIDEST)
    with console.capture() as capture:
        for part in parts:
            console.print(part, markup=False)
    emit("\n".join(line.rstrip() for line in capture.get().splitlines()))


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, right: Sequence[str] = ()) -> Table:
    """Returns a table.

    Args:
        title: What stands above it.
        columns: The names of its columns.
        rows: The cells of each row; a tuple is a cell of several lines.
        right: The columns that hold numbers.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(title=Text(printable(title)), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    if not sys.stdout.isatty():
        made.box, made.pad_edge, made.title_style = None, False, ""
    for column in columns:
        made.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        lines = (cell if isinstance(cell, tuple) else (cell,) for cell in row)
        made.add_row(*(Text("\n".join(printable(str(line)) for line in each)) for each in lines))
    return made


def printable(text: str) -> str:
    """Returns a text without what moves a terminal's cursor or changes its colours: names come from files."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def sizes_text(sizes: Mapping[str, Any]) -> str:
    """Returns sizes by role as one cell, such as ``"batch_size 8, sequence_length 64"``."""
    return ", ".join(f"{role} {'any' if size is None else size}" for role, size in sizes.items()) or "-"


def bytes_text(count: int | None) -> str:
    """Returns a number of bytes for people, such as ``"90.3 MB"``; ``"?"`` where it is not known."""
    if count is None:
        return "?"
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def complain(message: str, kind: str = "error") -> None:
    """Prints one line to stderr, which begins with what kind of message it is."""
    print(f"{kind}: {' '.join(message.split())}", file=sys.stderr, flush=True)  # noqa: T201 - this is the console


@contextmanager
def progress(what: str, unit: str, total: int | None = None) -> Iterator[Callable[[int], None]]:
    """Yields a function that counts things that are done; on a terminal, stderr shows how many.

    Args:
        what: What goes on.
        unit: What is counted.
        total: How many there will be, where that is known.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    counted = TextColumn("{task.completed:g}" + (" of {task.total:g} " if total else " ") + unit)
    columns = [TextColumn("{task.description}"), BarColumn(), counted, TimeElapsedColumn()]
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        line = bar.add_task(what, total=total)
        yield lambda done: bar.advance(line, done)


def shows_progress() -> bool:
    """Whether anybody sees a progress bar."""
    return sys.stderr.isatty()


@contextmanager
def readable_stderr() -> Iterator[None]:
    """Keeps stderr to one line a message for a while: this package's own warnings, and of others only errors."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Line())
    logger = logging.getLogger("optimum_fixedshape")
    logger.addHandler(handler)
    quiet = {name: value for name, value in _quiet().items() if name not in os.environ}
    os.environ.update(quiet)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", FixedShapeWarning)
            warnings.showwarning = _show_warning
            yield
    finally:
        logger.removeHandler(handler)
        for name in quiet:
            os.environ.pop(name, None)


def _quiet() -> dict[str, str]:
    """What keeps other libraries quiet: they read it when they are imported, which no command has done yet."""
    bars = {} if shows_progress() else {"HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    return {"TRANSFORMERS_VERBOSITY": "error", **bars}


class _Line(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    complain(str(message), "warning")
