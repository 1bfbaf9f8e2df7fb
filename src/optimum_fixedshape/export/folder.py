"""From a transformers model to a folder of fixed graphs: one a rung, one file of weights, processors and configs."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
import transformers
from tqdm.auto import tqdm

from optimum_fixedshape.config import FixedShapeConfig, free_folder
from optimum_fixedshape.contract import BATCH, SEQUENCE
from optimum_fixedshape.differences import largest_difference
from optimum_fixedshape.errors import InvalidModelError, UnsupportedTaskError
from optimum_fixedshape.fitting import Fill, pad_id_of
from optimum_fixedshape.graph.reader import read_contract
from optimum_fixedshape.graph.weights import save_rungs
from optimum_fixedshape.hub import is_repo_id
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.models.remote_code import write_remote_code
from optimum_fixedshape.repo import MAIN_GRAPH, Sizes
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.tasks import Task, find_task, task_of_architectures, tasks_called

from .examples import Axes, axes_of, example_of, keys_of
from .shapes import Combination, combinations_of
from .torch_export import export_rung
from .writers import export_writer, writer_difference

logger = logging.getLogger(__name__)

_WORTH_A_WARNING = 1e-4
_MEASURED_UP_TO = 2048  # tokens: attention takes their square in memory, and nobody may ever run the larger rungs


def export_model(
    model_or_id: Any,
    output: str | Path,
    *,
    task: str | None = None,
    shapes: Sizes | None = None,
    processor: Any = None,
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
            8 rows of 16, 32, 64 and 128 tokens for texts; else one row of the size that the model or its processor was
            made for, and 10 seconds at 16 kHz for waveforms. Models that write take ``context_length`` and
            ``prefill_length`` (by default one row of 256 and of 1024 tokens, as far as the model has positions, in runs
            of 64), and are written as a graph for each part and size: stock optimum cannot run those.
        processor: Saved beside the graphs: a tokenizer, an image processor, a combination, ... By default that of
            `model_or_id`, where that is a folder or repo.
        progress: Show a progress bar.
        **hub_options: Passed on to transformers' `from_pretrained` (``revision=``, ``token=``, ...).

    Raises:
        UnsupportedTaskError: The task is unknown, cannot be told, or is not the model's.
        ShapeMismatchError: A key of `shapes` is unknown, or a size is none that the model has.
        ExportError: PyTorch cannot export the model.
        MissingExtraError: The ``export`` extra is not installed.
        FileExistsError: `output` is a file.
        NotADirectoryError: `model_or_id` is a file, such as a graph.
    """
    folder = free_folder(output)
    row = _task_of(model_or_id, task, hub_options)
    model = model_or_id
    if isinstance(model_or_id, (str, Path)):
        model = getattr(transformers, row.auto).from_pretrained(model_or_id, dtype=torch.float32, **hub_options)
        processor = _processor_of(model_or_id, hub_options) if processor is None else processor
    if row.name == "feature-extraction" and model.main_input_name == "pixel_values":
        row = find_task("image-feature-extraction")
    stale = _graphs_in(folder)
    with _evaluated(model):
        export = _export_writer if row.writes else _export_plain
        names, difference = export(model, row, folder, shapes=shapes, processor=processor, progress=progress)
        saved = FixedShapeConfig(names, task=row.name, difference=difference, original=_repo_of(model))
        _save_configs(model, folder, saved)
        write_remote_code(folder, row)
        if row.writes:
            worst = writer_difference(model, row, folder)
            _warn_beyond_rounding(names[0], worst)
            replace(saved, difference=dict.fromkeys(names, worst)).save_pretrained(folder)
    for name in stale - set(names):
        (folder / name).unlink(missing_ok=True)
    if processor is not None:
        processor.save_pretrained(folder)
    return folder


def _repo_of(model: Any) -> str | None:
    """The Hub repo that a model was loaded from."""
    name = getattr(model.config, "_name_or_path", None) or ""
    return name if is_repo_id(name) and not Path(name).exists() else None


