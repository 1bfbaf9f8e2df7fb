"""A process that may crash: it runs one function on file after file, and tells what became of each.

``python -m tests.sandbox`` is the process itself.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import selectors
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path
from typing import Any, NamedTuple, Self

MIB = 2**20


class Outcome(NamedTuple):
    """What became of one file."""

    kind: str  # "done", "refused" in our own way, "failed" in another, "crashed" or "hung"
    said: str = ""
    seconds: float = 0.0
    grown: int = 0  # bytes of memory beyond what the process had before


class Sandbox:
    """Runs functions called ``module:function`` on files, in a process that is started again after a crash.

    Args:
        patience: Seconds after which a file counts as hung.
        memory: Most bytes of address space.
    """

    def __init__(self, *, patience: float = 30, memory: int = 16 * 1024 * MIB) -> None:
        self._patience, self._memory = patience, memory
        self._process: subprocess.Popen[str] | None = None

    def run(self, function: str, *arguments: Any) -> Outcome:
        """Returns what became of ``function(*arguments)``; the arguments are what JSON holds."""
        process = self._process or self._started()
        assert process.stdin
        assert process.stdout
        process.stdin.write(json.dumps([function, *arguments]) + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            if not selector.select(self._patience):
                self.close()
                return Outcome("hung", f"{self._patience} s")
        line = process.stdout.readline()
        if not line:
            code = process.wait()
            self.close()
            return Outcome("crashed", f"exit status {code}")
        return Outcome(*json.loads(line))

    def close(self) -> None:
        """Ends the process."""
        if self._process:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> subprocess.Popen[str]:
        self._process = subprocess.Popen(
            [sys.executable, "-m", __spec__.name, str(self._memory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=Path(__file__).parents[1],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return self._process


def _outcome(function: str, arguments: list[Any]) -> Outcome:
    from optimum_fixedshape.errors import FixedShapeError

    module, _, name = function.partition(":")
    before, start = _peak(), time.perf_counter()
    try:
        called = getattr(importlib.import_module(module), name)
        called(*arguments)
        kind, said = "done", ""
    except FixedShapeError as error:
        kind, said = "refused", f"{type(error).__name__}: {error}"
    except BaseException:
        kind, said = "failed", traceback.format_exc()
    return Outcome(kind, said[-3000:], time.perf_counter() - start, _peak() - before)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    memory = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for line in sys.stdin:
        function, *arguments = json.loads(line)
        print(json.dumps(_outcome(function, arguments)), file=answers, flush=True)


if __name__ == "__main__":
    main()
