"""``run``: files or stdin through a pipeline, one line of JSON out for each item."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from enum import StrEnum
from itertools import groupby, islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import console
from .mistakes import FAILED, message_of, wants_traceback
from .options import (
    CacheDir,
    FileName,
    LocalFilesOnly,
    Model,
    Provider,
    ProviderOptions,
    Revision,
    Settings,
    Shapes,
    Subfolder,
    Task,
    Token,
    Variant,
    check_provider,
    given,
    read_provider_options,
    read_settings,
    read_shapes,
)

if TYPE_CHECKING:
    from .items import Item

_BATCHES_AT_ONCE = 16
_ITEMS_AT_ONCE = 1024

_AT_EACH_CALL = ("candidate_labels",)
"""Settings that some pipelines want to be told at each call."""


class OnError(StrEnum):
    """What becomes of the items behind one that fails."""

    STOP = "stop"
    SKIP = "skip"


def run(
    model: Model,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(metavar="INPUTS", help="Files or URLs; - or nothing is stdin. See below."),
    ] = None,
    task: Task = None,
    settings: Settings = None,
    shape: Shapes = None,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Where the lines go; by default stdout.")
    ] = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where images and arrays go. By default their sizes are written."),
    ] = None,
    on_error: Annotated[OnError, typer.Option(help="After an item that fails: stop, or skip it.")] = OnError.STOP,
    provider: Provider = "CPUExecutionProvider",
    provider_option: ProviderOptions = None,
    file_name: FileName = None,
    variant: Variant = None,
    subfolder: Subfolder = None,
    revision: Revision = None,
    token: Token = None,
    cache_dir: CacheDir = None,
    local_files_only: LocalFilesOnly = False,
) -> None:
    """Run a pipeline: a line of JSON for each item, {"input": ..., "output": ...}, in the order of the items.

    Each line of a .txt file, of stdin, and for texts of any file is an item. So is each line of JSON of a .jsonl file:
    an object such as {"question": ..., "context": ...} holds an item of several parts, or one item and arguments for
    it. Images, sounds and clips are items themselves.
    """
    if not inputs and sys.stdin.isatty():
        raise typer.BadParameter("Name files, or write to stdin.", param_hint="INPUTS")
    from .items import STDIN, check_files

    sources = inputs or [STDIN]
    check_files(sources, output)
    arguments, shapes = read_settings(settings), read_shapes(shape)
    model_options = given(
        **{"provider": check_provider(provider), "shapes": shapes or None, "file_name": file_name, "variant": variant},
        **{"provider_options": read_provider_options(provider_option) or None, "subfolder": subfolder},
        **{"cache_dir": cache_dir, "local_files_only": local_files_only},
    )
    from optimum_fixedshape.pipelines.factory import pipeline

    hub = given(revision=revision, token=token)
    pipe = pipeline(task, model=model, model_kwargs=model_options, **hub, **arguments)
    if output_dir:
        output_dir.mkdir(parents=True, exist_ok=True)
    known = {**pipe.model.fixed_shape_config.pipeline, **arguments}
    always = {name: known[name] for name in _AT_EACH_CALL if name in known}
    if _run_all(pipe, always, sources, output, output_dir, on_error):
        raise typer.Exit(FAILED)


def _run_all(
    pipe: Any,
    always: Mapping[str, Any],
    inputs: Sequence[str],
    output: Path | None,
    folder: Path | None,
    on_error: OnError,
) -> int:
    """Writes the answers to all items, and returns how many of them failed."""
    from optimum_fixedshape.tasks import find_task

    from .items import read_items
    from .results import Results

    row = find_task(pipe.fixed_task)
    failures = 0
    with ExitStack() as stack:
        file = stack.enter_context(output.open("w", encoding="utf-8")) if output else None
        results = Results(file, folder)
        advance = stack.enter_context(console.progress("Running", "items"))
        items = read_items(inputs, row)
        while chunk := list(islice(items, _items_at_once(pipe, inputs))):
            for item, answer in answers(pipe, chunk, row, always):
                if isinstance(answer, Exception):
                    failures += 1
                    _complain_of(item, answer)
                    if on_error is OnError.STOP:
                        return failures
                else:
                    results.write(item, answer)
                advance(1)
    return failures


def _items_at_once(pipe: Any, inputs: Sequence[str]) -> int:
    """How many items are read before they run: enough to fill batches, and one where somebody waits for each."""
    if "-" in inputs and sys.stdin.isatty():
        return 1
    rows = pipe.model.contract.batch_size or 1
    return int(min(rows * _BATCHES_AT_ONCE, _ITEMS_AT_ONCE))


def answers(
    pipe: Any, items: Sequence[Item], row: Any, always: Mapping[str, Any] | None = None
) -> Iterator[tuple[Item, Any]]:
    """Yields each item with its answer, or with the error that it failed with.

    Items run together. Where that fails, those without an answer yet run one by one, to tell which of them it was.

    Args:
        pipe: The pipeline.
        items: The items.
        row: Its task.
        always: Arguments of each call, beside those that items bring themselves.
    """
    from .items import call_of

    calls: list[tuple[Item, Any]] = []
    for item in items:
        try:
            value, own = call_of(item, row)
            calls.append((item, (value, {**(always or {}), **own})))
        except Exception as error:
            calls.append((item, error))
    for _, group in groupby(calls, key=lambda each: each[1] if isinstance(each[1], Exception) else each[1][1]):
        yield from _answers_alike(pipe, list(group))


def _answers_alike(pipe: Any, calls: Sequence[tuple[Item, Any]]) -> Iterator[tuple[Item, Any]]:
    """The answers to items that are called with the same arguments."""
    if isinstance(calls[0][1], Exception):
        yield from calls
        return
    done = 0
    try:
        for answer in _called(pipe, [value for _, (value, _) in calls], calls[0][1][1]):
            yield calls[done][0], answer
            done += 1
    except Exception as error:
        if len(calls) == 1:
            yield calls[0][0], error
            return
        for call in calls[done:]:
            yield from _answers_alike(pipe, [call])


def _called(pipe: Any, values: Sequence[Any], arguments: dict[str, Any]) -> Iterable[Any]:
    from torch.utils.data import Dataset

    class Values(Dataset):  # type: ignore[misc]
        """What every pipeline answers item by item: some make one answer of a list that holds a single item."""

        def __len__(self) -> int:
            return len(values)

        def __getitem__(self, index: int) -> Any:
            return values[index]

    return pipe(Values(), **arguments)  # type: ignore[no-any-return]


def _complain_of(item: Item, error: Exception) -> None:
    if wants_traceback():
        raise error
    message = message_of(error).removeprefix("Item 0: ")
    kind = "" if type(error).__module__.startswith("optimum_fixedshape") else f"{type(error).__name__}: "
    console.complain(f"{item.where}: {kind}{message}")
