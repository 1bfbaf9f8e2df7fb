"""Contenders in processes of their own, asked over a pipe: their threads would fight in one.

A contender is a function ``"module:function"`` of this package that loads a model and returns calls by name. A worker
runs it; the parent asks it to time some of the calls, or for what one of them returns.
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
_MOST_CALLS = 100
_READY_SECONDS = 240  # to load, and for compilers to compile
_TURN_SECONDS = 120
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONWARNINGS": "ignore"}

Calls = Mapping[str, Callable[[], Any]]


class ContenderError(RuntimeError):
    """A contender cannot do what it was asked for; the message is its own last word."""


class Worker:
    """A contender in a process of its own.

    Args:
        contender: ``"module:function"``, relative to this package.
        arguments: Keyword arguments of the function, ready for JSON.
        log: Takes what the process prints.

    Raises:
        ContenderError: It cannot be loaded.
    """

    def __init__(self, contender: str, arguments: Mapping[str, Any], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "benchmarks.workers", contender, json.dumps(arguments)]
        with log.open("w", encoding="utf-8") as errors:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        self._answers = selectors.DefaultSelector()
        self._answers.register(self._out, selectors.EVENT_READ)
        try:
            self._answer(_READY_SECONDS)
        except ContenderError:
            self.close()
            raise

    @property
    def _out(self) -> Any:
        return self._process.stdout

    def time(self, calls: Sequence[str], seconds: float) -> dict[str, list[float]]:
        """Returns the seconds of each of some calls, which take turns for about so many seconds, at least once.

        Raises:
            ContenderError: A call fails, or takes too long.
        """
        taken: dict[str, list[float]] = self._ask({"time": list(calls), "seconds": seconds})
        return taken

    def ask(self, call: str) -> Any:
        """Returns what a call returns.

        Raises:
            ContenderError: It fails, or takes too long.
        """
        return self._ask({"call": call})

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        with self._process:  # closes its pipes and waits for it
            self._answers.close()

    def _ask(self, request: Mapping[str, Any]) -> Any:
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]
        except OSError as error:
            raise ContenderError("its process has ended") from error
        return self._answer(_TURN_SECONDS)

    def _answer(self, patience: float) -> Any:
        if not self._answers.select(patience):
            self._process.kill()
            raise ContenderError(f"no answer within {patience} s")
        line = self._out.readline()
        if not line:
            raise ContenderError(f"its process ended with code {self._process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise ContenderError(answer["error"])
        return answer["result"]


def resident() -> float:
    """Returns how many MiB this process has in memory; what it has mapped several times counts once (PSS)."""
    rollup = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return next(int(line.split()[1]) / 1024 for line in rollup.splitlines() if line.startswith("Pss:"))


def work(contender: str, arguments: str) -> None:
    """Loads a contender, and answers requests on stdin with a line of JSON each."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    calls: dict[str, Callable[[], Any]] = {}

    def reply(make: Callable[[], Any]) -> None:
        try:
            answer = {"result": make()}
        except Exception as error:  # whatever it is, the parent reports it and goes on with the others
            answer = {"error": f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error) else ''}"}
            sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
        replies.write(json.dumps(answer) + "\n")
        replies.flush()

    def load() -> None:
        module, _, name = contender.partition(":")
        make = getattr(importlib.import_module(f"benchmarks.{module}"), name)
        calls.update(make(**json.loads(arguments)))

    reply(load)
    for line in sys.stdin:
        request = json.loads(line)
        if "time" in request:
            reply(lambda: _timed({name: calls[name] for name in request["time"]}, request["seconds"]))  # noqa: B023
        else:
            reply(calls[request["call"]])


def _timed(calls: Calls, seconds: float) -> dict[str, list[float]]:
    """The seconds of each call; the first of each, which finds the caches full of others' data, is left out."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    began = time.perf_counter()
    for count in range(_MOST_CALLS + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - start)
        if count and time.perf_counter() - began > seconds:
            break
        if not count and time.perf_counter() - began > 10 * seconds:  # so long a call does not notice the caches
            return taken
    return {name: all_[1:] for name, all_ in taken.items()}


if __name__ == "__main__":
    work(*sys.argv[1:])
