"""`bench_model`: how long a model takes, against the bare session and against PyTorch, side by side in one run."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

from .caches import FOLLOWING, MERGED, kind_of
from .config import Names
from .contract import BATCHES
from .errors import ShapeMismatchError, UnsupportedTaskError
from .feeds import generate_inputs
from .fitting import Arrays, fit, prepare
from .hub import hub_among
from .machine import describe_machine
from .repo import Roles, Sizes, peek_graphs
from .sessions import CPU
from .tasks import Task, find_task, task_of_architectures

if TYPE_CHECKING:
    from .models.base import FixedShapeMixin

_OURS, _BARE, _ORIGINAL = "ours", "bare session", "PyTorch"
_SETTLED = 0.01  # seconds after which the threads of PyTorch sleep: while they spin, they keep the cores from the next


@dataclass(frozen=True)
class BenchLine:
    """What one call takes: medians, in milliseconds.

    Attributes:
        graph: The file of the rung.
        sizes: The rung's shape; where it is dynamic, that of the inputs.
        rows: Rows of the call.
        waste: Share of the computed rows that are there to fill the batch, 0 to 1.
        ours: The model of this package.
        bare: The same session, called with arrays of the rung's exact shape and nothing of this package.
        original: The PyTorch model on the same rows, none of them filled up; None where none was given.
    """

    graph: str
    sizes: Mapping[str, int]
    rows: int
    waste: float
    ours: float
    bare: float
    original: float | None

    @property
    def rows_per_second(self) -> float:
        """Real rows that our model answers in a second."""
        return 1000 * self.rows / self.ours

    @property
    def to_bare(self) -> float:
        """Our time over the bare session's: 1.02 means that this package adds 2 %."""
        return self.ours / self.bare

    @property
    def to_original(self) -> float | None:
        """PyTorch's time over ours: above 1, ours is faster."""
        return None if self.original is None else self.original / self.ours

    def to_dict(self) -> dict[str, Any]:
        """Returns the line as plain types, with what follows from it."""
        derived = {name: getattr(self, name) for name in ("rows_per_second", "to_bare", "to_original")}
        return {**asdict(self), **derived}


