"""From a transformers model to a folder of fixed graphs: one a rung, one file of weights, tokenizer and configs."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers
from tqdm.auto import tqdm

from optimum_fixedshape.config import FixedShapeConfig, made_folder
from optimum_fixedshape.contract import BATCH, SEQUENCE, ShapeLadder
from optimum_fixedshape.errors import InvalidModelError, UnsupportedTaskError
from optimum_fixedshape.fitting import Fill, pad_id_of
from optimum_fixedshape.graph.reader import read_contract
from optimum_fixedshape.graph.weights import save_rungs
from optimum_fixedshape.repo import MAIN_GRAPH, Sizes
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.tasks import Task, find_task, task_of_architectures

from .shapes import CHOICES, Combination, combinations_of
from .torch_export import export_rung

logger = logging.getLogger(__name__)

_WORTH_A_WARNING = 1e-4
_MEASURED_UP_TO = 2048  # tokens: attention takes their square in memory, and nobody may ever run the larger rungs


def export_model(
    model_or_id: Any,
    output: str | Path,
    *,
    task: str | None = None,
    shapes: Sizes | None = None,
    tokenizer: Any = None,
    progress: bool = True,
    **hub_options: Any,
) -> Path:
    """Returns the folder `output`, with the model as graphs whose shapes are baked in.

    The largest graph is ``model.onnx``, which stock optimum loads. Each graph of up to 2048 tokens is compared with the
    original on random rows with padding; the largest difference is saved in ``fixedshape_config.json``.

    Args:
        model_or_id: A PyTorch model of transformers, or the folder or Hub repo to load it from.
        output: The folder to write; created if need be. Graphs of an earlier export are replaced.
        task: transformers' name of the task. By default what the model's class or its config says.
        shapes: Sizes by shape key; a list makes a ladder, two lists one graph for each combination. By default
            8 rows of 16, 32, 64 and 128 tokens.
        tokenizer: Saved beside the graphs. By default the one of `model_or_id`, where that is a folder or repo.
        progress: Show a progress bar.
        **hub_options: Passed on to transformers' `from_pretrained` (``revision=``, ``token=``, ...).

    Raises:
        UnsupportedTaskError: The task is unknown, cannot be told, or is not the model's.
        ShapeMismatchError: A key of `shapes` is unknown, or a size is none that the model has.
        ExportError: PyTorch cannot export the model.
        MissingExtraError: The ``export`` extra is not installed.
        FileExistsError: `output` is a file.
    """
    folder = made_folder(output)
    row = _task_of(model_or_id, task, hub_options)
    model = model_or_id
    if isinstance(model_or_id, (str, Path)):
        model = getattr(transformers, row.auto).from_pretrained(model_or_id, dtype=torch.float32, **hub_options)
        tokenizer = _tokenizer_of(model_or_id, hub_options) if tokenizer is None else tokenizer
    combinations = combinations_of(shapes, row, model.config)
    names = [MAIN_GRAPH, *("model_" + "x".join(map(str, sizes.values())) + ".onnx" for sizes in combinations[1:])]
    bar = tqdm(combinations, desc=f"Exporting {type(model).__name__}", unit="graph", disable=not progress)
    stale = _graphs_in(folder) - set(names)
    with _evaluated(model):
        outputs = _outputs_of(model, row)
        save_rungs(_exported(model, outputs, names, bar), folder=folder)
        difference = {
            name: _difference(model, outputs, folder / name, sizes)
            for name, sizes in zip(names, combinations, strict=True)
            if sizes[SEQUENCE] <= _MEASURED_UP_TO
        }
    FixedShapeConfig(tuple(names), task=row.name, difference=difference).save_pretrained(folder)
    for name in stale:
        (folder / name).unlink(missing_ok=True)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def _task_of(model_or_id: Any, asked: str | None, hub_options: Mapping[str, Any]) -> Task:
    if isinstance(model_or_id, (str, Path)):
        if asked:
            return find_task(asked)
        architectures = transformers.AutoConfig.from_pretrained(model_or_id, **hub_options).architectures or []
    else:
        architectures = [type(model_or_id).__name__]
    told = task_of_architectures(architectures)
    wanted = find_task(asked) if asked else told
    name = ", ".join(architectures) or "a model without architectures"
    if wanted is None:
        raise UnsupportedTaskError(f"The task of {name} cannot be told. Pass task=.", task=None)
    if told is not None and told.auto != wanted.auto:
        raise UnsupportedTaskError(
            f"{name} is a model for {told.name}; for {wanted.name} load it with {wanted.auto}.", task=wanted.name
        )
    return wanted


def _tokenizer_of(model_id: str | Path, hub_options: Mapping[str, Any]) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(model_id, **hub_options)
    except (OSError, ValueError) as error:
        logger.warning("%s has no tokenizer that could be saved with the graphs: %s", model_id, error)
        return None


def _graphs_in(folder: Path) -> set[str]:
    try:
        saved = FixedShapeConfig.from_folder(folder)
    except InvalidModelError:
        return set()
    return set(saved.graphs) if saved else set()


@contextmanager
def _evaluated(model: Any) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _example(model: Any, sizes: Combination, *, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random rows with real padding: row i has i tokens less than the first, but at least one."""
    shape = tuple(sizes.values())
    pad = pad_id_of(model.config)
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(0, model.config.vocab_size, shape, generator=generator)
    ids[ids == pad] = (pad + 1) % model.config.vocab_size
    mask = torch.ones(shape, dtype=torch.long)
    for number, row in enumerate(mask.view(-1, shape[-1])):
        row[max(1, shape[-1] - number) :] = 0
    ids[mask == 0] = pad
    example = {"input_ids": ids, "attention_mask": mask}
    takes_types = "token_type_ids" in inspect.signature(model.forward).parameters
    if takes_types and getattr(model.config, "type_vocab_size", 0) > 1:
        example["token_type_ids"] = (torch.arange(shape[-1]) > shape[-1] // 2).long().expand(shape) * mask
    return {name: tensor.to(model.device) for name, tensor in example.items()}


def _outputs_of(model: Any, row: Task) -> tuple[str, ...]:
    example = _example(model, {BATCH: 1, **({CHOICES: 1} if row.name == "multiple-choice" else {}), SEQUENCE: 4})
    with torch.no_grad():
        output = model(**example, return_dict=True)
    if found := tuple(name for name in row.outputs if output.get(name) is not None):
        return found
    given = f"{type(model).__name__} gives {', '.join(output)}"
    raise UnsupportedTaskError(f"{given}, and {row.name} needs {', '.join(row.outputs)}.", task=row.name)


def _exported(
    model: Any, outputs: Sequence[str], names: Sequence[str], combinations: Iterable[Combination]
) -> Iterator[tuple[str, onnx.ModelProto]]:
    for name, sizes in zip(names, combinations, strict=True):
        yield name, export_rung(model, _example(model, sizes), outputs)


def _difference(model: Any, outputs: Sequence[str], path: Path, sizes: Combination) -> float:
    """The largest absolute difference from the original on the real tokens of rows that it was not traced with."""
    example = _example(model, sizes, seed=1)
    with torch.no_grad():
        expected = model(**example, return_dict=True)
    runtime = Runtime(ShapeLadder((read_contract(path),)), (path,), fill=Fill(pad_id_of(model.config)))
    got = runtime.run([{name: tensor.cpu().numpy() for name, tensor in example.items()}])[0]
    real = example["attention_mask"].bool().cpu().numpy()
    worst = 0.0
    for name in outputs:
        theirs, ours = expected[name].cpu().numpy(), got[name]
        per_token = theirs.shape[: real.ndim] == real.shape
        apart = np.abs(theirs - ours)
        worst = max(worst, float((apart[real] if per_token else apart).max()))
    if not worst <= _WORTH_A_WARNING:
        logger.warning("%s differs from the original by %.1e.", path.name, worst)
    return worst
