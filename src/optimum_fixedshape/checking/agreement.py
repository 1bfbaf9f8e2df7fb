"""Agreement with the PyTorch model that a graph was made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optimum_fixedshape.contract import SAMPLES, SEQUENCE
from optimum_fixedshape.fitting import Arrays
from optimum_fixedshape.ladder import ShapeLadder
from optimum_fixedshape.runtime import Runtime
from optimum_fixedshape.tasks import find_task

from .comparing import Outputs, said
from .probe import Probe
from .report import Finding, Verdict
from .subject import Group, Subject

_TIMES_ROUNDING = 10  # an export rounds once more in each layer than two runs of the same graph
_TOKENS_WRITTEN = 4


def check_agreement(subject: Subject) -> Iterator[Finding]:
    """Yields how far the graphs are from their original, at the size of each rung and below."""
    if subject.original is None:
        yield Finding(Verdict.SKIPPED, "No original was given to compare with.")
        return
    original = _loaded(subject)
    if subject.parts:
        yield from _of_writer(subject, original)
    else:
        yield from _of_group(subject, subject.groups[0], original)


def _loaded(subject: Subject) -> Any:
    """The PyTorch model, loaded where a folder or a Hub repo was given."""
    if hasattr(subject.original, "forward"):
        return subject.original.eval()
    import transformers

    config = transformers.AutoConfig.from_pretrained(subject.original)
    named = [getattr(transformers, name, None) for name in config.architectures or ()]
    task = subject.task
    kind = next(filter(None, named), None) or getattr(transformers, task.auto if task else "AutoModel")
    return kind.from_pretrained(subject.original).eval()


def _of_group(subject: Subject, group: Group, original: Any) -> Iterator[Finding]:
    ladder = ShapeLadder(tuple(probe.stated for probe in group))
    runtime = Runtime(ladder, [probe.path for probe in group], fill=group[0].fill, pool=subject.pool)
    for probe in group:
        for where, item in _items(probe, sees_padding=subject.sees_padding is not None):
            theirs = _answer(original, item)
            ours = runtime.run([item])[0]
            yield _compared(probe, where, *_paired(ours, theirs))


def _items(probe: Probe, *, sees_padding: bool) -> Iterator[tuple[str, Arrays]]:
    """Yields inputs without padding: of the probe's own size, and of about half its length."""
    whole = probe.inputs(padded=False)
    yield "at its own size", whole
    role = next((role for role in (SEQUENCE, SAMPLES) if role in probe.contract.sizes), None)
    if role is None or sees_padding:
        return
    size = probe.contract.sizes[role] or 0
    least = max(size // 2, 2)
    if least < size:
        axes = {spec.name: spec.axis_of(role) for spec in probe.contract.inputs}
        yield (
            f"at {role} {least}",
            {
                name: array if (axis := axes[name]) is None else array.take(range(least), axis)
                for name, array in whole.items()
            },
        )


def _answer(original: Any, inputs: Mapping[str, Any]) -> dict[str, Any]:
    import torch

    weight = next((parameter for parameter in original.parameters() if parameter.is_floating_point()), None)
    tensors = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in inputs.items()}
    if weight is not None:
        tensors = {
            name: (tensor.to(weight.dtype) if tensor.is_floating_point() else tensor).to(weight.device)
            for name, tensor in tensors.items()
        }
    with torch.no_grad():
        return dict(original(**tensors, return_dict=True))


def _paired(ours: Outputs, theirs: Mapping[str, Any]) -> tuple[Outputs, Outputs]:
    """The outputs that both have; where no name is shared, the first of each."""
    found: Outputs = {}
    for name, value in theirs.items():
        parts = {f"{name}.{i}": part for i, part in enumerate(value)} if isinstance(value, tuple) else {name: value}
        found |= {key: _floats(part) for key, part in parts.items() if hasattr(part, "detach")}
    shared = [name for name in ours if name in found]
    if not shared and ours and found:
        return {"first": next(iter(ours.values()))}, {"first": next(iter(found.values()))}
    return {name: ours[name] for name in shared}, {name: found[name] for name in shared}


def _floats(tensor: Any) -> Any:
    plain = tensor.detach().cpu()
    return (plain.float() if plain.is_floating_point() else plain).numpy()


def _of_writer(subject: Subject, original: Any) -> Iterator[Finding]:
    """Compares the logits of a whole text, as the model class that a user would load gives them."""
    from optimum_fixedshape.models import classes

    task = subject.task
    if task is None or not task.writes:
        task = find_task("text-generation")
    place = subject.source if Path(subject.source).exists() else subject.folder
    ours = getattr(classes, task.model).from_pretrained(
        place, provider=subject.pool.providers[0], provider_options=subject.pool.provider_options
    )
    entrance = subject.groups[0][0]
    made = entrance.inputs(padded=False)
    ids = made.get("input_ids")
    if subject.parts is not None and subject.parts.encoder:
        names = [name for name in made if name != "attention_mask" or "input_ids" in made]
        start = int(getattr(original.config, "decoder_start_token_id", None) or 0)
        item = {name: made[name][:1] for name in names}
        item["decoder_input_ids"] = np.array([[start, *range(5, 4 + _TOKENS_WRITTEN)]], dtype=np.int64)
    else:
        count = min(8, ours.context_length or 8)
        assert ids is not None
        item = {"input_ids": np.resize(np.unique(ids), (1, count)).astype(np.int64)}
    logits = {"logits": ours(**item).logits}
    yield _compared(entrance, "a whole text", logits, _paired(logits, _answer(original, item))[1])


def _compared(probe: Probe, where: str, ours: Outputs, theirs: Outputs) -> Finding:
    if not theirs:
        what = "The original gives none of the graph's outputs."
        return Finding(Verdict.WARNING, what, f"{probe.label}: {', '.join(probe.contract.output_names)}")
    difference = probe.apart(ours, theirs)
    evidence = f"{probe.label} {where}: {said(difference)} in {', '.join(theirs)}"
    facts = {"difference": difference}
    if difference <= probe.tolerance * _TIMES_ROUNDING:
        return Finding(Verdict.PASS, "The graph gives what the original gives.", evidence, facts)
    if probe.accuracy.is_quantized and difference != float("inf"):
        what = "The graph is quantized, and gives nearly what the original gives: see how far it is off."
        return Finding(Verdict.WARNING, what, evidence, facts)
    return Finding(Verdict.FAIL, "The graph does not give what the original gives.", evidence, facts)
