"""One run of the benchmark: where the models are, how long it may take, and what could not be measured."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .models import MODELS, prepare
from .turns import Times, Turn, take_turns
from .workers import ContenderError, Worker

_STARTED_AT_ONCE = 2

Contenders = Mapping[str, tuple[str, Mapping[str, Any]]]


@dataclass
class Run:
    """What all programs share.

    Attributes:
        folder: Where models and logs are.
        rounds: How often each contender has its turn.
        quick: A small model and few contenders, to see that all works.
        texts: How many texts a list has.
        missing: What was not measured, and why.
    """

    folder: Path
    rounds: int
    quick: bool = False
    missing: list[dict[str, str]] = field(default_factory=list)

    @property
    def texts(self) -> int:
        """How many texts a list has."""
        return 16 if self.quick else 128

    def models(self, *names: str) -> list[str]:
        """Returns the models of a table."""
        return ["minimal"] if self.quick else list(names)

    def prepare(self, model: str, *parts: str) -> bool:
        """Makes parts of a model where need be; returns whether all are there."""
        made = True
        for part in parts:
            try:
                prepare(model, [part], self.folder)
            except ContenderError as error:
                self.miss(f"{MODELS[model].title}, {part}", str(error))
                made = False
        return made

    def place(self, model: str) -> str:
        """Returns the folder of a model."""
        return str((self.folder / model).absolute())

    @contextmanager
    def workers(self, title: str, contenders: Contenders) -> Iterator[dict[str, Worker]]:
        """Starts a worker for each contender, and ends them all; those that cannot start are missing.

        Args:
            title: What is measured.
            contenders: By who, the function that loads it and its arguments.
        """
        started: dict[str, Worker] = {}

        def start(who: str) -> None:
            contender, arguments = contenders[who]
            log = self.folder / "logs" / f"{re.sub('[^a-zA-Z0-9]+', '-', f'{title} {who}')}.txt"
            try:
                started[who] = Worker(contender, arguments, log)
            except ContenderError as error:
                self.miss(f"{title}: {who}", str(error))

        try:
            with ThreadPoolExecutor(_STARTED_AT_ONCE) as pool:
                list(pool.map(start, contenders))
            print(f"{title}: {', '.join(started)}", file=sys.stderr, flush=True)
            yield {who: started[who] for who in contenders if who in started}
        finally:
            for worker in started.values():
                worker.close()

    def take_turns(self, title: str, turns: Sequence[Turn], **limits: float) -> Times:
        """Returns the times of all turns; whoever fails is missing."""
        times = take_turns(turns, rounds=self.rounds, **limits)
        for who, why in times.failures.items():
            self.miss(f"{title}: {who}", why)
        return times

    def miss(self, what: str, why: str) -> None:
        """Notes that something was not measured."""
        self.missing.append({"what": what, "why": why})
        print(f"not measured: {what}: {why}", file=sys.stderr, flush=True)
