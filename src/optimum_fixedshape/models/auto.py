"""`AutoModelForONNX`: the right class for a graph, by what is saved with it, or by the graph itself."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from optimum_fixedshape.caches import ENCODER, kind_of, place_of
from optimum_fixedshape.config import FixedShapeConfig, Names, joined_names
from optimum_fixedshape.contract import ShapeContract
from optimum_fixedshape.detecting import TaskGuess, TaskGuesses, detect_task
from optimum_fixedshape.errors import GraphNotFoundError, warn
from optimum_fixedshape.graph.reader import read_contract
from optimum_fixedshape.hub import HubOptions, hub_among
from optimum_fixedshape.repo import fetch_model, holds_torch_model
from optimum_fixedshape.roles import INPUT_ROLES
from optimum_fixedshape.tasks import Task, find_task, task_of_architectures, tasks_called

from . import classes
from .loading import config_facts
from .minimal import pipeline_settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """What a model is for.

    Attributes:
        task: The row of the task table, or None where nothing tells.
        names: The graph's names of inputs and outputs to standard ones; beside what is saved with the model.
        detection: The guesses from the graph; None where it needed none.
        is_saved: Whether a task is saved with the graphs, be it this or another.
    """

    task: Task | None
    names: Names = field(default_factory=dict)
    detection: TaskGuesses | None = None
    is_saved: bool = False

    def load(self, source: str | Path, *args: Any, **kwargs: Any) -> Any:
        """Returns the model of `source`.

        Args:
            source: The file, folder or Hub repo id that was identified.
            *args: Arguments of the class's `from_pretrained`.
            **kwargs: Likewise; names of inputs and outputs win over the identity's own.
        """
        told = {**(kwargs.pop("input_names", None) or {}), **(kwargs.pop("output_names", None) or {})}
        model_class = getattr(classes, self.task.model if self.task else "ORTModelForCustomTasks")
        model = model_class.from_pretrained(source, *args, input_names=joined_names(self.names, told), **kwargs)
        model.detection = self.detection
        if self.detection and (settings := pipeline_settings(model.contract, self.task)):
            known = model.fixed_shape_config
            model.fixed_shape_config = replace(known, pipeline={**settings, **known.pipeline})
        if self.task and not self.is_saved:
            model.fixed_shape_config = replace(model.fixed_shape_config, task=self.task.name)
        return model


class AutoModelForONNX:
    """A graph of any task, as the class of this package that it is for. Made by `from_pretrained` alone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Raises the error that transformers' own Auto classes raise.

        Raises:
            OSError: Always.
        """
        raise OSError(
            f"{type(self).__name__} is designed to be instantiated using the "
            f"`{type(self).__name__}.from_pretrained(model_id)` method."
        )

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        config: Any = None,
        *args: Any,
        task: str | None = None,
        input_names: Names | None = None,
        output_names: Names | None = None,
        **kwargs: Any,
    ) -> Any:
        """Returns the model of an ``.onnx`` file, a folder or a Hub repo, of the class that its task has.

        The task is the one saved with the graphs, else that of the configuration's architecture, else the best guess
        from the graph. The guesses, with the evidence of each, are the model's `detection`. A warning says so where
        another task is nearly as likely. A graph that nothing is known of comes back as `ORTModelForCustomTasks`.

        Args:
            model_id: The file, folder or Hub repo id.
            config: The model's configuration, or where to load it from. By default it is beside the graph.
            *args: Passed on to the class's `from_pretrained`; see `LoadingMixin.from_pretrained`.
            task: The task; wins over what is saved and what the graph looks like.
            input_names: The graph's names of inputs to the standard ones, such as ``{"data_0": "pixel_values"}``, which
                win over the guessed ones.
            output_names: The same for outputs.
            **kwargs: Passed on likewise.

        Raises:
            GraphNotFoundError: There is neither a graph nor a PyTorch model, or several graphs to choose from.
            InvalidModelError: The graph is broken.
            ShapeMismatchError: The graph has no input or output of a name that is mapped.
            UnsupportedTaskError: The task is unknown.
        """
        hub, file_name = hub_among(kwargs), kwargs.get("file_name")
        identity = identify_model(model_id, task=task, config=config, file_name=file_name, hub=hub)
        return identity.load(model_id, config, *args, input_names=input_names, output_names=output_names, **kwargs)

    from_model = from_pretrained


def identify_model(
    source: str | Path,
    *,
    task: str | None = None,
    config: Any = None,
    file_name: str | None = None,
    hub: HubOptions | None = None,
) -> Identity:
    """Returns what a model is for, and what stands for its names; of a Hub repo the graphs are downloaded.

    Args:
        source: An ``.onnx`` file, a folder or a Hub repo id.
        task: The task, where the caller knows it.
        config: A configuration to take in place of the one beside the graph, or where to load it from.
        file_name: Which graph, where there are several.
        hub: How the Hub is asked.

    Raises:
        GraphNotFoundError: There is neither a graph nor a PyTorch model, or several graphs to choose from.
        InvalidModelError: A file is broken.
        UnsupportedTaskError: The task is unknown.
    """
    if task is not None:
        find_task(task)  # before anything is downloaded
    hub = hub or HubOptions()
    folder, paths, saved = _fetched(source, file_name, hub)
    facts = _facts_of(folder if config is None else config, hub)
    built = task_of_architectures(facts.get("architectures") or ())
    name = task or (saved.task if saved else None)
    row = find_task(name, model=built.model if built else None) if name else built
    contract = _contract_of(paths)
    is_saved = bool(saved and saved.task)
    if contract is None or (saved and saved.names) or (row and _is_standard(contract, row)):
        return Identity(row, is_saved=is_saved)
    guesses = detect_task(contract, config=facts or None)
    rows = [row] if row and built else tasks_called(name)
    guess = _guess_among(guesses, rows) if name else _best_of(guesses, built)
    found = find_task(name or guess.task, model=guess.model) if guess else row
    return Identity(found, guess.names if guess else {}, guesses, is_saved)


def _guess_among(guesses: TaskGuesses, rows: Sequence[Task]) -> TaskGuess | None:
    """The likeliest guess for one of the rows, or for another task of the same model class."""
    models = {row.model for row in rows}
    return next((guess for guess in guesses.ranked if guess.model in models), None)


def _best_of(guesses: TaskGuesses, built: Task | None) -> TaskGuess | None:
    """The best guess; a warning or a log message says where it is none, or hardly better than another."""
    best = guesses.best
    if best is None and built is None:
        logger.warning(
            "Nothing tells what this graph is for, so that it is an ORTModelForCustomTasks. Pass task= if it is for a "
            "task of transformers."
        )
    if best and guesses.is_ambiguous:
        choices = ", ".join(f"task={name!r}" for name in dict.fromkeys(guess.task for guess in guesses.close))
        warn(
            f"The graph does not tell for certain what it is for. It is taken for {best.task!r}: "
            f"{'; '.join(best.evidence)}. To choose, pass one of {choices}."
        )
    return best


def _fetched(
    source: str | Path, file_name: str | None, hub: HubOptions
) -> tuple[str | Path, list[Path], FixedShapeConfig | None]:
    """What `fetch_model` returns; of a PyTorch model its source alone."""
    try:
        return fetch_model(source, file_name, hub)
    except GraphNotFoundError as error:
        if error.found or file_name or not holds_torch_model(source, hub):
            raise
        return source, [], None


def _facts_of(config: Any, hub: HubOptions) -> dict[str, Any]:
    """What a configuration says, or the ``config.json`` of a folder or repo; nothing where there is none."""
    if not isinstance(config, (str, Path)):
        facts: dict[str, Any] = config.to_dict()
        return facts
    is_here = Path(config).exists()
    if Path(config).is_dir() and not (Path(config) / "config.json").is_file():
        return {}
    try:
        return config_facts(config, **({} if is_here else hub.for_transformers()))
    except (OSError, ValueError):
        return {}


def _contract_of(paths: Sequence[Path]) -> ShapeContract | None:
    """The graph that tells what the model is for: of one that writes, a decoder."""
    contracts = [read_contract(path) for path in paths]
    return next((contract for contract in contracts if kind_of(contract) != ENCODER), next(iter(contracts), None))


def _is_standard(contract: ShapeContract, row: Task) -> bool:
    """Whether the graph takes and gives what models of the task do, under the names that they have."""
    takes = all(name in INPUT_ROLES or place_of(name) or name == "use_cache_branch" for name in contract.input_names)
    return takes and not set(row.outputs).isdisjoint(contract.output_names)