def _save_configs(model: Any, folder: Path, fixed_shape_config: FixedShapeConfig) -> None:
    fixed_shape_config.save_pretrained(folder)
    config = copy.deepcopy(model.config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(folder)
    if (generation_config := getattr(model, "generation_config", None)) is not None:
        generation_config.save_pretrained(folder)


def _export_plain(
    model: Any, row: Task, folder: Path, *, shapes: Sizes | None, processor: Any, progress: bool
) -> tuple[tuple[str, ...], dict[str, float]]:
    """The names of the graphs, and how far each is from the original."""
    axes = axes_of(model, row)
    combinations = combinations_of(shapes, row, model.config, keys_of(axes), processor)
    names = [MAIN_GRAPH, *("model_" + "x".join(map(str, sizes.values())) + ".onnx" for sizes in combinations[1:])]
    bar = tqdm(combinations, desc=f"Exporting {type(model).__name__}", unit="graph", disable=not progress)
    outputs = _outputs_of(model, row, axes, combinations[-1])
    save_rungs(_exported(model, axes, outputs, names, bar), folder=folder)
    return tuple(names), {
        name: _difference(model, axes, outputs, folder / name, sizes)
        for name, sizes in zip(names, combinations, strict=True)
        if sizes.get(SEQUENCE, 0) <= _MEASURED_UP_TO
    }


def _export_writer(
    model: Any, row: Task, folder: Path, *, shapes: Sizes | None, processor: Any, progress: bool
) -> tuple[tuple[str, ...], dict[str, float]]:
    """The names of the graphs; how far they are from the original shows once the folder is whole."""
    return export_writer(model, row, folder, shapes=shapes, processor=processor, progress=progress), {}


def _task_of(model_or_id: Any, asked: str | None, hub_options: Mapping[str, Any]) -> Task:
    if isinstance(model_or_id, (str, Path)):
        if Path(model_or_id).is_file():
            raise NotADirectoryError(
                f"{model_or_id} is a file, and a PyTorch model is a folder or a Hub repo. For a graph there is "
                "pin_shapes, or `optimum-fixedshape pin`."
            )
        if asked and len(tasks_called(asked)) < 2:
            return find_task(asked)
        architectures = transformers.AutoConfig.from_pretrained(model_or_id, **hub_options).architectures or []
    else:
        architectures = [type(model_or_id).__name__]
    told = task_of_architectures(architectures)
    wanted = find_task(asked, model=told.model if told else None) if asked else told
    name = ", ".join(architectures) or "a model without architectures"
    if wanted is None:
        raise UnsupportedTaskError(f"The task of {name} cannot be told. Pass task=.", task=None)
    if told is not None and told.auto != wanted.auto:
        raise UnsupportedTaskError(
            f"{name} is a model for {told.name}; for {wanted.name} load it with {wanted.auto}.", task=wanted.name
        )
    return wanted


def _processor_of(model_id: str | Path, hub_options: Mapping[str, Any]) -> Any:
    """The processor of a model: a combination where there is one, else what there is."""
    reasons = []
    for auto in ("AutoProcessor", "AutoTokenizer", "AutoImageProcessor", "AutoFeatureExtractor"):
        try:
            return getattr(transformers, auto).from_pretrained(model_id, **hub_options)
        except Exception as error:  # transformers raises anything where files are missing
            reasons.append(f"{auto}: {error}")
    logger.warning("%s has no processor that could be saved with the graphs: %s", model_id, reasons[0])
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


def _outputs_of(model: Any, row: Task, axes: Axes, sizes: Combination) -> tuple[str, ...]:
    small = {**sizes, BATCH: 1, **({SEQUENCE: 4} if SEQUENCE in sizes else {})}
    with torch.no_grad():
        output = model(**example_of(model, axes, small), return_dict=True)
    if found := tuple(name for name in row.outputs if output.get(name) is not None):
        return found
    given = f"{type(model).__name__} gives {', '.join(output)}"
    raise UnsupportedTaskError(f"{given}, and {row.name} needs {', '.join(row.outputs)}.", task=row.name)


def _exported(
    model: Any, axes: Axes, outputs: Sequence[str], names: Sequence[str], combinations: Iterable[Combination]
) -> Iterator[tuple[str, onnx.ModelProto]]:
    for name, sizes in zip(names, combinations, strict=True):
        yield name, export_rung(model, example_of(model, axes, sizes), outputs)


def _difference(model: Any, axes: Axes, outputs: Sequence[str], path: Path, sizes: Combination) -> float:
    """The largest absolute difference from the original, of tokens the real ones, on rows it was not traced with."""
    example = example_of(model, axes, sizes, seed=1)
    with torch.no_grad():
        expected = model(**example, return_dict=True)
    runtime = Runtime(ShapeLadder((read_contract(path),)), (path,), fill=Fill(pad_id_of(model.config)))
    got = runtime.run([{name: tensor.cpu().numpy() for name, tensor in example.items()}])[0]
    real = example["attention_mask"].bool().cpu().numpy() if "attention_mask" in example else np.ones(())
    worst = 0.0
    for name in outputs:
        theirs, ours = expected[name].cpu().numpy(), got[name]
        per_token = real.ndim and theirs.shape[: real.ndim] == real.shape
        worst = max(worst, largest_difference(*((theirs[real], ours[real]) if per_token else (theirs, ours))))
    _warn_beyond_rounding(path.name, worst)
    return worst


def _warn_beyond_rounding(name: str, worst: float) -> None:
    if not worst <= _WORTH_A_WARNING:
        logger.warning("%s differs from the original by %.1e.", name, worst)
