"""Models that write, as graphs in several parts: the encoder, the start of a cache, and every step behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import onnx
import torch
from tqdm.auto import tqdm

from optimum_fixedshape.choosing import MAIN_GRAPH
from optimum_fixedshape.contract import BATCH, Mismatch
from optimum_fixedshape.decoding import CONTEXT, PREFILL
from optimum_fixedshape.distances import Distance
from optimum_fixedshape.errors import ShapeMismatchError
from optimum_fixedshape.graph.weights import save_rungs
from optimum_fixedshape.models import classes
from optimum_fixedshape.repo import Sizes, sizes_of
from optimum_fixedshape.tasks import Task

from .decoders import decoder_spec, export_decoder, export_encoder, export_first, export_following
from .defaults import default_size, positions_of
from .examples import axes_of, example_of, keys_of
from .shapes import Combination
from .steps import Step, stepped

_CONTEXTS = (256, 1024)
_PREFILL, _PREFILL_BEHIND_ENCODER = 64, 8
_MEASURED_TOKENS = 80


@dataclass(frozen=True)
class Plan:
    """One graph to be written.

    Attributes:
        name: Its file.
        make: Exports it.
    """

    name: str
    make: Callable[[], onnx.ModelProto]


def export_writer(
    model: torch.nn.Module,
    row: Task,
    folder: Path,
    *,
    shapes: Sizes | None,
    processor: Any,
    steps: Iterable[Step] = (),
    progress: bool,
) -> tuple[str, ...]:
    """Returns the names of the graphs of a model that writes, which are now in `folder` with one file of weights.

    Args:
        model: A PyTorch model of transformers, in evaluation mode.
        row: The task.
        folder: Where the files go.
        shapes: Sizes by shape key: ``context_length`` and ``prefill_length``, and those of what an encoder reads.
        processor: The model's processor, which may know the sizes of what the encoder reads.
        steps: What is done to each graph.
        progress: Show a progress bar.

    Raises:
        ShapeMismatchError: A key of `shapes` is unknown, or the model does not hold so many tokens.
        ExportError: PyTorch cannot export the model.
    """
    plans = [
        *(_of_encoder_decoder if model.config.is_encoder_decoder else _of_decoder)(model, row, shapes or {}, processor)
    ]
    bar = tqdm(plans, desc=f"Exporting {type(model).__name__}", unit="graph", disable=not progress)
    names = tuple(plan.name for plan in plans)
    save_rungs(zip(names, stepped((plan.make() for plan in bar), steps), strict=True), folder=folder)
    return names


def _of_decoder(model: Any, row: Task, shapes: Sizes, processor: Any) -> Iterator[Plan]:
    sizes = _decoder_sizes(model, row, shapes, (BATCH,))
    spec = decoder_spec(model)
    # Slots and new tokens together are the context: some models have tables of no more places.
    lengths = {(size, min(each, size - 1)) for size in sizes[CONTEXT] for each in (1, *sizes[PREFILL])}
    for place, (batch, (context, new)) in enumerate(product(sizes[BATCH], sorted(lengths, reverse=True))):
        make = _later(export_decoder, model, spec, batch=batch, new=new, past=context - new)
        yield Plan(MAIN_GRAPH if not place else f"model_{batch}x{context}x{new}.onnx", make)


def _of_encoder_decoder(model: Any, row: Task, shapes: Sizes, processor: Any) -> Iterator[Plan]:
    axes = axes_of(model, row)
    keys = keys_of(axes)
    sizes = _decoder_sizes(model, row, shapes, keys)
    spec = decoder_spec(model)
    asked = {key: sizes.get(key) or [default_size(key, model.config, processor)] for key in keys}
    known = {key: sorted(of, reverse=True) for key, of in asked.items()}
    sources: dict[tuple[int, int], None] = {}
    for place, each in enumerate(product(*known.values())):
        combination: Combination = dict(zip(known, each, strict=True))
        example = example_of(model, axes, combination)
        with torch.no_grad():
            encoded = model.get_encoder()(**example)[0]
        sources[combination[BATCH], encoded.shape[1]] = None
        name = "encoder_model.onnx" if not place else f"encoder_model_{'x'.join(map(str, each))}.onnx"
        yield Plan(name, _later(export_encoder, model, example=example))
    named = _Names()
    for batch, source in sources:
        for new in sorted({1, *sizes[PREFILL]} if len(sizes[PREFILL]) > 1 else sizes[PREFILL], reverse=True):
            make = _later(export_first, model, spec, batch=batch, new=new, source=source)
            yield Plan(named("decoder_model", batch, source, new), make)
        for context in sorted(sizes[CONTEXT], reverse=True):
            make = _later(export_following, model, spec, batch=batch, new=1, past=context - 1, source=source)
            yield Plan(named("decoder_with_past_model", batch, source, context), make)


class _Names:
    """Names of files: the first of a kind has the plain one."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def __call__(self, kind: str, *sizes: int) -> str:
        plain = kind not in self._seen
        self._seen.add(kind)
        return f"{kind}.onnx" if plain else f"{kind}_{'x'.join(map(str, sizes))}.onnx"