@dataclass(frozen=True)
class BenchReport:
    """What was measured, and where.

    Attributes:
        source: The file, folder or repo.
        provider: The execution provider.
        rounds: How often each call was timed.
        machine: Processor, cores, system, and versions of the packages.
        lines: One for each rung with a full batch, and one with a single row where the batch has more.
    """

    source: str
    provider: str
    rounds: int
    machine: Mapping[str, str]
    lines: tuple[BenchLine, ...]

    def to_dict(self) -> dict[str, Any]:
        """Returns the report as plain types, ready for JSON."""
        return {**asdict(self), "lines": [line.to_dict() for line in self.lines]}

    def __str__(self) -> str:
        about = ", ".join(f"{name} {value}" for name, value in self.machine.items())
        lines = [f"{self.source} on {self.provider}; medians of {self.rounds} rounds", about]
        for line in self.lines:
            original = "" if line.original is None else f", PyTorch {line.original:.2f} ms ({line.to_original:.2f} x)"
            lines.append(
                f"{line.graph} {dict(line.sizes)}, {line.rows} rows: {line.ours:.2f} ms, bare session {line.bare:.2f} "
                f"ms ({line.to_bare:.3f} x){original}; {line.rows_per_second:.1f} rows/s, waste {line.waste:.0%}"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class _Case:
    """One call, and who makes it."""

    graph: str
    sizes: Mapping[str, int]
    rows: int
    waste: float
    calls: Mapping[str, Callable[[], Any]]


def bench_model(
    model: str | Path,
    provider: str = CPU,
    *,
    original: str | Path | Any = None,
    provider_options: Mapping[str, Any] | None = None,
    rounds: int = 20,
    shapes: Sizes | None = None,
    roles: Roles | None = None,
    input_names: Names | None = None,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    **hub_options: Any,
) -> BenchReport:
    """Returns how long each rung of a model takes, against the bare session and, where it is given, against PyTorch.

    All of them take turns, call by call, so that whatever else the machine does slows all down alike. Inputs are those
    of `generate_inputs`: read the ratios, not the times.

    Args:
        model: An ``.onnx`` file, a folder or a Hub repo id.
        provider: The execution provider.
        original: The PyTorch model, or the folder or Hub repo to load it from.
        provider_options: Options of the provider.
        rounds: How often each call is timed.
        shapes: Sizes to pin dynamic axes to.
        roles: Roles of axes, where the guessed ones are wrong.
        input_names: The graph's names of inputs to standard ones.
        seed: Of the inputs.
        progress: Called with 1 after each round.
        **hub_options: ``revision=``, ``subfolder=``, ``token=``, ``cache_dir=``, ``local_files_only=``, ``file_name=``
            and ``variant=``.

    Raises:
        GraphNotFoundError: There is no graph.
        ShapeMismatchError: `rounds` is no number of rounds, or an argument contradicts the graph.
        UnsupportedTaskError: The model writes: its steps depend on what it has written. Or nothing tells the class of
            the original.
    """
    if rounds < 1:
        raise ShapeMismatchError(f"rounds must be 1 or more, got {rounds}.")
    pins: dict[str, Any] = {"shapes": shapes, "roles": roles, "input_names": input_names}
    ours = _loaded(model, provider, provider_options=provider_options, **pins, **hub_options)
    torch_model = None if original is None else _original_of(original, ours)
    cases = list(_cases(ours, torch_model, seed))
    times = _timed(cases, rounds, progress)
    lines = []
    for index, case in enumerate(cases):
        took = {who: 1000 * median(times[index, who]) for who in case.calls}
        lines.append(
            BenchLine(*(case.graph, case.sizes, case.rows, case.waste), took[_OURS], took[_BARE], took.get(_ORIGINAL))
        )
    return BenchReport(str(model), provider, rounds, describe_machine(), tuple(lines))


def _loaded(model: str | Path, provider: str, **options: Any) -> FixedShapeMixin:
    row = task_to_time(model, options)
    from .models import classes

    model_class = getattr(classes, row.model) if row else classes.ORTModelForCustomTasks
    return model_class.from_pretrained(model, provider=provider, **options)


def task_to_time(model: str | Path, options: Mapping[str, Any]) -> Task | None:
    """Returns the task that is saved with a model's graphs, found with the options of `bench_model`; or None.

    Raises:
        UnsupportedTaskError: The model writes: its steps depend on what it has written.
    """
    contracts, saved = peek_graphs(model, file_name=options.get("file_name"), hub=hub_among(options))
    row = find_task(saved.task) if saved and saved.task else None
    if (row and row.writes) or any(kind_of(contract) in (FOLLOWING, MERGED) for contract in contracts.values()):
        raise UnsupportedTaskError(
            f"{model} is a model that writes, and what a step takes depends on what is written before it. "
            "Time generate() on your own prompts.",
            task=row.name if row else None,
        )
    return row


def _original_of(original: Any, ours: FixedShapeMixin) -> Any:
    if not isinstance(original, (str, Path)):
        return original.eval()
    import torch
    import transformers

    row = ours.task or _task_of_original(original)
    return getattr(transformers, row.auto).from_pretrained(original, dtype=torch.float32).eval()


def _task_of_original(original: str | Path) -> Task:
    import transformers

    config = transformers.AutoConfig.from_pretrained(original)
    if row := task_of_architectures(config.architectures or ()):
        return row
    raise UnsupportedTaskError(f"What {original} is for cannot be told by its config.json.", task=None)


def _cases(ours: FixedShapeMixin, original: Any, seed: int) -> Iterator[_Case]:
    """Every rung with a full batch, and with a single row where that goes to the same rung."""
    for index, rung in enumerate(ours.ladder.rungs):
        full = generate_inputs(rung, seed)
        ready, sizes = prepare(full, rung)
        bare = next(fit(ready, rung, ours.runtime.fill)).arrays
        shape = {role: size or sizes[role] for role, size in rung.sizes.items() if size or role in sizes}
        batch = {role: size for role, size in sizes.items() if role in BATCHES}
        for rows in ({}, dict.fromkeys(batch, 1)):
            asked = {**sizes, **rows}
            if rows and (rows == batch or ours.ladder.choose(asked) != index):
                continue
            arrays = _cut(full, ours, rows) if rows else full
            calls: dict[str, Callable[[], Any]] = {
                _OURS: partial(ours, **arrays),
                _BARE: partial(ours.runtime.session(index).run, None, bare),
            }
            if original is not None:
                calls[_ORIGINAL] = _torch_call(original, arrays)
            real = float(np.prod([asked[role] for role in batch])) if batch else 1.0
            waste = 1 - real / float(np.prod(list(batch.values()))) if batch else 0.0
            yield _Case(ours.runtime.graphs[index].name, shape, int(real), waste, calls)


def _cut(arrays: Arrays, ours: FixedShapeMixin, rows: Mapping[str, int]) -> Arrays:
    """The first rows of arrays."""
    cut = {}
    for name, array in arrays.items():
        spec = ours.contract.input(name)
        axis = spec.axis_of(spec.batch_role) if spec.batch_role else None
        cut[name] = array if axis is None else array.take(range(rows[spec.batch_role or ""]), axis)
    return cut


def _torch_call(original: Any, arrays: Arrays) -> Callable[[], Any]:
    import torch

    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}

    def call() -> Any:
        with torch.no_grad():
            return original(**tensors)

    return call


def _timed(
    cases: list[_Case], rounds: int, progress: Callable[[int], None] | None
) -> dict[tuple[int, str], list[float]]:
    """Seconds of each call; the first of each, which allocates, is left out."""
    pause = _SETTLED if any(_ORIGINAL in case.calls for case in cases) else 0.0
    times: dict[tuple[int, str], list[float]] = defaultdict(list)
    for count in range(-1, rounds):
        for index, case in enumerate(cases):
            turns = list(case.calls.items())
            for who, call in turns if count % 2 else reversed(turns):  # nobody is always the one who comes first
                time.sleep(pause)
                start = time.perf_counter()
                call()
                if count >= 0:
                    times[index, who].append(time.perf_counter() - start)
        if progress and count >= 0:
            progress(1)
    return times
