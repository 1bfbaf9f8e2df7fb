"""From a transformers model to a folder of fixed graphs: one a rung, one file of weights, tokenizer and configs."""

from __future__ import annotations

import copy
import inspect
import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers
from tqdm.auto import tqdm

from ..config import FixedShapeConfig
from ..contract import BATCH, SEQUENCE, Mismatch, ShapeLadder
from ..errors import ShapeMismatchError, UnsupportedTaskError
from ..fitting import Fill, pad_id_of
from ..graph.reader import read_contract
from ..graph.weights import save_rungs
from ..repo import MAIN_GRAPH, Sizes
from ..runtime import Runtime
from ..tasks import TASKS, Task, find_task
from .torch_export import export_rung

logger = logging.getLogger(__name__)

DEFAULT_SHAPES: Sizes = {BATCH: 8, SEQUENCE: [16, 32, 64, 128]}
_CHOICES = "num_choices"
_DEFAULT_CHOICES = 4
_WORTH_A_WARNING = 1e-4
Combination = dict[str, int]


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

    The largest graph is ``model.onnx``, which stock optimum loads. Each graph is compared with the original on random
    rows with padding; the largest difference is saved in ``fixedshape_config.json``.

    Args:
        model_or_id: A PyTorch model of transformers, or the folder or Hub repo to load it from.
        output: The folder to write; created if need be.
        task: transformers' name of the task. By default what the model's class or its config says.
        shapes: Sizes by shape key; a list makes a ladder, two lists one graph for each combination. By default
            8 rows of 16, 32, 64 and 128 tokens.
        tokenizer: Saved beside the graphs. By default the one of `model_or_id`, where that is a folder or repo.
        progress: Show a progress bar.
        **hub_options: Passed on to transformers' `from_pretrained` (``revision=``, ``token=``, ...).

    Raises:
        UnsupportedTaskError: The task is unknown, or cannot be told.
        ShapeMismatchError: A key of `shapes` is unknown, or a size is none that the model has.
        ExportError: PyTorch cannot export the model.
        MissingExtraError: The ``export`` extra is not installed.
    """
    row = find_task(task) if task else _task_of(model_or_id, hub_options)
    model = model_or_id
    if isinstance(model_or_id, (str, Path)):
        model = getattr(transformers, row.auto).from_pretrained(model_or_id, dtype=torch.float32, **hub_options)
        tokenizer = tokenizer or _tokenizer_of(model_or_id, hub_options)
    combinations = _combinations(shapes or DEFAULT_SHAPES, row, model.config)
    names = [MAIN_GRAPH, *("model_" + "x".join(map(str, sizes.values())) + ".onnx" for sizes in combinations[1:])]
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    given = _outputs_of(model, row)
    bar = tqdm(combinations, desc=f"Exporting {type(model).__name__}", unit="graph", disable=not progress)
    save_rungs(_exported(model, given, names, bar), folder=folder)
    difference = {
        name: _difference(model, given, folder / name, sizes) for name, sizes in zip(names, combinations, strict=True)
    }
    FixedShapeConfig(tuple(names), task=row.name, difference=difference).save_pretrained(folder)
    config = copy.deepcopy(model.config)
    config.architectures = config.architectures or [type(model).__name__]
    config.save_pretrained(folder)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def shapes_up_to(config: Any) -> Sizes:
    """Returns shapes that hold whatever the original model holds, one row at a time: for exports on the fly."""
    longest = min(_positions(config) or 512, 512)
    return {BATCH: 1, SEQUENCE: [*(length for length in (16, 64, 192) if length < longest), longest]}


def _task_of(model_or_id: Any, hub_options: Mapping[str, Any]) -> Task:
    if isinstance(model_or_id, (str, Path)):
        known = {"revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder", "trust_remote_code"}
        options = {name: value for name, value in hub_options.items() if name in known}
        architectures = transformers.AutoConfig.from_pretrained(model_or_id, **options).architectures or []
    else:
        architectures = [type(model_or_id).__name__]
    for architecture in architectures:
        for row in TASKS:
            if row.auto != "AutoModel" and architecture.endswith(row.auto.removeprefix("AutoModel")):
                return row
        if "For" not in architecture:
            return find_task("feature-extraction")
    raise UnsupportedTaskError(
        f"The task of {', '.join(architectures) or 'a model without architectures'} cannot be told. Pass task=.", task=None
    )


def _tokenizer_of(model_id: str | Path, hub_options: Mapping[str, Any]) -> Any:
    try:
        return transformers.AutoTokenizer.from_pretrained(model_id, **hub_options)
    except (OSError, ValueError) as error:
        logger.warning("%s has no tokenizer that could be saved with the graphs: %s", model_id, error)
        return None


def _combinations(shapes: Sizes, row: Task, config: Any) -> list[Combination]:
    """Every combination of the sizes, largest first."""
    wanted = {BATCH: 1, **({_CHOICES: _DEFAULT_CHOICES} if row.name == "multiple-choice" else {}), **shapes}
    allowed = [BATCH, _CHOICES, SEQUENCE] if row.name == "multiple-choice" else [BATCH, SEQUENCE]
    if unknown := [key for key in wanted if key not in allowed]:
        raise ShapeMismatchError(f"shapes= knows {', '.join(allowed)} for {row.name}, got {', '.join(unknown)}.")
    if SEQUENCE not in wanted:
        raise ShapeMismatchError(f"shapes= needs {SEQUENCE}, an int or a list of ints.")
    sizes = {key: [wanted[key]] if isinstance(wanted[key], int) else list(wanted[key]) for key in allowed}  # type: ignore[call-overload]
    for key, values in sizes.items():
        most = _positions(config) if key == SEQUENCE else None
        if bad := [size for size in values if not isinstance(size, int) or size < 1 or (most and size > most)]:
            limit = f"1 to {most}, the positions that the model has" if most else "1 or more"
            mismatches = tuple(Mismatch(key, None, limit, str(size)) for size in bad)
            raise ShapeMismatchError(f"{key} must be {limit}, got {bad}.", mismatches=mismatches)
    rungs = {tuple(sizes): dict(zip(allowed, sizes, strict=True)) for sizes in product(*sizes.values())}
    return [rungs[key] for key in sorted(rungs, key=lambda key: (key[-1], key), reverse=True)]


def _positions(config: Any) -> int | None:
    """How many tokens the model can place, or None where it does not count them."""
    most = getattr(config, "max_position_embeddings", None)
    if most is None or most < 1 or not getattr(config, "position_biased_input", True):
        return None
    starts_after_padding = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "longformer", "data2vec-text"}
    offset = (config.pad_token_id or 0) + 1 if config.model_type in starts_after_padding else 0
    return int(most) - offset


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
    return example


def _outputs_of(model: Any, row: Task) -> tuple[str, ...]:
    model.eval()
    example = _example(model, {BATCH: 1, **({_CHOICES: 1} if row.name == "multiple-choice" else {}), SEQUENCE: 4})
    with torch.no_grad():
        output = model(**example, return_dict=True)
    return tuple(name for name in row.outputs if output.get(name) is not None)


def _exported(
    model: Any, outputs: Sequence[str], names: Sequence[str], combinations: Any
) -> Iterator[tuple[str, onnx.ModelProto]]:
    for name, sizes in zip(names, combinations, strict=True):
        yield name, export_rung(model, _example(model, sizes), outputs)


def _difference(model: Any, outputs: Sequence[str], path: Path, sizes: Combination) -> float:
    """The largest absolute difference from the original on the real tokens of rows that it was not traced with."""
    example = _example(model, sizes, seed=1)
    with torch.no_grad():
        expected = model(**example, return_dict=True)
    runtime = Runtime(ShapeLadder((read_contract(path),)), (path,), fill=Fill(pad_id_of(model.config)))
    got = runtime.run([{name: tensor.numpy() for name, tensor in example.items()}])[0]
    real = example["attention_mask"].bool().numpy()
    worst = 0.0
    for name in outputs:
        theirs, ours = expected[name].numpy(), got[name]
        per_token = theirs.shape[: real.ndim] == real.shape
        apart = np.abs(theirs - ours)
        worst = max(worst, float((apart[real] if per_token else apart).max()))
    if not worst <= _WORTH_A_WARNING:
        logger.warning("%s differs from the original by %.1e.", path.name, worst)
    return worst