def _later(export: Callable[..., onnx.ModelProto], *args: Any, **kwargs: Any) -> Callable[[], onnx.ModelProto]:
    return lambda: export(*args, **kwargs)


def _decoder_sizes(model: Any, row: Task, shapes: Sizes, keys: Any) -> Mapping[str, list[int]]:
    known = (*keys, CONTEXT, PREFILL)
    if unknown := [key for key in shapes if key not in known]:
        raise ShapeMismatchError(f"shapes= knows {', '.join(known)} for {row.name}, got {', '.join(unknown)}.")
    sizes = {BATCH: [1], **sizes_of(shapes)}
    most = _positions(model)
    sizes.setdefault(CONTEXT, list(dict.fromkeys(min(size, most or size) for size in _CONTEXTS)))
    prefill = _PREFILL_BEHIND_ENCODER if model.config.is_encoder_decoder else _PREFILL
    sizes.setdefault(PREFILL, [min(prefill, *sizes[CONTEXT])])
    if bad := [size for size in sizes[CONTEXT] if size < 2 or (most is not None and size > most)]:
        limit = "2 or more" if most is None else f"2 to {most}, the positions that the model has"
        mismatches = tuple(Mismatch(CONTEXT, None, limit, str(size)) for size in bad)
        raise ShapeMismatchError(f"{CONTEXT} must be {limit}, got {bad}.", mismatches=mismatches)
    return sizes


def _positions(model: Any) -> int | None:
    """How many tokens the decoder can place, or None where it does not count them."""
    config = getattr(model.config, "decoder", None) or model.config
    found = getattr(config, "max_target_positions", None) or positions_of(config.get_text_config(decoder=True))
    return None if found is None else int(found)


def writer_distance(model: Any, row: Task, folder: Path) -> Distance:
    """Returns how far the logits are from the original's, on random tokens: a prompt and one step.

    Args:
        model: The original.
        row: The task.
        folder: The folder that was written.
    """
    ours = getattr(classes, row.model).from_pretrained(folder)
    vocabulary = model.config.get_text_config(decoder=True).vocab_size
    tokens = torch.randint(0, vocabulary, (2, min(ours.context_length, _MEASURED_TOKENS)))
    name, inputs = "input_ids", {}
    if model.config.is_encoder_decoder:
        sizes = {role: size for role, size in ours.contract.sizes.items() if size}
        name, inputs = "decoder_input_ids", example_of(model, axes_of(model, row), {**sizes, BATCH: 2})
    with torch.no_grad():
        theirs = model(**inputs, **{name: tokens.to(model.device)}, return_dict=True).logits.cpu()
    cache, parts = None, []
    for piece in tokens.split([tokens.shape[1] - 1, 1], dim=1):
        output = ours(**inputs, **{name: piece}, past_key_values=cache)
        cache = output.past_key_values
        parts.append(output.logits)
    distance = Distance()
    distance.add("logits", theirs.numpy(), torch.cat(parts, dim=1).numpy())
    return distance
