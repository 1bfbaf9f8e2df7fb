"""The command line: a process of its own, as users have it, or ``main()`` in this one where that is the same."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optimum_fixedshape.cli.app import main

SCRIPTS = Path(sys.executable).parent


@dataclass(frozen=True)
class Done:
    """What a command left: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


def started(*command: Any, **options: Any) -> subprocess.Popen[str]:
    """Returns a running ``optimum-fixedshape`` or ``optimum-cli``, the way its script starts it."""
    name, *rest = map(str, command)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen(
        [str(SCRIPTS / name), *rest], text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, **{**pipes, **options}
    )


def run_script(*command: Any, stdin: str = "") -> Done:
    """Runs a script to its end."""
    process = started(*command)
    out, err = process.communicate(stdin, timeout=300)
    return Done(process.returncode, out, err)


def run_here(capfd: Any, *args: Any) -> Done:
    """Runs a command of ``optimum-fixedshape`` in this process."""
    capfd.readouterr()
    code = 0
    try:
        main([str(arg) for arg in args])
    except SystemExit as end:
        code = int(end.code or 0)
    return Done(code, *capfd.readouterr())
